"""The tables of trust.md and the page of what the suite finds in others, made of results."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def write(docs: Path, results: Path) -> None:
    """Put the tables of ``results/trust.json`` between the marks of ``docs/trust.md``."""
    found = results / "trust.json"
    if not found.exists():
        return
    record = json.loads(found.read_text())
    page = docs / "trust.md"
    text = page.read_text(encoding="utf-8")
    for name, made in _tables(record).items():
        text = _insert(text, name, made)
    if text != page.read_text(encoding="utf-8"):
        page.write_text(text, encoding="utf-8")


def _insert(text: str, name: str, made: str) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    found, n = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n\n{made.strip()}\n\n{end}",
        text,
        flags=re.DOTALL,
    )
    if n != 1:
        raise ValueError(
            f"trust.md needs the marks {begin} and {end} once, and has them {n} times"
        )
    return found


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], right: int = 0) -> str:
    """A Markdown table whose last ``right`` columns are aligned to the right."""
    rule = ["---"] * (len(heads) - right) + ["--:"] * right
    cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [list(heads), rule, *cells])


def _tables(record: dict[str, Any]) -> dict[str, str]:
    parts = record["parts"]
    return {
        "trust": table(["what", "found", "command"], _summary(record)),
        "false alarms": _false_alarms(record),
        "power": _power(parts.get("curves")),
        "mutants": _mutants(parts.get("caught")),
        "zoo": _zoo(parts.get("zoo")),
    }


# One line for each part.


def _summary(record: dict[str, Any]) -> list[list[str]]:
    shown = {
        "contract": (
            "Pairs of a densekit model and a check that it passes",
            _of,
        ),
        "mutants": ("Broken estimators of the first suite that their check catches", _of),
        "caught": (
            "All broken estimators, including subtle ones, that their check catches",
            _caught,
        ),
        "zoo": ("False alarms on correct densities that are not densekit's", _alarms_of_zoo),
        "known": (
            "Tests passed against values of SciPy, scikit-learn, nflows, Pyro and hand calculation",
            _of,
        ),
        "fuzz": (
            "Randomly changed model files that are refused, or load with the same scores",
            _fuzzed,
        ),
        "kills": ("Interrupted fits (SIGKILL) that resumed to bitwise the same result", _killed),
        "hostile": (
            "Hostile inputs that give a right answer or an error that names the cause",
            _tried,
        ),
    }
    found = [["Checks in the public suite", str(record["n_checks"]), "`densekit.checks`"]]
    for name, (what, describe) in shown.items():
        part = record["parts"].get(name)
        if part is None:
            found.append([what, "not run", f"`python benchmarks/trust.py --run {name}`"])
            continue
        old = "" if part["version"] == record.get("version") else f", version {part['version']}"
        found.append(
            [what, f"{describe(part)} ({part['date'][:10]}{old})", f"`{part['command']}`"]
        )
    noisy = record["false_alarms"]
    seeds = [a["seeds"] for a in noisy.values()]
    wrong = sum(a["seeds_with_a_failure"] for a in noisy.values())
    result = "not run"
    if seeds:
        each = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
        result = f"{wrong} in {each} runs of {len(seeds)} of {len(record['models'])} models"
    what = "False alarms of the statistical checks on densekit's models"
    found.append([what, result, "`python benchmarks/false_alarms.py`"])
    return found


def _of(part: dict[str, Any]) -> str:
    return f"{part['passed']} of {part['passed'] + part['failed']}"


def _caught(part: dict[str, Any]) -> str:
    run = [m for m in part["mutants"] if m["caught"] is not None]
    left = len(part["mutants"]) - len(run)
    caught = f"{sum(m['caught'] for m in run)} of {len(run)}"
    return caught + (f", {left} not run" if left else "")


def _alarms_of_zoo(part: dict[str, Any]) -> str:
    zoo = part["densities"].values()
    alarms = []
    for effort in ("quick", "standard"):
        run = sum(d[effort]["run"] for d in zoo)
        failed = sum(len(d[effort]["failed"]) for d in zoo)
        alarms.append(f"{failed} in {run:,} `{effort}`")
    return f"{' and '.join(alarms)} runs of checks on {len(zoo)} densities"


def _fuzzed(part: dict[str, Any]) -> str:
    if part["error"]:
        return f"fails: {part['error']}"
    n, refused = part["refused"] + part["loaded"], part["refused"]
    return f"{n:,} of {n:,}: {refused:,} refused, {part['loaded']:,} unharmed"


def _killed(part: dict[str, Any]) -> str:
    families = part["families"].values()
    unlike, left, n = (sum(f[k] for f in families) for k in ("unlike", "left", "kills"))
    killed = f"{n} in {len(families)} families, {unlike} with another result"
    return killed + (f", {left} half-written files left behind" if left else "")


def _tried(part: dict[str, Any]) -> str:
    failed = f"{part['failed']} of {part['passed'] + part['failed']} tests fail"
    return f"{part['inputs']:,}" + (f", {failed}" if part["failed"] else "")


# The larger tables.


def _false_alarms(record: dict[str, Any]) -> str:
    cells = []
    for name in record["models"]:
        a = record["false_alarms"].get(name)
        if a is None:
            cells.append([name, "not run", "", "", "", ""])
        else:
            rate = f"{a['rate_below_at_95_percent']:.1%}"
            checks = f"{a['checks']} `{a['effort']}`" if "checks" in a else ""
            counts = [checks, str(a["seeds"]), str(a["seeds_with_a_failure"])]
            cells.append([name, a["date"][:10], *counts, rate])
    heads = [
        "model",
        "date",
        "checks",
        "runs",
        "runs with a false alarm",
        "rate, upper limit (95 %)",
    ]
    return table(heads, cells, right=3)


def _power(part: dict[str, Any] | None) -> str:
    if part is None:
        return "Not run yet."
    lines = []
    for found in part["defects"].values():
        points = [p for p in found["points"] if p["runs"]]
        each = ", ".join(f"{p['size']:g}: {p['caught']} of {p['runs']}" for p in points)
        stated = "" if found["stated"] is None else f"{found['stated']:.2g}"
        lines.append([found["defect"], f"`{found['check']}`", each or "not run", stated])
    heads = ["defect", "check", "size: runs that catch it", "99 % power, as stated by the check"]
    return table(heads, lines)


def _mutants(part: dict[str, Any] | None) -> str:
    if part is None:
        return "Not run yet."
    answers = {True: "yes", False: "**no**", None: "not run"}
    new = [m for m in part["mutants"] if m["new"]]
    old = [m for m in part["mutants"] if not m["new"]]
    hit = sum(bool(m["caught"]) for m in old)
    lines = [[m["mutant"], m["what"], f"`{m['check']}`", answers[m["caught"]]] for m in new]
    text = f"Of the {len(old)} coarse ones {hit} are caught. The {len(new)} subtle ones:\n\n"
    text += table(["mutant", "what is wrong", "check", "caught"], lines)
    if part["unseen"]:
        lines = [[m["mutant"], m["what"], m["why"]] for m in part["unseen"]]
        text += "\n\nNot caught at `standard`, and why:\n\n"
        text += table(["mutant", "what is wrong", "why"], lines)
    return text


def _zoo(part: dict[str, Any] | None) -> str:
    if part is None:
        return "Not run yet."
    lines = []
    for name, found in part["densities"].items():
        cells = []
        for effort in ("quick", "standard"):
            failed, run = len(found[effort]["failed"]), found[effort]["run"]
            seeds = found[effort].get("seeds", 1)
            times = f", {seeds} seeds" if seeds > 1 else f" of {found['checks']}"
            cells.append(f"{failed} in {run:,}{times}" if run else "not run")
        lines.append([name, found["what"], *cells])
    heads = ["density", "what it is", "false alarms, `quick`", "false alarms, `standard`"]
    return table(heads, lines, right=2)


# What the suite finds in others.


def peer_findings(record: dict[str, Any]) -> str:
    """The page of ``results/peer_findings.json``."""
    versions = ", ".join(f"{n} {v}" for n, v in record["versions"].items() if v)
    about = record["environment"]
    parts = [
        "# Other libraries under the contract suite\n",
        f"`{about['command']}` ran on {about['date'][:10]} with {versions}. Each finding uses the "
        "library alone; its last line should give the value that is named below it. The suite found "
        "those that an estimator of a table of numbers shows; the others are what its checks compute, "
        "done to categories and to single transforms.\n",
    ]
    for found in record["findings"]:
        got = found["got"] if isinstance(found["got"], str) else f"{found['got']:.6g}"
        parts += [
            f"## {found['library']}: {found['title']}\n",
            f"{found['what']}\n",
            f"```python\n{found['code']}\n```\n",
            f"`got` is {got}; right is {found['right']:.6g}: {found['why']}. `{found['check']}` "
            f"tests for it.\n",
        ]
    parts.append("## Results of the suite\n")
    parts.append(
        f"Each estimator as its users have it, under every check that applies, with "
        f'`effort="{record["effort"]}"`. Some checks are of scikit-learn\'s conventions and not of '
        "mathematics.\n"
    )
    lines = [
        [
            name,
            f"{len(s['passed']) + len(s['failed'])} of {s.get('checks', '?')}",
            ", ".join(f"`{n}`" for n in s["failed"]) or "none",
        ]
        for name, s in record["suite"].items()
        if s["passed"] or s["failed"]
    ]
    parts.append(table(["estimator", "checks run", "fails"], lines) if lines else "Not run yet.\n")
    return "\n".join(parts) + "\n"
