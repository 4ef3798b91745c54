"""Probability density distillation: a flow that draws fast learns what a flow that scores fast knows."""

import copy
import functools
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from pyro.distributions import TorchDistribution
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from densekit.distributions.flow import FlowDistribution
from densekit.neural import NeuralDensity
from densekit.params import check_parameters
from densekit.runtime import resolve_device, resolve_seed, seeded
from densekit.training import Objective, Player

_DRAWN_TOGETHER = 4096
Student = TypeVar("Student", bound=NeuralDensity)


def distill(
    teacher: NeuralDensity,
    student: Student,
    *,
    context: Any = None,
    n_rows: int = 20_000,
    forward_weight: float = 1.0,
) -> Student:
    r"""Fit ``student`` to the density of ``teacher``, from draws of both.

    .. math:: \min_q\ E_{z \sim N(0, I)}\big[\log q(T(z)) - \log p(T(z))\big]
              + w\, E_{x \sim p}\big[\log p(x) - \log q(x)\big]

    with q the student, whose map T from noise gives a draw and its log-density in one pass, and p the
    teacher, whose score of that draw is differentiated. The first divergence, KL(q || p), is that of
    Van den Oord et al., Parallel WaveNet (2018), who add other terms since it leaves out what it cannot
    follow: a mode of p that no draw of q reaches costs nothing. Here the second, KL(p || q), sees that
    q covers what the teacher draws. No data are needed. So a model that scores in
    one pass and draws one feature after another (:class:`~densekit.MaskedAutoregressiveFlow`,
    :class:`~densekit.NeuralSplineFlow`) becomes one that draws in one pass
    (``MaskedAutoregressiveFlow(direction="sample")``).

    Parameters
    ----------
    teacher : NeuralDensity
        A fitted flow. It stays as it is.
    student : NeuralDensity
        A flow, fitted or not; its hyper-parameters say how it learns. Its data space is the teacher's.
    context : like the context of the teacher's ``fit``
        Contexts to learn from, one a row; a teacher that was fitted with a context needs them.
    n_rows : int
        Draws of an epoch, where no contexts say how many. A tenth is held out, as in every fit: the
        noise of these rows is fixed, and their loss determines when to stop.
    forward_weight : float
        w. The teacher draws once, before learning and outside of ``max_time``; 0 asks for no draws of
        it, and each step is faster, since the student need not score.

    Returns
    -------
    student
        Fitted: it scores and draws as after ``fit``. ``history_`` holds the weighted sum of the
        divergences in nats, up to the noise of its estimate.

    Raises
    ------
    TypeError
        A teacher without a density over continuous events, a student that is no flow or takes other
        data, ``devices`` above one.
    ValueError
        Contexts where the teacher has none, or none where it has; a ``checkpoint_dir``.

    Notes
    -----
    Compare ``student.score`` with ``teacher.score`` on held-out rows.

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import MaskedAutoregressiveFlow
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> small = {"n_transforms": 2, "hidden_sizes": (8,), "max_steps": 20}
    >>> teacher = MaskedAutoregressiveFlow(**small).fit(X)
    >>> student = distill(teacher, MaskedAutoregressiveFlow(direction="sample", **small))
    >>> student.sample(3).shape
    (3, 2)
    """
    _check(teacher, student, n_rows)
    if not 0 <= forward_weight < math.inf:
        raise ValueError(f"forward_weight={forward_weight!r} must be a number, 0 or more")
    check_parameters(student)
    device, seed = resolve_device(student.device), resolve_seed(student.random_state)
    with student._undone_on_failure():
        _adopt(teacher, student, str(device))
        # A copy: its weights are moved to where the student learns.
        module = copy.deepcopy(teacher).module_.to(device, student._torch_dtype)
        with seeded(seed, device):
            encoded = student._context_of_draws(context)
            n = n_rows if encoded is None else len(encoded)
            rows = _teach(module, n, encoded, forward_weight).to(student._torch_dtype)
            objective = _objective(module, forward_weight, student.schema_.event_shape)
            student._train(rows, encoded, objective=objective)
        student.base_measure_ = teacher.base_measure_
        student.density_kind_ = student._kind_of_scores(student.schema_)
    return student


