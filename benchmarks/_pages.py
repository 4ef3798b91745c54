"""Inserts tables of measured results into pages, so that no figure is typed by hand."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def insert(page: str, name: str, text: str) -> None:
    """Replace the text between the marks ``<!-- name -->`` and ``<!-- end of name -->`` of a page.

    Raises
    ------
    ValueError
        The page, a path from the top of the repository, has no such marks.
    """
    path = ROOT / page
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    found, n = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n\n{text.strip()}\n\n{end}",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if n != 1:
        raise ValueError(f"{page}: needs the marks {begin} and {end} once, and has them {n} times")
    path.write_text(found, encoding="utf-8")


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right."""
    rule = ["---", *["--:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, rule, *rows])
