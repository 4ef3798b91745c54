"""The clock of a fit: seconds since it began, except those spent on importing and compiling."""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar


class Clock:
    """A clock that counts seconds from its creation, except those in which it was paused.

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
        self._start, self._n_pauses = now(), 0
        self._paused_at = self._start

    def elapsed(self) -> float:
        """Seconds counted so far."""
        return (self._paused_at if self._n_pauses else now()) - self._start

    def advance(self, seconds: float) -> None:
        """Add seconds to the count."""
        self._start -= seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop counting inside a ``with`` block; blocks may be nested."""
        if not self._n_pauses:
            self._paused_at = now()
        self._n_pauses += 1
        try:
            yield
        finally:
            self._n_pauses -= 1
            if not self._n_pauses:
                self._start += now() - self._paused_at


_running: ContextVar[Clock | None] = ContextVar("clock", default=None)


def now() -> float:
    """Seconds of a monotonic clock."""
    return time.perf_counter()


@contextlib.contextmanager
def running() -> Iterator[Clock]:
    """Start a clock, which :func:`current` returns inside the ``with`` block."""
    token = _running.set(clock := Clock())
    try:
        yield clock
    finally:
        _running.reset(token)


def current() -> Clock:
    """The clock of the fit that is running; a new one if no fit is."""
    return _running.get() or Clock()
