"""The command line: it parses, calls and prints, and decides nothing.

A command imports what it needs when it is called: --help waits for no library.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import typer

from densekit.cli import models, tools
from densekit.cli.shared import Stopped, app

__all__ = ["app", "main", "models", "tools"]

_INTERRUPTED = 130
"""What Typer returns for Ctrl-C, as shells do."""
_BUG = 70
"""The exit status that BSD's sysexits has for an internal error."""
_SHARED = ("--debug", "--quiet", "--json")
_EXPECTED = (ValueError, TypeError, OSError, ImportError, MemoryError, FloatingPointError)
"""What is raised at the border, and says what was wrong with the data or the call."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a run or a check failed or the reader of a pipe
    went away, 2 a wrong call or bad data, 70 a bug, 130 interrupted.

    An error is one line on standard error; ``--debug`` shows its traceback.
    """
    words = _shared_first(list(sys.argv[1:] if arguments is None else arguments) or ["--help"])
    status: Any = 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn if "--quiet" not in words else _hush
            status = app(words, prog_name="densekit", standalone_mode=False)
        sys.stdout.flush()
    except Stopped as stop:
        _fail(f"stopped; {stop}", _INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except BrokenPipeError:
        _leave_pipe()
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        _fail(*_said(error))
    if status == _INTERRUPTED:
        _fail("stopped; nothing was written", _INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _shared_first(words: list[str]) -> list[str]:
    """The options of every command before the command, where Typer looks for them."""
    end = words.index("--") if "--" in words else len(words)
    shared = [word for word in words[:end] if word in _SHARED]
    return shared + [word for word in words[:end] if word not in _SHARED] + words[end:]


def _said(error: Exception) -> tuple[str, int]:
    """The line that an error deserves, and the exit status."""
    # Typer's own errors know how to say what was wrong with the call.
    if hasattr(error, "format_message"):
        return f"{error.format_message()} (densekit --help lists what there is)", 2
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory {error}", 2
    if isinstance(error, _EXPECTED):
        return str(error), 2
    return (
        f"{type(error).__name__}: {error}. This is a bug in densekit: --debug shows the traceback; "
        "please report it",
        _BUG,
    )


def _leave_pipe() -> NoReturn:
    """Exit quietly, as Typer does: what Python would still flush goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _warn(message: Warning | str, *_args: Any, **_options: Any) -> None:
    sys.stderr.write("densekit: warning: " + " ".join(str(message).split()) + "\n")


def _hush(*_args: Any, **_options: Any) -> None:
    """A warning that --quiet leaves out."""


def _fail(message: str, status: int) -> NoReturn:
    sys.stderr.write("densekit: " + " ".join(message.split()) + "\n")
    sys.exit(status)
