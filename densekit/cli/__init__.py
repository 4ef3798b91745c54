"""The command line. It parses arguments, calls the library and prints, without logic of its own.

A command imports libraries when it is called, so ``--help`` is fast.
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
"""Exit status after Ctrl-C, in Typer and in shells."""
_BUG = 70
"""Exit status for an internal error, EX_SOFTWARE of BSD's sysexits."""
_COMMON_OPTIONS = ("--debug", "--quiet", "--json")
_EXPECTED_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError, FloatingPointError)
"""Errors whose message states what was wrong with the data or the call."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    An error is one line on standard error; ``--debug`` prints its traceback.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments after the program name; by default those of the process.

    Raises
    ------
    SystemExit
        With status 0 after success, 1 if a run or a check failed or the reader of a pipe exited, 2 for
        a wrong call or bad data, 70 for a bug, and 130 after an interrupt.
    """
    words = _common_options_first(
        list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    )
    status: Any = 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning if "--quiet" not in words else _ignore_warning
            status = app(words, prog_name="densekit", standalone_mode=False)
        sys.stdout.flush()
    except Stopped as stop:
        _fail(f"stopped; {stop}", _INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except BrokenPipeError:
        _exit_after_broken_pipe()
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        _fail(*_message_and_status(error))
    if status == _INTERRUPTED:
        _fail("stopped; nothing was written", _INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _common_options_first(words: list[str]) -> list[str]:
    """Move the options of every command before the command, where Typer expects them."""
    end = words.index("--") if "--" in words else len(words)
    shared = [word for word in words[:end] if word in _COMMON_OPTIONS]
    return shared + [word for word in words[:end] if word not in _COMMON_OPTIONS] + words[end:]


def _message_and_status(error: Exception) -> tuple[str, int]:
    """The message to print for an error, and the exit status."""
    if hasattr(error, "format_message"):  # An error of Typer about the call.
        return f"{error.format_message()} (densekit --help lists the commands)", 2
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory {error}", 2
    if isinstance(error, _EXPECTED_ERRORS):
        return str(error), 2
    return (
        f"{type(error).__name__}: {error}. This is a bug in densekit: --debug shows the traceback; "
        "please report it",
        _BUG,
    )


def _exit_after_broken_pipe() -> NoReturn:
    """Exit without a message, and discard the output that Python would flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _show_warning(message: Warning | str, *_args: Any, **_options: Any) -> None:
    sys.stderr.write("densekit: warning: " + " ".join(str(message).split()) + "\n")


def _ignore_warning(*_args: Any, **_options: Any) -> None:
    """Ignore a warning because of --quiet."""


def _fail(message: str, status: int) -> NoReturn:
    sys.stderr.write("densekit: " + " ".join(message.split()) + "\n")
    sys.exit(status)
