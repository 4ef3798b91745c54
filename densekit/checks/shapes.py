"""Is ``distribution_`` one of Pyro's, whatever the shape of what it is asked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from densekit.checks.states import apart, close
from densekit.checks.subject import Subject, check, expect, quiet
from densekit.contexts import context_of

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
    """Descriptions and distributions under one and three contexts, with the number of contexts."""
    kind = context_of(subject.estimator)
    if kind.codec_class is None:
        return
    given: Any = ["a", "", "ab"] if kind.is_text else np.array([[-0.5], [0.0], [0.5]])
    if not kind.is_text:
        fitted = subject.fitted(subject.load("lit" if subject.only_images else "conditional"))
    elif kind.optional:
        fitted = subject.fitted(subject.load("strings"))
    else:
        X = subject.load("strings").X[:100]
        fitted = subject.fit(X, context=X, max_length=3)
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


@check(
    cause="the Jacobian of the codec is not in the distribution, or events are in other units",
    when=lambda s: s.ours and s.takes("table"),
)
def distribution_is_pyro_and_agrees(subject: Subject) -> None:
    """``distribution_`` is a Pyro distribution over rows; its log_prob is ``score_samples``."""
    from pyro.distributions import TorchDistribution

    data = subject.load("plane")
    fitted = subject.fitted(data)
    dist = fitted.distribution_
    expect(isinstance(dist, TorchDistribution), "a TorchDistribution", type(dist).__name__)
    drawn = dist.sample((3,)) if subject.density != "none" else None
    if drawn is not None:
        expect(tuple(drawn.shape) == (3, 2), "draws of shape (3, 2)", f"{tuple(drawn.shape)}")
        with torch.no_grad():
            value = torch.as_tensor(data.rows, dtype=torch.float64)
            logp = dist.log_prob(value.to(drawn.device)).cpu().double().numpy()
        scores = fitted.score_samples(data.rows)
        agree = close(scores, logp, 5)
        expect(agree, "log_prob equal to score_samples", apart(scores, logp))


@check(
    cause="log_prob cannot be differentiated by its argument, or shapes do not broadcast",
    when=lambda s: s.ours and s.takes("table") and s.density == "exact",
)
def distribution_works_in_pyro(subject: Subject) -> None:
    """``log_prob`` has a gradient, and ``pyro.sample("x", est.distribution_)`` runs in a model under
    NUTS and under SVI."""
    import pyro
    from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoDiagonalNormal, init_to_sample

    fitted = subject.fitted(subject.load("plane"))
    dist = fitted.distribution_
    value = dist.sample((8,)).requires_grad_()
    (gradient,) = torch.autograd.grad(dist.log_prob(value).sum(), value)
    good = bool(torch.isfinite(gradient).all() and gradient.any())
    expect(good, "a finite gradient of log_prob that is not zero everywhere", f"{gradient}")

    def model() -> None:
        x = pyro.sample("x", dist)
        pyro.sample("y", pyro.distributions.Normal(x[..., 0], 1.0), obs=torch.zeros(()).to(x))

    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope(), quiet():
        kernel = NUTS(model, max_tree_depth=2, init_strategy=init_to_sample)
        chain = MCMC(kernel, num_samples=4, warmup_steps=4, disable_progbar=True)
        chain.run()
        x = chain.get_samples()["x"]
        good = tuple(x.shape) == (4, 2) and bool(torch.isfinite(x).all())
        expect(good, "finite draws of shape (4, 2) from NUTS", f"{tuple(x.shape)}: {x.tolist()}")
        guide = AutoDiagonalNormal(model, init_loc_fn=init_to_sample)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        losses = [svi.step() for _ in range(3)]
        expect(np.isfinite(losses).all(), "finite losses from SVI", f"{losses}")
