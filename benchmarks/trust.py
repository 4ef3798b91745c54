"""The evidence that densekit's results are correct, in one table.

    python benchmarks/trust.py                                # the table of what was run so far
    python benchmarks/trust.py --run contract mutants known   # run these, then the table
    python benchmarks/trust.py --run fuzz kills hostile       # minutes: 10,000 files, 20 kills a fit
    python benchmarks/trust.py --run hostile --slow           # 5,000 inputs for each codec

False alarms are measured by benchmarks/false_alarms.py, which runs for hours. Writes
results/trust.json, in which each part has its command, date and version, and the tables of
docs/trust.md. A part that was not run, or was run with another version, is marked as such.
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
from _pages import ROOT, insert, table
from _record import RESULTS, environment, write

import densekit
from densekit.checks.subject import CHECKS

PYTEST = "pytest -n 0 -q"


def pytest_of(words):
    """Outcomes of a test run, and the output of its tests."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run = [sys.executable, "-m", *words.split()]
        run += [f"--junitxml={report}", "-o", "junit_logging=system-out"]
        code = subprocess.run(run, cwd=ROOT, check=False).returncode
        if code not in (0, 1):  # A failing test is a result, but an empty test run is not.
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


def contract(slow):
    """Every check on every model of densekit."""
    command = f"{PYTEST} tests/test_contract.py"
    return {"command": command, **pytest_of(command)[0]}


def mutants(slow):
    """Each broken estimator with the check that must detect it."""
    command = f"{PYTEST} tests/checks/test_mutants.py -k broken"
    return {"command": command, **pytest_of(command)[0]}


def known(slow):
    """Scores compared with closed forms and with other libraries."""
    command = f"{PYTEST} tests/test_known_values.py"
    return {"command": command, **pytest_of(command)[0]}


def fuzz(slow):
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


def kills(slow):
    """Fits that are killed and resumed."""
    with tempfile.TemporaryDirectory() as folder:
        out, command = Path(folder) / "kills.json", "python tests/kills.py --kills 20"
        run = [sys.executable, *command.split()[1:], "--out", str(out)]
        subprocess.run(run, cwd=ROOT, check=False)
        return {"command": command, "families": json.loads(out.read_text())}


def hostile(slow):
    """Inputs from Hypothesis; the tests print how many were accepted and how many raised an error."""
    command = f"{PYTEST} tests/hostile{' --slow' if slow else ''}"
    counts, printed = pytest_of(command)
    seen = collections.Counter()
    for line in re.findall(r"^.+?: (\{.*\})$", "\n".join(printed), re.MULTILINE):
        seen.update(ast.literal_eval(line))
    return {"command": command, **counts, "inputs": sum(seen.values()), **seen}


PARTS = {f.__name__: f for f in (contract, mutants, known, fuzz, kills, hostile)}


def alarms():
    """Numbers of seeds and of seeds with a failure, by model."""
    path = RESULTS / "false_alarms.json"
    found = json.loads(path.read_text())["models"] if path.exists() else {}
    keep = ("date", "seeds", "seeds_with_a_failure", "rate_below_at_95_percent", "failures")
    return {name: {k: f[k] for k in keep} for name, f in found.items() if f["seeds"]}


# The page.


def lines(parts, noisy):
    """A line of the table for each part: claim, result and command."""
    shown = {
        "contract": ("Pairs of a model and a check that applies to it: the model passes", _of),
        "mutants": ("Broken estimators caught by the check that is meant for each", _of),
        "known": (
            "Tests against SciPy, scikit-learn, nflows, Pyro, pencil and paper that pass",
            _of,
        ),
        "fuzz": ("Saved files changed at random: refused by name, or scored as before", _fuzzed),
        "kills": ("Kills (SIGKILL) after which a fit ended bit for bit as if left alone", _killed),
        "hostile": ("Hostile inputs: a right answer, or an error that names the culprit", _tried),
    }
    found = [["Checks in the public suite", str(len(CHECKS)), "`densekit.checks`"]]
    for name, (claim, describe) in shown.items():
        part = parts.get(name)
        if part is None:
            found.append([claim, "not run", f"`python benchmarks/trust.py --run {name}`"])
            continue
        old = "" if part["version"] == densekit.__version__ else f", version {part['version']}"
        found.append(
            [claim, f"{describe(part)} ({part['date'][:10]}{old})", f"`{part['command']}`"]
        )
    seeds = [a["seeds"] for a in noisy.values()]
    wrong = sum(a["seeds_with_a_failure"] for a in noisy.values())
    result = "not run"
    if seeds:
        each = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
        result = f"{wrong} in {each} runs of {len(seeds)} of {len(false_alarms.SETTINGS)} models"
    what = "False alarms of the checks that are left to chance"
    found.insert(3, [what, result, "`python benchmarks/false_alarms.py`"])
    return found


def _of(part):
    return f"{part['passed']} of {part['passed'] + part['failed']}"


def _fuzzed(part):
    if part["error"]:
        return f"fails: {part['error']}"
    n, refused = part["refused"] + part["loaded"], part["refused"]
    return f"{n:,} of {n:,}: {refused:,} refused, {part['loaded']:,} unharmed"


def _killed(part):
    families = part["families"].values()
    unlike, left, n = (sum(f[k] for f in families) for k in ("unlike", "left", "kills"))
    text = f"{n} in {len(families)} families, {unlike} fits unlike"
    return text + (f", {left} half-written files left behind" if left else "")


def _tried(part):
    failed = f"{part['failed']} of {part['passed'] + part['failed']} tests fail"
    return f"{part['inputs']:,}" + (f", {failed}" if part["failed"] else "")


def page(parts, noisy):
    """Insert the tables into docs/trust.md."""
    heads = ["what", "found", "command"]
    text = table(heads, lines(parts, noisy)).replace("--:", "---")
    insert("docs/trust.md", "trust", text)
    cells = []
    for name in false_alarms.SETTINGS:
        a = noisy.get(name)
        if a is None:
            cells.append([name, "not run", "", ""])
        else:
            rate = f"{a['rate_below_at_95_percent']:.1%}"
            cells.append([name, str(a["seeds"]), str(a["seeds_with_a_failure"]), rate])
    heads = ["model", "runs", "runs with a false alarm", "rate at most (95 %)"]
    insert("docs/trust.md", "false alarms", table(heads, cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="+", choices=PARTS, default=[], metavar="PART")
    parser.add_argument(
        "--slow", action="store_true", help="run the long form of a part, if it has one"
    )
    given = parser.parse_args()
    ran = {}
    for name in given.run:
        now = environment()
        stamp = {"version": densekit.__version__, "date": now["date"], "machine": now["machine"]}
        ran[name] = PARTS[name](given.slow) | stamp
    path = RESULTS / "trust.json"  # Read last, because another run may have written its part.
    parts = (json.loads(path.read_text())["parts"] if path.exists() else {}) | ran
    noisy = alarms()
    write(
        "trust", environment() | {"n_checks": len(CHECKS), "parts": parts, "false_alarms": noisy}
    )
    page(parts, noisy)


if __name__ == "__main__":
    main()
