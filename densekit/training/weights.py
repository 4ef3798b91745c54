"""The running average of the weights, which is what is evaluated and kept."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


class RunningAverage:
    """An exponential average of parameters over the steps of a run.

    Parameters
    ----------
    parameters : sequence of torch.nn.Parameter
    decay : float
        Of the average; over the first steps it is a plain running mean, so that the start is forgotten.

    Examples
    --------
    >>> weight = nn.Parameter(torch.zeros(1))
    >>> average = RunningAverage([weight], decay=0.99)
    >>> with torch.no_grad():
    ...     _ = weight.fill_(11.0)
    >>> average.update(step=1)
    >>> average.values[0].item()
    10.0
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float):
        self.parameters, self.decay = parameters, decay
        self._current = [p.detach() for p in parameters]
        self.values: list[Tensor] = [p.clone() for p in self._current]

    def update(self, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        decay = min(self.decay, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.values, self._current, 1 - decay)

    def copy(self) -> list[Tensor]:
        """The average as it is now."""
        return [value.clone() for value in self.values]

    def is_finite(self) -> bool:
        """Whether all averages are finite."""
        return all(bool(torch.isfinite(value).all()) for value in self.values)

    @contextlib.contextmanager
    def applied(self, values: list[Tensor] | None = None) -> Iterator[None]:
        """Give the parameters the average, or ``values``, for the time of a ``with`` block."""
        kept = [p.clone() for p in self._current]
        self.assign(self.values if values is None else values)
        try:
            yield
        finally:
            self.assign(kept)

    def assign(self, values: Sequence[Tensor]) -> None:
        """Give the parameters other values, in place."""
        with torch.no_grad():
            for p, value in zip(self.parameters, values, strict=True):
                p.copy_(value)
