"""Is ``distribution_`` one of Pyro's, whatever the shape of what it is asked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from densekit.checks.subject import Subject, check, expect, quiet

_BATCHES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (2, 3), (2, 0), (3, 2))
_MOST = 6
"""Events of the largest of these batches."""


@check(
    cause="log_prob or sample takes a batch to have one axis and at least one event: -1 in a reshape, "
    "flatten(0, -2), len(value), torch.cat of nothing",
    when=lambda s: s.ours,
)
def distribution_takes_any_batch_shape(subject: Subject) -> None:
    """``distribution_`` and ``condition`` score events of every batch shape, () and (0,) too, each as it
    scores alone, and draw every shape."""
    for data in subject.each_modality:
        fitted = subject.fitted(data)
        _expect_shapes(subject, fitted.distribution_, f"distribution_ of {data.modality} data")
    for name, law, n in _conditional(subject):
        expect(
            tuple(law.batch_shape) == (n,), f"batch shape ({n},) of {name}", f"{law.batch_shape}"
        )
        _expect_shapes(subject, law, name)


def _conditional(subject: Subject) -> Iterator[tuple[str, Any, int]]:
    """What it is, the distribution under a few contexts, and how many."""
    if subject.context == "features":
        data = subject.load("lit" if subject.only_images else "conditional")
        given: Any = np.array([[-0.5], [0.0], [0.5]])
        fitted = subject.fitted(data)
    elif subject.context == "prompt":
        fitted, given = subject.fitted(subject.load("strings")), ["a", "", "b"]
    elif subject.context == "text":
        X = subject.load("strings").X[:100]
        fitted, given = subject.fit(X, context=X, max_length=3), ["a", "", "ab"]
    else:
        return
    for n in (1, 3):
        yield f"condition on {n} rows", fitted.condition(given[:n]), n


def _expect_shapes(subject: Subject, law: Any, name: str) -> None:
    event, behind = tuple(law.event_shape), tuple(law.batch_shape)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), quiet():
        torch.random.default_generator.manual_seed(subject.seeded(0))
        for shape in _BATCHES:
            drawn = tuple(law.sample(torch.Size(shape)).shape)
            wanted = (*shape, *behind, *event)
            expect(drawn == wanted, f"draws {wanted} of {name}", f"{drawn}")
        if not subject.scores:
            return
        one = law.sample((_MOST,))
        alone = torch.stack([law.log_prob(value) for value in one])
        wanted = (_MOST, *behind)
        got = tuple(alone.shape)
        expect(
            got == wanted, f"scores {behind} of events {behind + event} under {name}", f"{got[1:]}"
        )
        for shape in _BATCHES:
            n = int(np.prod(shape))
            scores = law.log_prob(one[:n].reshape(*shape, *behind, *event))
            wanted = (*shape, *behind)
            asked = f"scores {wanted} of events {(*wanted, *event)} under {name}"
            expect(tuple(scores.shape) == wanted, asked, f"{tuple(scores.shape)}")
            near = torch.allclose(
                scores.double(), alone[:n].reshape(wanted).double(), rtol=1e-4, atol=1e-3
            )
            expect(near, f"{asked} as each scores alone", "other scores")
