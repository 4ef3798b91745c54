"""Named data with fixed splits, and toys whose density is known."""

import difflib
import functools
from collections.abc import Callable

from densekit.datasets.base import Dataset, HeldOut, Published, Truth
from densekit.datasets.builtin import breast_cancer, digits, pydoc
from densekit.datasets.toys import Checkerboard, TwoMoons, checkerboard, two_moons

__all__ = ["Checkerboard", "Dataset", "HeldOut", "Published", "Truth", "TwoMoons", "load", "names"]

_LOADERS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader for loader in (breast_cancer, digits, pydoc, two_moons, checkerboard)
}


def names() -> tuple[str, ...]:
    """The names that :func:`load` knows.

    Examples
    --------
    >>> "digits" in names()
    True
    """
    return tuple(_LOADERS)


@functools.lru_cache(maxsize=4)
def load(name: str) -> Dataset:
    """The data set called ``name``: the same rows in the same parts at every call.

    Raises
    ------
    ValueError
        No such data set; the nearest name is given.

    Examples
    --------
    >>> data = load("digits")
    >>> data.train.shape, len(data.test), data.modality
    ((1294, 8, 8), 359, 'image')
    """
    if name not in _LOADERS:
        near = difflib.get_close_matches(name, _LOADERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(_LOADERS)}"
        raise ValueError(f"no data set is called {name!r}{hint}")
    return _LOADERS[name]()
