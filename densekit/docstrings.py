"""Docstrings of estimators, composed from those of a class and its bases.

A class documents what it adds. What ``help`` shows is whole: :func:`document` puts the model's own
parameters first, then under "Other Parameters" those of its bases, the nearest base first, each once and
with the default that it has in this class. A base begins a group of them by a bold word, as in
``**Training.**``.
"""

import dataclasses
import functools
import inspect
import re
from typing import Any

_ORDER: tuple[str, ...] = ("Parameters", "Attributes", "Methods", "Returns", "Yields")
_ORDER += ("Other Parameters", "Raises")
_ORDER += ("Warns", "Warnings", "See Also", "Notes", "References", "Examples")
"""numpydoc's order of sections, of which it knows no others."""

Entry = tuple[str, str]
"""Of a parameter or attribute: its type and its indented description."""
_NOTHING: Entry = ("", "")


def document(kind: Any, written: str | None) -> None:
    """Give a dataclass the docstring and the signature that its users see.

    Parameters
    ----------
    kind : type
        A dataclass; its bases have been through here.
    written : str or None
        The docstring in its source, in numpydoc's form.
    """
    kind._written_doc = inspect.cleandoc(written or "")
    by_class = [_sections(base.__dict__.get("_written_doc", "")) for base in kind.__mro__]
    own, others = _named(kind, by_class)
    every, attributes = _nearest(by_class, "Parameters"), _nearest(by_class, "Attributes")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    listed = {
        "Parameters": [_shown(name, every.get(name, _NOTHING), fields[name]) for name in own],
        "Attributes": [_shown(name, entry) for name, entry in attributes.items()],
        "Other Parameters": [_shown(n, every.get(n, _NOTHING), fields[n]) for n in others],
    }
    sections = by_class[0] | {title: "\n".join(shown) for title, shown in listed.items()}
    begin = sections.pop("") or f"{kind.__name__}, a kind of {kind.__bases__[0].__name__}."
    titles = sorted(filter(sections.get, sections), key=_ORDER.index)
    parts = (f"{title}\n{'-' * len(title)}\n{sections[title]}" for title in titles)
    kind.__doc__ = "\n\n".join([begin, *parts])
    kind.__signature__ = inspect.Signature([_parameter(fields[n]) for n in (*own, *others)])


def _named(kind: Any, by_class: list[dict[str, str]]) -> tuple[list[str], list[str]]:
    """Names of the parameters that are the class's own, and of those of its bases."""
    fields = [field.name for field in dataclasses.fields(kind)]
    inherited = {
        field.name
        for base in kind.__mro__[1:]
        if dataclasses.is_dataclass(base)
        for field in dataclasses.fields(base)
    }
    documented = list(_entries(by_class[0].get("Parameters", "")))
    new = [name for name in fields if name not in inherited]
    own = [n for n in dict.fromkeys([*documented, *new]) if n in fields]
    every = dict.fromkeys([*_nearest(by_class, "Parameters"), *fields])
    return own, [name for name in every if name in fields and name not in own]


@functools.cache
def _sections(doc: str) -> dict[str, str]:
    """The text of each section by its title; what comes before the first has no title."""
    begin, *rest = re.split(rf"^({'|'.join(_ORDER)})\n-{{3,}}\n", doc, flags=re.M)
    titles = {title: text.strip("\n") for title, text in zip(rest[::2], rest[1::2], strict=True)}
    return {"": begin.rstrip(), **titles}


def _nearest(by_class: list[dict[str, str]], title: str) -> dict[str, Entry]:
    """The entry of each name in one section, from the class itself or the nearest base that has one."""
    found: dict[str, Entry] = {}
    for sections in by_class:
        entries = _entries(sections.get(title, ""))
        found |= {name: entry for name, entry in entries.items() if name not in found}
    return found


@functools.cache
def _entries(text: str) -> dict[str, Entry]:
    """Type and description of each name; where several are described at once, of each of them."""
    found: dict[str, Entry] = {}
    for block in re.split(r"\n(?=\S)", text) if text else ():
        head, _, body = block.partition("\n")
        names, _, kind = head.partition(" : ")
        found |= dict.fromkeys(names.split(", "), (kind.strip(), body.rstrip()))
    return found


def _shown(name: str, entry: Entry, field: Any = None) -> str:
    kind, body = entry
    if field is not None:
        kind = kind or inspect.formatannotation(field.type)
        # The default shows that it may be left out.
        if kind.endswith(", optional"):
            kind = kind.removesuffix(", optional").replace(" or ", ", ") + " or None"
        kind = ", ".join([kind, *_default_of(field)])
    head = f"{name} : {kind}" if kind else name
    return f"{head}\n{body}" if body else head


def _default_of(field: Any) -> list[str]:
    default = _value_of(field)
    return [] if default is dataclasses.MISSING else [f"default={default!r}"]


def _value_of(field: Any) -> Any:
    made = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if made else field.default


def _parameter(field: Any) -> inspect.Parameter:
    default = _value_of(field)
    default = inspect.Parameter.empty if default is dataclasses.MISSING else default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=field.type)
