"""Find dead links in the built documentation: ``python docs/check.py docs/_build/html``."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name == "id" or (name == "name" and tag == "a")):
                self.ids.add(value)
            elif value and name in ("href", "src"):
                self.links.append(value)


def dead_links(site: Path) -> list[str]:
    """Relative links in the folder ``site`` whose file or anchor is missing, as ``page: link``."""
    site = site.resolve()
    paths = (p for p in sorted(site.rglob("*.html")) if site / "_static" not in p.parents)
    pages = {p: Page(p.read_text(encoding="utf-8")) for p in paths}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            anchor = unquote(parts.fragment)
            ids = pages[target].ids if target in pages else None
            no_anchor = anchor and ids is not None and anchor not in ids
            if not target.is_file() or site not in target.parents or no_anchor:
                dead.append(f"{path.relative_to(site)}: {link}")
    return dead


def main(site: Path) -> str | int:
    """Print the dead links; the exit status is 1 if there are any."""
    if not (site / "index.html").is_file():
        return f"{site} has no built documentation: run sphinx-build -b html docs {site} first"
    return "\n".join(dead_links(site)) or 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/_build/html")))
