r"""Is the transform of an estimator a bijection, with the log-determinant that it reports.

Nothing is left to chance but the points. A transform T is right to rounding where going there and back
moves a point by no more than a few thousand roundings of either side,

.. math:: |T^{-1}(T(z)) - z| \le C \epsilon (1 + |z| + \|J^{-1}\| |x|), \qquad x = T(z)

with J the Jacobian matrix by autodiff, and the same the other way round.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from densekit.checks.data import Data, take
from densekit.checks.subject import FEW, MANY, Subject, check, expect, quiet
from densekit.checks.tables import WIDTHS

_LEAST_ERROR = 1e-6
"""Error of a log-determinant, in nats, that is not worth a failure."""
_ROUNDINGS = 4000
_RADII = (0.5, 1.0, 2.0, 4.0, 8.0, 20.0)
"""Distances from the center of the noise, in standard deviations."""


def _has_transform(subject: Subject) -> bool:
    return subject.scores and subject.takes("table")


def points(d: int, seed: int, n: int = 48) -> Tensor:
    """Noise (n, d): standard normal directions at all radii, and the ends of the axes."""
    rng = np.random.default_rng(seed)
    ways = rng.normal(size=(n - 2 * min(d, 4), d))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    radii = np.resize(_RADII, len(ways)) * np.sqrt(d)
    axes = np.concatenate([sign * 6 * np.eye(d)[: min(d, 4)] for sign in (1, -1)])
    return torch.as_tensor(np.concatenate([radii[:, None] * ways, axes]))


def jacobians(function: Any, at: Tensor) -> Tensor:
    """Jacobian matrix (n, d, d) of a function of rows at (n, d), by autodiff."""
    at = at.detach().clone().requires_grad_()
    with torch.enable_grad():
        out = function(at)
        rows = [
            torch.autograd.grad(out[:, j].sum(), at, retain_graph=True, allow_unused=True)[0]
            for j in range(out.shape[1])
        ]
    rows = [torch.zeros_like(at) if row is None else row for row in rows]
    return torch.stack(rows, 1).detach()


def _worst(gap: Tensor, allowed: Tensor) -> int:
    return int((gap / allowed).nan_to_num(nan=torch.inf).argmax())


def expect_bijection(subject: Subject, made: Any, z: Tensor, eps: float, where: str) -> None:
    """Round trips and log-determinants of a transform at noise z (n, d)."""
    with torch.no_grad():
        x = made(z).double()
        inside = torch.isfinite(x).all(1)
        near = z.norm(dim=1) < 5 * z.shape[1] ** 0.5
        expect(inside[near].all(), f"finite rows from noise within 4 spreads {where}", "others")
        back = made.inv(x).double()
        again = made(back).double()
        ladj = made.log_abs_det_jacobian(z, x).double()
    inverse = jacobians(made.inv, x).double()
    size = torch.linalg.matrix_norm(inverse, 2)
    flat = torch.linalg.matrix_norm(torch.linalg.pinv(inverse.nan_to_num()), 2)
    within = _ROUNDINGS * eps
    gap = (back - z).norm(dim=1)
    allowed = within * (1 + z.norm(dim=1) + size * x.norm(dim=1))
    keep = inside & torch.isfinite(allowed)
    z, x, back, again, ladj = (v[keep] for v in (z, x, back, again, ladj))
    gap, allowed, size, flat, inverse = (v[keep] for v in (gap, allowed, size, flat, inverse))
    i = _worst(gap, allowed)
    expect(
        bool((gap <= allowed).all()),
        f"noise z = {_show(z[i])} again after the way to data and back {where}",
        f"{_show(back[i])}, {float(gap[i]):.3g} off where rounding explains {float(allowed[i]):.2g}",
    )
    gap = (again - x).norm(dim=1)
    allowed = within * (1e-30 + x.norm(dim=1) + flat * (1 + z.norm(dim=1)))
    i = _worst(gap, allowed)
    expect(
        bool((gap <= allowed).all()),
        f"row x = {_show(x[i])} again after the way to noise and back {where}",
        f"{_show(again[i])}, {float(gap[i]):.3g} off where rounding explains {float(allowed[i]):.2g}",
    )
    if subject.density == "exact":
        _expect_log_det(ladj, inverse, z, eps, where)


def _expect_log_det(ladj: Tensor, inverse: Tensor, z: Tensor, eps: float, where: str) -> None:
    sign, log_det = torch.linalg.slogdet(inverse)
    gap = (ladj + log_det).abs()
    # A determinant of rounded entries is off by their relative error times the condition number.
    condition = torch.linalg.cond(inverse / inverse.abs().amax(2, keepdim=True))
    allowed = _ROUNDINGS * eps * (1 + ladj.abs() + condition)
    # An integrated trace is off by the error of its solver, which nobody sees below a millionth.
    allowed = allowed.clamp_min(_LEAST_ERROR)
    keep = torch.isfinite(allowed) & (sign != 0)
    gap, allowed, ladj, log_det, z = (v[keep] for v in (gap, allowed, ladj, log_det, z))
    i = _worst(gap, allowed)
    expect(
        bool((gap <= allowed).all()),
        f"log|det dx/dz| = {-float(log_det[i]):.5g} by autodiff at z = {_show(z[i])} {where}",
        f"{float(ladj[i]):.5g}, {float(gap[i]):.2g} off where rounding explains "
        f"{float(allowed[i]):.2g}",
    )


def _show(row: Tensor) -> str:
    return (
        "[" + ", ".join(f"{v:.4g}" for v in row[:4].tolist()) + (", ...]" if len(row) > 4 else "]")
    )


def expect_scores(
    subject: Subject, fitted: Any, made: Any, rows: Any, eps: float, where: str, **given: Any
) -> None:
    """Scores are the log-density of standard normal noise through the transform."""
    logp, _ = subject.log_density(fitted, rows, **given)
    with torch.no_grad():
        x = torch.as_tensor(np.asarray(rows, dtype=float))
        z = made.inv(x).double()
        normal = -0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * float(np.log(2 * np.pi))
        wanted = (normal - made.log_abs_det_jacobian(z, x).double()).numpy()
    gap = np.abs(logp - wanted)
    allowed = _ROUNDINGS * eps * (1 + np.abs(wanted))
    i = int((gap / allowed).argmax())
    expect(
        (gap <= allowed).all(),
        f"score {wanted[i]:.5g} of row {_show(x[i])}, that of normal noise through transform_ {where}",
        f"{logp[i]:.5g}",
        cause="score_samples uses another map, or another log-determinant, than transform_",
    )


_CAUSE = (
    "the inverse undoes another map than the forward one, or the log-determinant belongs to another "
    "one"
)


def _dtypes(subject: Subject) -> list[tuple[dict[str, Any], float]]:
    if "dtype" not in subject.params:
        return [({}, float(np.finfo(np.float32).eps))]
    return [({"dtype": name}, float(np.finfo(name).eps)) for name in ("float32", "float64")]


@check(cause=_CAUSE, when=_has_transform)
def transforms_there_and_back(subject: Subject) -> None:
    """``transform_``, noise to data, is undone by its inverse, both ways and out to far tails; its
    log-determinant is that of autodiff, and ``score_samples`` is what both say. In both dtypes, for one
    to twelve columns."""
    for settings, eps in _dtypes(subject):
        single = settings.get("dtype") == "float32"
        for d in WIDTHS if single or not settings else (3,):
            data = subject.load(f"columns{d}")
            fitted = subject.fitted(data, MANY // 4 if d == 3 and single else FEW, **settings)
            made = subject.transform(fitted)
            if made is None:
                return
            where = f"in {d} columns" + (f" with {settings['dtype']}" if settings else "")
            z = points(d, subject.seeded(7))
            expect_bijection(subject, made, z, eps, where)
            expect_scores(subject, fitted, made, data.rows, eps, where)


@check(
    cause="the inverse uses the context in another way than the forward map does",
    when=lambda s: _has_transform(s) and s.context == "features",
)
def transforms_there_and_back_under_contexts(subject: Subject) -> None:
    """The same under contexts of two numbers and a category, another one for each row, and for one
    context of all rows."""
    data = subject.load("contextual")
    for settings, eps in _dtypes(subject):
        fitted = _conditional(subject, data, settings)
        for given in (take(data.new_context, slice(0, 48)), take(data.new_context, slice(5, 6))):
            made = subject.transform(fitted, given)
            if made is None:
                return
            n = len(given)
            where = "under other contexts in each row" if n > 1 else "under one context"
            expect_bijection(subject, made, points(2, subject.seeded(8)), eps, where)
            rows = data.new[:n]
            expect_scores(subject, fitted, made, rows, eps, where, context=given)


def _conditional(subject: Subject, data: Data, settings: dict[str, Any]) -> Any:
    single = settings.get("dtype", "float32") == "float32"
    with quiet():
        return subject.fitted(data, MANY // 2 if single else FEW, **settings)
