"""Schema: the relaxed view is a bijection with noise, its Jacobian right, its bound exact."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.codecs import Schema


def mixed(shift=0.0, spread=1.0):
    """A number, a code of 2, a code of 5 without order, an integer column of step 1/3, a pixel."""
    return Schema(
        "table",
        (5,),
        cardinality=np.array([0, 2, 5, 0, 256]),
        ordered=np.array([False, True, False, False, True]),
        width=np.array([0, 0, 0, 1 / 3, 0]),
        shift=np.array([0, 0, shift, 0, shift]),
        spread=np.array([1, 1, spread, 1, spread]),
    )


def rows(n=200, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    typed = torch.randn(n, 5, generator=g, dtype=dtype)
    for j, k in ((1, 2), (2, 5), (4, 256)):
        typed[:, j] = torch.randint(0, k, (n,), generator=g).to(dtype)
    typed[:, 3] = torch.randint(-9, 9, (n,), generator=g).to(dtype) / 3
    return typed, torch.rand(n, 5, generator=g, dtype=dtype)


@settings(max_examples=30, deadline=None)
@given(st.floats(-2, 2), st.floats(0.1, 3), st.integers(0, 99))
def test_unrelax_undoes_relax(shift, spread, seed):
    schema = mixed(shift, spread)
    typed, u = rows(seed=seed)
    u = u.clamp(1e-6, 1 - 1e-6)
    z, _ = schema.relax(typed, u)
    assert torch.isfinite(z).all()
    torch.testing.assert_close(schema.unrelax(z), typed)


def test_relax_in_single_precision():
    typed, u = rows(2000, dtype=torch.float32)
    z, ladj = mixed(-0.5, 0.7).relax(typed, u.clamp(1e-3, 1 - 1e-3))
    torch.testing.assert_close(mixed(-0.5, 0.7).unrelax(z), typed)
    for edge in (0.0, 1 - 2**-24):
        z, ladj = mixed().relax(typed, torch.full_like(typed, edge))
        assert torch.isfinite(z).all()
        assert torch.isfinite(ladj).all()


def test_relaxed_jacobian_is_the_slope_in_the_noise():
    schema = mixed(0.3, 1.7)
    typed, u = rows()
    u = u.clamp(0.01, 0.99).requires_grad_()
    z, ladj = schema.relax(typed, u)
    (slopes,) = torch.autograd.grad(z.sum(), u)  # element-wise, so the gradient is the diagonal
    torch.testing.assert_close(ladj, slopes[:, 1:].log().sum(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("k", [2, 5, 256])
def test_uniform_codes_are_standard_normal(k):
    schema = Schema(
        "table",
        (1,),
        cardinality=np.array([k]),
        ordered=np.array([True]),
        width=np.zeros(1),
        shift=np.zeros(1),
        spread=np.ones(1),
    )
    u = torch.rand(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for code in range(k):
        z, ladj = schema.relax(torch.full_like(u, code), u)
        logp = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
        # Every draw says log(1/K) by itself: the bound is tight.
        torch.testing.assert_close(logp + ladj, torch.full_like(ladj, -math.log(k)))


def test_masses_of_integers_sum_to_one():
    # A normal over relaxed integers: the mean of the importance weights is the exact mass.
    schema = Schema(
        "table",
        (1,),
        np.zeros(1, int),
        np.zeros(1, bool),
        np.array([0.5]),
        np.zeros(1),
        np.ones(1),
    )
    u = ((torch.arange(400, dtype=torch.float64) + 0.5) / 400)[:, None]
    total = 0.0
    for k in range(-30, 30):
        z, ladj = schema.relax(torch.full_like(u, k * 0.5), u)
        mass = (torch.distributions.Normal(0, 1).log_prob(z).sum(1) + ladj).exp().mean()
        edges = torch.distributions.Normal(0, 1).cdf(
            torch.tensor([k * 0.5, (k + 1) * 0.5]).double()
        )
        assert mass == pytest.approx((edges[1] - edges[0]).item(), abs=1e-6)
        total += mass.item()
    assert total == pytest.approx(1, abs=1e-6)


def test_noise_may_be_shared_by_rows():
    schema = mixed()
    typed, u = rows()
    z, ladj = schema.relax(typed, u[:1])
    z1, ladj1 = schema.relax(typed, u[:1].expand_as(u))
    torch.testing.assert_close(z, z1)
    torch.testing.assert_close(ladj, ladj1)


def test_unrelax_stops_at_the_last_code():
    codes = mixed().unrelax(torch.tensor([[0.0, 99, 99, 0, 99], [0, -99, -99, 0, -99]]))
    assert codes[:, [1, 2, 4]].tolist() == [[1, 4, 255], [0, 0, 0]]


def test_continuous_events_pass_untouched():
    d = 3
    schema = Schema("table", (d,), np.zeros(d, int), np.zeros(d, bool), np.zeros(d))
    x = torch.randn(4, d)
    z, ladj = schema.relax(x, torch.rand(4, d))
    assert z is x
    assert (ladj == 0).all()
    assert schema.unrelax(x) is x


def test_features_are_one_hot_where_codes_have_no_order():
    schema = mixed()
    typed, _ = rows()
    out = schema.features(typed)
    assert out.shape == (200, schema.n_features) == (200, 9)
    torch.testing.assert_close(out[:, 0], typed[:, 0])
    torch.testing.assert_close(out[:, 1], 2 * typed[:, 1] - 1)
    torch.testing.assert_close(out[:, 2:7].argmax(1).double(), typed[:, 2])
    assert (out[:, 2:7].sum(1) == 1).all()
    torch.testing.assert_close(out[:, 8], typed[:, 4] / 127.5 - 1)


def test_base_measure():
    def schema(cardinality, width, constants=False):
        d = len(width)
        return Schema(
            "table",
            (d,),
            np.array(cardinality),
            np.zeros(d, bool),
            np.array(width),
            constants=constants,
        )

    assert schema([0, 0], [0.0, 0]).base_measure == "lebesgue"
    assert schema([0, 0], [0.0, 0], constants=True).base_measure == "product"
    assert schema([0, 2], [0.5, 0]).base_measure == "counting"
    assert schema([0, 2], [0.0, 0]).base_measure == "product"
    assert Schema("text", (9,), vocab_size=5).base_measure == "counting"


def test_flat_and_copies_keep_the_views():
    schema = mixed()
    typed, u = rows()
    z, _ = schema.relax(typed, u)
    for other in (schema.flat(), copy.deepcopy(schema), pickle.loads(pickle.dumps(schema))):
        torch.testing.assert_close(other.relax(typed, u)[0], z)
