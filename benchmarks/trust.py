"""What there is to show that densekit's numbers can be believed, in one table.

    python benchmarks/trust.py                                # the table of what was run so far
    python benchmarks/trust.py --run contract mutants known   # run these, then the table
    python benchmarks/trust.py --run fuzz kills hostile       # minutes: 10,000 files, 20 kills a fit
    python benchmarks/trust.py --run hostile --slow           # 5,000 inputs for each codec
    python benchmarks/trust.py --run caught curves zoo --seconds 600   # of each ten minutes; goes on

False alarms of densekit's own models come from benchmarks/false_alarms.py, which runs for hours. Writes
results/trust.json, in which each part has its command, date and version; docs/trust_page.py makes the
tables of docs/trust.md of it. A part that was not run, or was run with another version, says so.
"""

import argparse
import ast
import collections
import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import false_alarms
from _pages import ROOT
from _record import RESULTS, environment, write

import densekit
from densekit.checks.subject import CHECKS

sys.path.insert(0, str(ROOT / "docs"))

import trust_page

PYTEST = "pytest -n 0 -q"


def pytest_of(words):
    """Outcomes of a test run, and what its tests printed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run = [sys.executable, "-m", *words.split()]
        run += [f"--junitxml={report}", "-o", "junit_logging=system-out"]
        code = subprocess.run(run, cwd=ROOT, check=False).returncode
        if code not in (0, 1):  # a test that fails is a result; no test at all is none
            raise RuntimeError(f"{words} ran no tests (exit status {code})")
        cases = ElementTree.parse(report).findall(".//testcase")
    kinds = [next((c.tag for c in case if c.tag in _NOT_PASSED), "passed") for case in cases]
    counts = collections.Counter(kinds)
    return {
        "passed": counts["passed"],
        "failed": counts["failure"] + counts["error"],
        "skipped": counts["skipped"],
        "failures": [c.get("name") for c, k in zip(cases, kinds, strict=True) if k in _FAILED],
    }, [case.findtext("system-out") or "" for case in cases]


_FAILED = ("failure", "error")
_NOT_PASSED = (*_FAILED, "skipped")


def contract(slow, seconds):
    """Every check on every model of densekit."""
    command = f"{PYTEST} tests/test_contract.py"
    return {"command": command, **pytest_of(command)[0]}


def mutants(slow, seconds):
    """Each broken estimator with the check that must detect it."""
    command = f"{PYTEST} tests/checks/test_mutants.py -k broken"
    return {"command": command, **pytest_of(command)[0]}


def known(slow, seconds):
    """Scores compared with closed forms and with other libraries."""
    command = f"{PYTEST} tests/test_known_values.py"
    return {"command": command, **pytest_of(command)[0]}


def fuzz(slow, seconds):
    """Randomly modified files of models: each must raise an error or give the original scores."""
    sys.path.insert(0, str(ROOT / "tests"))
    import test_fuzz_files

    outcomes, error = {}, ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcomes = test_fuzz_files.fuzz(10_000, 2, Path(folder))
        except AssertionError as raised:
            error = str(raised)
    found = collections.Counter()
    for (_, outcome), n in outcomes.items():
        found[outcome] += n
    return {
        "command": "pytest --slow tests/test_fuzz_files.py -k ten_thousand",
        **found,
        "error": error,
    }


def kills(slow, seconds):
    """Fits that are killed and resumed."""
    with tempfile.TemporaryDirectory() as folder:
        out, command = Path(folder) / "kills.json", "python tests/kills.py --kills 20"
        run = [sys.executable, *command.split()[1:], "--out", str(out)]
        subprocess.run(run, cwd=ROOT, check=False)
        return {"command": command, "families": json.loads(out.read_text())}


def hostile(slow, seconds):
    """Inputs from Hypothesis; the tests print how many were accepted and how many raised an error."""
    command = f"{PYTEST} tests/hostile{' --slow' if slow else ''}"
    counts, printed = pytest_of(command)
    seen = collections.Counter()
    for line in re.findall(r"^.+?: (\{.*\})$", "\n".join(printed), re.MULTILINE):
        seen.update(ast.literal_eval(line))
    return {"command": command, **counts, "inputs": sum(seen.values()), **seen}


def of_checks(name):
    """A part of checked.py, which runs for so many seconds and goes on from there the next time."""

    def part(slow, seconds):
        import checked

        found = {"caught": checked.caught, "curves": checked.curves, "zoo": checked.zoo_of_all}
        result = found[name](seconds)
        return {"command": f"python benchmarks/trust.py --run {name}"} | result

    return part


PARTS = {f.__name__: f for f in (contract, mutants, known, fuzz, kills, hostile)}
PARTS |= {name: of_checks(name) for name in ("caught", "curves", "zoo")}


def alarms():
    """Seeds and seeds with a failure, by model."""
    path = RESULTS / "false_alarms.json"
    found = json.loads(path.read_text())["models"] if path.exists() else {}
    keep = ("date", "seeds", "seeds_with_a_failure", "rate_below_at_95_percent", "failures")
    return {
        name: {k: f[k] for k in keep}
        | {"checks": len(f["checks"]), "effort": f.get("effort", "standard")}
        for name, f in found.items()
        if f["seeds"]
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="+", choices=PARTS, default=[], metavar="PART")
    parser.add_argument("--slow", action="store_true", help="the long form of a part that has one")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="of caught, curves, zoo"
    )
    given = parser.parse_args()
    ran = {}
    for name in given.run:
        now = environment()
        stamp = {"version": densekit.__version__, "date": now["date"], "machine": now["machine"]}
        ran[name] = PARTS[name](given.slow, given.seconds) | stamp
    path = RESULTS / "trust.json"  # read last: another run may have written its part meanwhile
    parts = (json.loads(path.read_text())["parts"] if path.exists() else {}) | ran
    noisy = alarms()
    record = environment() | {
        "version": densekit.__version__,
        "n_checks": len(CHECKS),
        "models": list(false_alarms.SETTINGS),
        "parts": parts,
        "false_alarms": noisy,
    }
    write("trust", record)
    trust_page.write(ROOT / "docs", RESULTS)


if __name__ == "__main__":
    main()