def _objective(teacher: Any, weight: float, event_shape: Sequence[int]) -> Objective:
    """The divergence between teacher and student, over rows as :func:`_teach` returns them.

    The student is initialized from the draws of the teacher, without their log-densities. With no
    weight there are no draws, and it starts from its own weights."""
    loss = functools.partial(_divergence, teacher, weight)
    return Objective(
        players=lambda module: [Player("student", list(module.parameters()), loss)],
        view=lambda rows: rows,
        initial=lambda rows: rows[:, :-1].reshape(-1, *event_shape) if weight else None,
    )


def _check(teacher: Any, student: Any, n_rows: int) -> None:
    check_is_fitted(teacher)
    kind = teacher._capabilities if isinstance(teacher, NeuralDensity) else None
    if kind is None or (kind.density, kind.view) != ("exact", "relaxed"):
        raise TypeError(
            f"teacher={type(teacher).__name__} must be a flow, whose exact score of continuous events "
            "can be differentiated"
        )
    if not isinstance(student, NeuralDensity) or _takes(student) != _takes(teacher):
        raise TypeError(
            f"student={type(student).__name__} must be a flow that takes what "
            f"{type(teacher).__name__} takes; MaskedAutoregressiveFlow(direction='sample') draws "
            "fastest"
        )
    if student.devices not in (None, 1):
        raise TypeError(f"student has devices={student.devices!r}: distill trains in one process")
    if student.checkpoint_dir is not None:
        raise ValueError(
            f"student has checkpoint_dir={student.checkpoint_dir!r}: a checkpoint knows the rows of a "
            "fit and not a teacher; set it to None"
        )
    if n_rows < 2:
        raise ValueError(f"n_rows={n_rows} must be at least 2")


def _takes(flow: NeuralDensity) -> tuple[Any, ...]:
    """What must agree for one flow to stand in for another."""
    kind = flow._capabilities
    return kind.density, kind.view, kind.modalities, kind.context, kind.flat


def _adopt(teacher: NeuralDensity, student: NeuralDensity, device: str) -> None:
    """What fit learns of the data, from the teacher."""
    student._forget_fit()
    names = ("codec_", "schema_", "context_codec_", "context_names_", "n_features_in_")
    for name in (*names, "feature_names_in_"):
        if hasattr(teacher, name):
            setattr(student, name, getattr(teacher, name))
    student.device_, student.dtype_ = device, student.dtype


@torch.no_grad()
def _teach(teacher: Any, n: int, context: Tensor | None, weight: float) -> Tensor:
    """Draws of the teacher with its log-density behind each, (n, D + 1). With no weight their number
    alone counts."""
    if weight == 0:
        return torch.zeros(n, 1, device=next(teacher.parameters()).device)
    parts = []
    for start in range(0, n, _DRAWN_TOGETHER):
        k = min(n - start, _DRAWN_TOGETHER)
        given = None if context is None else context[start : start + k].to(_like(teacher))
        law = teacher(given)
        x = law.sample(() if given is not None else (k,))
        parts.append(torch.cat([x.flatten(1), law.log_prob(x)[:, None]], 1))
    return torch.cat(parts)


def _like(module: Any) -> Tensor:
    weight: Tensor = next(module.parameters())
    return weight


def _divergence(
    teacher: Any, weight: float, module: Any, rows: Tensor, context: Tensor | None
) -> Tensor:
    """Estimate of KL(student || teacher) + weight KL(teacher || student) from as many draws of the
    student as there are rows, and these, which the teacher drew."""
    student: TorchDistribution = module(context)
    if not isinstance(student, FlowDistribution):
        raise TypeError(
            "the student must be a flow: a map from noise that gives its log-density too"
        )
    draws, logq = student.rsample_and_log_prob(() if context is not None else (len(rows),))
    loss = logq - teacher(context).log_prob(draws)
    if weight:
        x = rows[:, :-1].reshape(-1, *student.event_shape)
        loss = loss + weight * (rows[:, -1] - student.log_prob(x))
    return loss
