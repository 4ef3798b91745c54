"""Optional dependencies: the error for a missing one names the extra that installs it."""

import importlib.util


def require(extra: str, *modules: str) -> None:
    """Raise ImportError unless all modules of an optional dependency can be imported.

    Parameters
    ----------
    extra : str
        Name of the extra in ``pyproject.toml``, such as ``"bench"``.
    *modules : str
        Names of top-level modules, as they are imported.

    Raises
    ------
    ImportError
        A module is not installed. The message names it and the command that installs it.

    Examples
    --------
    >>> require("bench", "json")
    >>> require("bench", "no_such_module")
    Traceback (most recent call last):
    ImportError: no_such_module is not installed: pip install 'densekit[bench]'
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ImportError(
            f"{', '.join(missing)} {verb} not installed: pip install 'densekit[{extra}]'",
            name=missing[0],
        )
