"""Lists of transforms: accepted types, and errors of the trial run."""

import pytest
import torch
from nflows import transforms as nflows
from pyro.distributions import transforms as pyros
from torch.distributions import transforms as torchs

from densekit.transforms.adapt import as_columns, check_transforms
from densekit.transforms.affine import AffineElement
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.columns import Stack
from densekit.transforms.linear import LULinear
from densekit.transforms.nflows import FromNflows


def named(*transforms, n_context=0, n_features=3):
    return {f"{i}": as_columns(t, n_features, n_context) for i, t in enumerate(transforms)}


class Halves(torchs.Transform):
    """Its inverse is wrong."""

    domain = codomain = torchs.constraints.real
    bijective = True

    def _call(self, x):
        return 0.5 * x

    def _inverse(self, y):
        return 3 * y

    def log_abs_det_jacobian(self, x, y):
        return torch.full_like(x, 0.5).log()


class Widens(nflows.Transform):
    """One feature more than came in."""

    def forward(self, inputs, context=None):
        return torch.cat([inputs, inputs[:, :1]], 1), inputs.new_zeros(len(inputs))


def test_each_library_is_known_by_its_transforms():
    ours = LULinear(3)
    assert as_columns(ours, 3) is ours
    assert type(as_columns(pyros.spline(3), 3)).__name__ == "FromPyro"
    assert type(as_columns(torchs.AffineTransform(0.0, 2.0), 3)).__name__ == "FromPyro"
    assert type(as_columns(nflows.LULinear(3), 3)) is FromNflows


@pytest.mark.parametrize("what", [torch.nn.Linear(3, 3), pyros.Permute, "LULinear", None])
def test_what_is_no_transform_is_refused(what):
    with pytest.raises(TypeError, match=f"it is a {type(what).__name__}, not a transform of Pyro"):
        as_columns(what, 3)


def test_what_was_made_for_other_numbers_is_refused():
    with pytest.raises(
        ValueError, match=r"takes 4 features and a context of 0, but the data have 3"
    ):
        as_columns(LULinear(4), 3)
    made = AutoregressiveTransform(3, AffineElement(), (8,), n_context=2)
    with pytest.raises(ValueError, match=r"a context of 2, but the data have 3 and 1"):
        as_columns(made, 3, 1)
    assert as_columns(made, 3, 2) is made


def test_a_trial_passes_what_serves():
    check_transforms(
        named(
            pyros.affine_autoregressive(3, [8]),
            torchs.AffineTransform(1.0, -2.0),
            nflows.LULinear(3, identity_init=False),
            LULinear(3),
            pyros.planar(3).inv,
            nflows.MaskedAffineAutoregressiveTransform(3, 8),
        ),
        3,
    )


@pytest.mark.parametrize(
    ("transforms", "pattern"),
    [
        (lambda: [pyros.spline(4), LULinear(3)], "0 does not take rows of 3 real numbers"),
        (
            lambda: [LULinear(3), pyros.affine_coupling(5, hidden_dims=[8])],
            "1 does not take rows of 3 real numbers",
        ),
        (lambda: [nflows.LULinear(2)], "0 does not take rows of 3 real numbers"),
        (lambda: [Widens()], r"0 returns \(n, 4\)"),
        (lambda: [torchs.ExpTransform()], "0 returns values that are not finite"),
        (lambda: [nflows.Sigmoid()], "0 does not take rows.*InputOutsideDomain"),
        (
            lambda: [nflows.InverseTransform(nflows.Tanh())],
            "0 .*does not take rows.*InputOutsideDomain",
        ),
        (lambda: [torchs.ExpTransform().inv], "0 returns values that are not finite"),
        (
            lambda: [torchs.SigmoidTransform()],
            "0 does not return to the same rows, data to noise and back",
        ),
        (
            lambda: [torchs.SigmoidTransform(), LULinear(3)],
            "0 does not return to the same rows, data to noise and",
        ),
        (
            lambda: [Halves(), LULinear(3)],
            "0 does not return to the same rows, data to noise and back",
        ),
    ],
)
def test_a_trial_names_the_transform_and_the_fault(transforms, pattern):
    with pytest.raises(ValueError, match=f"^{pattern}"):
        check_transforms(named(*transforms()), 3)


def test_a_trial_refuses_a_transform_that_cannot_be_learned():
    with pytest.raises(NotImplementedError, match=r"^1: Planar maps noise to data and not"):
        check_transforms(named(LULinear(3), pyros.planar(3)), 3)


def test_a_context_must_be_read_by_one():
    free, reading = LULinear(3), AutoregressiveTransform(3, AffineElement(), (8,), n_context=2)
    with pytest.raises(ValueError, match=r"none of 0, 1 uses the context of 2"):
        check_transforms(named(free, nflows.LULinear(3), n_context=2), 3, 2)
    check_transforms(named(free, reading, n_context=2), 3, 2)
    check_transforms(named(free, pyros.conditional_affine_coupling(3, 2), n_context=2), 3, 2)
    made = nflows.MaskedAffineAutoregressiveTransform(3, 8, context_features=2)
    check_transforms(named(free, made, n_context=2), 3, 2)
    wrong = nflows.MaskedAffineAutoregressiveTransform(3, 8, context_features=5)
    with pytest.raises(
        ValueError, match=r"^0 does not take rows of 3 real numbers and contexts of 2"
    ):
        check_transforms(named(wrong, n_context=2), 3, 2)


def test_a_stack_gives_the_context_to_those_that_take_one():
    """One without context must not be handed it: its network would have no weights for it."""
    bare = AutoregressiveTransform(3, AffineElement(), (8,))
    reading = AutoregressiveTransform(3, AffineElement(), (8,), n_context=2)
    stack = Stack([bare, reading])
    z, ladj = stack.to_noise(torch.randn(3, 5), torch.randn(2, 5))
    assert (z.shape, ladj.shape) == ((3, 5), (5,))
    assert stack.to_data(z, torch.randn(2, 5))[0].shape == (3, 5)
