"""Cells that are missing, and values that many rows share, in the typed view."""

import math

import numpy as np
import pandas as pd
import pytest

from densekit.codecs import TableCodec

RNG = np.random.default_rng(0)
N = 300
X = pd.DataFrame(
    {
        "kind": RNG.choice(["ash", "elm"], N),
        "girth": RNG.lognormal(1.0, 1.0, N),
        "rings": RNG.integers(0, 90, N),
        "still": 4,
        "felled": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 10**6, N), "s"),
    }
)
BLANK = (
    X.astype(object)
    .mask(RNG.random(X.shape) < 0.2)
    .astype({"girth": float, "rings": "Int64", "still": "Int64", "felled": "datetime64[us]"})
)
SUPPORT = {"girth": "positive"}


@pytest.fixture(scope="module")
def codec():
    return TableCodec(support=SUPPORT, missing=True).fit(BLANK)


def test_missing_cells_are_nan_and_the_others_as_without_them(codec):
    z, ladj = (t.numpy() for t in codec.encode(BLANK))
    whole = codec.encode(X.astype({"rings": "Int64", "still": "Int64"}))[0].numpy()
    absent = BLANK.drop(columns="still").isna().to_numpy()
    assert absent.any(0).all()
    np.testing.assert_array_equal(np.isnan(z), absent)
    np.testing.assert_array_equal(z[~absent], whole[~absent])
    assert np.isfinite(ladj).all()


def test_a_row_s_jacobian_is_that_of_the_cells_that_are_there(codec):
    """By numeric derivative of the cell that is there; a missing one has no part in it."""
    row = BLANK[:1].assign(kind="ash", girth=2.0, rings=5, still=4, felled=pd.NaT)
    step = 1e-6
    z = [codec.encode(row.assign(girth=2.0 + s))[0][0, 1].item() for s in (-step, step)]
    slope = (z[1] - z[0]) / (2 * step)
    assert codec.encode(row)[1].item() == pytest.approx(math.log(slope), abs=1e-6)
    nothing = row.assign(girth=np.nan)
    assert codec.encode(nothing)[1].item() == pytest.approx(0, abs=1e-12)


def test_scales_are_those_of_the_values_that_are_there(codec):
    alone = TableCodec(support="positive").fit(BLANK[["girth"]].dropna())
    mine = next(c for c in codec.schema.columns if c.name == "girth")
    assert (mine.loc, mine.scale) == (alone.schema.columns[0].loc, alone.schema.columns[0].scale)


def test_a_codec_that_takes_none_refuses_them():
    with pytest.raises(ValueError, match=r"'kind' contains NaN: \d+ missing"):
        TableCodec(support=SUPPORT).fit(BLANK)
    with pytest.raises(ValueError, match=r"contains infinity"):
        TableCodec(missing=True).fit(np.array([[1.0, np.inf], [np.nan, 2.0]]))


def spiked(n=400, seed=0):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((n, 2)) < 0.3, [0.0, 7.0], rng.normal([0, 7], [1, 1e-9], (n, 2)))
    return np.column_stack([values, np.where(rng.random(n) < 0.9, 3, rng.integers(0, 99, n))])


def test_atoms_are_found_come_back_exactly_and_have_no_jacobian():
    rows = spiked()
    codec = TableCodec(kinds={2: "integer"}, atom_share=0.05).fit(rows)
    assert [c.atoms for c in codec.schema.columns] == [(0.0,), (7.0,), (3,)]
    assert codec.schema.base_measure == "product"
    z, ladj = codec.encode(rows)
    np.testing.assert_array_equal(codec.decode(z.float())[:, :2] == [0, 7], rows[:, :2] == [0, 7])
    scales = np.log([c.scale for c in codec.schema.columns[:2]])
    np.testing.assert_allclose(ladj, -((rows[:, :2] != [0, 7]) * scales).sum(1))


def test_the_indicator_distinguishes_values_close_to_an_atom_from_it():
    """The other values of the second column are within 1e-9 of its atom and determine its scale."""
    rows = spiked()
    codec = TableCodec(atom_share=0.05).fit(rows)
    z = codec.encode(rows)[0].float().numpy()
    for j, (indicator, value) in enumerate(codec.schema.pairs[:2]):
        np.testing.assert_array_equal(z[:, indicator] == 1, rows[:, j] == [0, 7][j])
        rest = z[z[:, indicator] == 0, value]
        assert 0.9 < rest.std() < 1.1


def test_a_value_of_few_rows_is_no_atom():
    x = RNG.normal(size=(1000, 1))
    x[:9] = 1.0
    assert TableCodec(atom_share=0.005).fit(x).schema.columns[0].atoms == ()
    x[:10] = 1.0
    assert TableCodec(atom_share=0.005).fit(x).schema.columns[0].atoms == (1.0,)
    assert TableCodec(atom_share=0.02).fit(x).schema.columns[0].atoms == ()
    assert TableCodec().fit(x).schema.columns[0].atoms == ()


def test_common_integers_are_spikes_at_a_hundredth_of_the_share():
    x = np.arange(4000)
    x[:30], x[30:59] = 7777, 8888
    column = TableCodec(atom_share=0.05).fit(x[:, None]).schema.columns[0]
    assert column.kind == "integer"
    assert column.spikes == (7777,)
    few = np.repeat(np.arange(200), 40)
    assert len(TableCodec(atom_share=0.05).fit(few[:, None]).schema.columns[0].spikes) == 128
    assert TableCodec().fit(few[:, None]).schema.columns[0].spikes == ()


def test_integers_that_come_again_are_kept_with_their_rows_and_others_are_not():
    again = np.repeat(np.arange(0, 3000, 3), 2)
    column = TableCodec(atom_share=0.05).fit(again[:, None]).schema.columns[0]
    assert column.spikes == ()
    assert column.seen == tuple(range(0, 3000, 3))
    assert set(column.seen_rows) == {2}
    for x in (
        np.arange(2000),
        np.repeat(np.arange(40), 50),
        again * 0.5,
        2**54 + again,
        2**13 * again,
    ):
        assert TableCodec(atom_share=0.05).fit(x[:, None]).schema.columns[0].seen == ()
    assert TableCodec().fit(again[:, None]).schema.columns[0].seen == ()
