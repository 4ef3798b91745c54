"""Find words that must not come back: ``python docs/words.py``.

The list holds British spellings and metaphors from earlier texts, each with the word to write in its
place. Every tracked text file is read, code included, since names are text too. Prints ``file:line:
word`` for each find and exits with 1 if there is any.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENDINGS = (".md", ".py", ".toml", ".txt", ".yml")

PENDING: tuple[str, ...] = ()
"""Files and folders that are not rewritten yet. Remove a line when its files are done; add none."""

EXEMPT = ("docs/words.py", "tests/test_words.py", "densekit/codecs/legacy.py", "LICENSE")
"""Files that have to name the words: this list, its test, and the reader of files saved before."""

_STEMS = (
    "anonymi|canonicali|categori|characteri|criti|discreti|dequanti|emphasi|factori|finali|formali"
    "|generali|initiali|locali|marginali|maximi|memori|minimi|neutrali|normali|optimi|organi"
    "|parametri|penali|quanti|randomi|reali|recogni|regulari|seriali|speciali|standardi|summari"
    "|symboli|synchroni|tokeni|utili|vectori|visuali|binari|polari|stabili|equali|analy"
)
_ISE = r"s(?:e|ed|er|ers|es|ing|able|ation|ations)"

WORDS = {
    # British spelling: what the ecosystem writes
    rf"(?:un|re|de)?(?:{_STEMS}){_ISE}": "-ize, -ization, -yze",
    r"(?:behavi|col|fav|hon|lab|neighb|harb|vap)our\w*": "-or",
    r"(?:label|model|cancel|travel|signal|level|total)l(?:ed|ing)": "one l",
    r"centr(?:e|es|ed|ing)": "center",
    r"(?:milli|centi|kilo)?metres?": "meter",
    r"learnt|spelt|burnt|leant": "-ed",
    r"grey(?:s|scale)?": "gray",
    r"licence[sd]?": "license",
    r"catalogues?": "catalog",
    r"artefacts?": "artifact",
    r"judgements?": "judgment",
    r"whilst|amongst": "while, among",
    r"programmes?": "program",
    # metaphors and translations: say package, module, layer, dependency, data flow
    r"houses?": "package, project",
    r"rooms?(?! (?:for|to|left)\b)": "module, memory, space",
    r"(?<!noise )floors": "layers, lower limits",
    r"lies": "is",
    r"told|tells": "shown, given, shows",
    r"said": "stated, given",
    r"whisper": "be negligible",
    r"way of the data": "data flow",
    r"forth and back": "in both directions",
}
_FORBIDDEN = {
    re.compile(rf"(?<![A-Za-z])(?:{word})(?![A-Za-z])", re.IGNORECASE): instead
    for word, instead in WORDS.items()
}

QUOTED = (
    *("binarised_mnist", "churn_modelling", "Churn_Modelling", "median_house_value"),
    *(
        '"house"',
        "sets.house",
        "house 16H",
        "house.npz",
        "data/house/",
        "house sales",
        "house number",
    ),
    *("TabDDPM: Modelling", "number of rooms", '"rooms"', "bern.rooms", "samples.rooms"),
    *("dequantisation_draws", '"colour"'),
)
"""Names of data sets, files, columns and titles, and names in files of older versions."""

ALLOWED = {
    # Names of data sets and columns, quoted from their sources.
    "README.md": ("| house |",),
    "SECURITY.md": ("the header tells of",),
    "docs/index.md": ("| house |",),
    "CONTRIBUTING.md": ('"would be a whisper on the scale of all of them"',),
}
"""Parts of lines that are quotations, by file."""


def finds(text: str, allowed: Iterable[str] = ()) -> Iterator[tuple[int, str, str]]:
    """Line, word and replacement of each forbidden word in a text."""
    for number, line in enumerate(text.splitlines(), 1):
        for quotation in allowed:
            line = line.replace(quotation, "")
        for pattern, instead in _FORBIDDEN.items():
            for match in pattern.finditer(line):
                yield number, match.group(), instead


def allowed_in(name: str) -> tuple[str, ...]:
    """Quotations that may stand in a file."""
    return (*QUOTED, *ALLOWED.get(name, ()))


def tracked() -> list[str]:
    """Paths of the text files that git tracks, or would track if they were added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in sorted(set(listed.stdout.splitlines())) if name.endswith(ENDINGS)]


def finished(names: Iterable[str]) -> list[str]:
    """Pending paths without a forbidden word, which can be removed from the list."""
    unfinished = set()
    for name in names:
        path = next((pending for pending in PENDING if name.startswith(pending)), None)
        if path is not None and path not in unfinished and name not in EXEMPT:
            text = (ROOT / name).read_text(encoding="utf-8")
            if any(finds(text, allowed_in(name))):
                unfinished.add(path)
    return [path for path in PENDING if path not in unfinished]


def main(names: Iterable[str] | None = None) -> int:
    """Print what is found in the named files, or in all that are done; 1 if there is anything."""
    if names is None:
        every = [name for name in tracked() if (ROOT / name).is_file()]
        names = [n for n in every if not n.startswith(PENDING) and n not in EXEMPT]
        for path in finished(every):
            print(f"{path} has none of the words: remove it from PENDING")
    n_finds = n_files = 0
    for name in names:
        path = ROOT / name
        if not path.is_file():
            continue
        n_files += 1
        for line, word, instead in finds(path.read_text(encoding="utf-8"), allowed_in(name)):
            n_finds += 1
            print(f"{name}:{line}: {word!r}; write: {instead}")
    print(f"words: {n_finds} found in {n_files} files, {len(PENDING)} paths pending")
    return int(n_finds > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or None))
