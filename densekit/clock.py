"""The clock of a fit: seconds since it began, without those that importing and compiling took."""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar


class Clock:
    """Seconds since it was made, but for those in which it was paused.

    Examples
    --------
    >>> clock = Clock()
    >>> with clock.paused():
    ...     time.sleep(0.01)
    >>> clock.advance(5)
    >>> 5 <= clock.elapsed() < 5.01
    True
    """

    def __init__(self) -> None:
        self._start, self._held = now(), 0
        self._since = self._start

    def elapsed(self) -> float:
        """Seconds that count."""
        return (self._since if self._held else now()) - self._start

    def advance(self, seconds: float) -> None:
        """Count these too."""
        self._start -= seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing for the time of a ``with`` block; blocks may be nested."""
        if not self._held:
            self._since = now()
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                self._start += now() - self._since


_running: ContextVar[Clock | None] = ContextVar("clock", default=None)


def now() -> float:
    """Seconds of a clock that never goes back."""
    return time.perf_counter()


@contextlib.contextmanager
def running() -> Iterator[Clock]:
    """A clock that :func:`current` gives to all who ask within the ``with`` block."""
    token = _running.set(clock := Clock())
    try:
        yield clock
    finally:
        _running.reset(token)


def current() -> Clock:
    """The clock of the fit under way; a new one where there is none."""
    return _running.get() or Clock()
