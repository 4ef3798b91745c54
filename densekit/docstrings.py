"""Docstrings of estimators: what a class says of its parameters, and what its bases say of theirs.

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

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.M)
_PARAMETERS, _OTHERS, _ATTRIBUTES = "Parameters", "Other Parameters", "Attributes"

Entry = tuple[str, str]
"""Of a parameter or attribute: its type, and what is said of it, indented."""


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
    fields = {field.name: field for field in dataclasses.fields(kind)}
    said = [_sections(base.__dict__.get("_written_doc", "")) for base in kind.__mro__]
    every = _nearest(said, _PARAMETERS)
    named = _entries(said[0].get(_PARAMETERS, ""))
    own = [
        name
        for name in (*named, *fields)
        if name in fields and (name in named or name not in every)
    ]
    own = list(dict.fromkeys(own))
    others = [name for name in every if name in fields and name not in own]
    attributes = _nearest(said, _ATTRIBUTES)
    nothing = ("", "")
    listed = {
        _PARAMETERS: [_shown(n, every.get(n, nothing), fields[n]) for n in own],
        _ATTRIBUTES: [_shown(name, entry) for name, entry in attributes.items()],
        _OTHERS: [_shown(n, every[n], fields[n]) for n in others],
    }
    begin = said[0][""] or f"{kind.__name__}, a kind of {kind.__bases__[0].__name__}."
    rest = {title: text for title, text in said[0].items() if title and title not in listed}
    sections = {title: "\n".join(shown) for title, shown in listed.items() if shown} | rest
    titled = (f"{title}\n{'-' * len(title)}\n{text}" for title, text in sections.items())
    kind.__doc__ = "\n\n".join([begin, *titled])
    kind.__signature__ = inspect.Signature([_parameter(fields[n]) for n in (*own, *others)])


@functools.cache
def _sections(doc: str) -> dict[str, str]:
    """The text of each section by its title; what comes before the first has no title."""
    begin, *rest = _SECTION.split(doc)
    titles = {title: text.strip("\n") for title, text in zip(rest[::2], rest[1::2], strict=True)}
    return {"": begin.rstrip(), **titles}


def _nearest(said: list[dict[str, str]], title: str) -> dict[str, Entry]:
    """What is said of each name in one section, by the class itself or the nearest base that does."""
    found: dict[str, Entry] = {}
    for sections in said:
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
        # That it may be left out is said by its default.
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
