import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from densekit.metrics import energy_distance
from densekit.metrics.rows import comparable_rows, distances


def rows(X, Y, **kwargs):
    return comparable_rows(X, Y, **{"name": "it", "min_rows": 1, "max_rows": 10**6, **kwargs})


def mean_square(x):
    """Of the distances of two independent rows."""
    return 2 * x.var(0).sum()


def test_every_column_weighs_the_same():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "n": rng.gamma(2, 1e6, size=500),
            "few": rng.choice(["a", "b"], 500, p=[0.9, 0.1]),
            "many": rng.choice(list("abcdefgh"), 500),
            "t": pd.to_datetime(rng.integers(0, 10**9, 500), unit="s"),
        }
    )
    both = rows(frame, frame)
    for j in range(4):
        assert mean_square(both.x[:, both.source_column == j]) == pytest.approx(2)


def test_levels_are_equally_far_apart():
    both = rows(pd.DataFrame({"c": list("abcab")}), pd.DataFrame({"c": list("dcbaa")}))
    joint = np.concatenate([both.x, both.y])
    apart = distances(joint, joint)
    letters = np.array(list("abcabdcbaa"))
    same = letters[:, None] == letters
    assert apart[same] == pytest.approx(0)
    assert np.ptp(apart[~same]) == pytest.approx(0, abs=1e-12)
    # Names mean nothing: relabeled levels leave every metric as it was.
    rename = {"a": "z", "b": "y", "c": "x"}
    x, y = pd.DataFrame({"c": list("abcab") * 3}), pd.DataFrame({"c": list("bbcaa") * 3})
    new = energy_distance(x.replace(rename), y.replace(rename))
    assert new.value == pytest.approx(energy_distance(x, y).value)


def test_two_levels_are_as_a_flag():
    flags = np.random.default_rng(0).uniform(size=(30, 1)) < 0.3
    words = np.where(flags, "yes", "no").astype(object)
    a, b = rows(flags, flags), rows(words, words)
    assert distances(a.x, a.y) == pytest.approx(distances(b.x, b.y))


def test_rare_levels_share_an_indicator():
    x = pd.DataFrame({"c": [f"id{i}" for i in range(600)] + ["common"] * 600})
    both = rows(x, x)
    assert both.x.shape == (1200, 256)
    assert mean_square(both.x) == pytest.approx(2)


def test_containers_read_alike():
    data = {"n": [0.5, 1.5, 4.0, 2.0], "c": ["a", "b", "a", "c"], "b": [True, False, True, True]}
    expected = rows(pd.DataFrame(data), pd.DataFrame(data))
    for frame in (
        pl.DataFrame(data),
        pa.table(data),
        pd.DataFrame(data).astype({"c": "category"}),
    ):
        found = rows(frame, pd.DataFrame(data)[["b", "c", "n"]])
        assert found.x == pytest.approx(expected.x)
        assert found.y == pytest.approx(expected.y)
        assert found.labels == ["n", "c", "b"]


def test_constant_columns():
    x = np.array([[0.1, 1], [0.1, 2], [0.1, 3]])
    assert rows(x, x).x[:, 0] == pytest.approx(0)
    y = x + np.array([[1e-3, 0], [-1e-3, 0], [1e-3, 0]])
    # In units of what the samples differ from it, whatever the unit of the column.
    assert rows(x, y).y[:, 0] == pytest.approx([1, -1, 1])
    words = pd.DataFrame({"c": ["a"] * 4})
    assert np.isfinite(rows(words, words.replace("a", "b")).y).all()


def test_pixels_share_a_scale():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(40, 5, 6), dtype=np.uint8)
    images[:, 0] = 0
    images[:, 1] //= 200
    both = rows(images, images)
    assert both.x.shape == (40, 30)
    assert both.x.var(0).mean() == pytest.approx(1)
    flat = images.reshape(40, -1).astype(float)
    ratio = distances(both.x, both.x) / np.where(np.eye(40), 1, distances(flat, flat))
    assert np.ptp(ratio[~np.eye(40, dtype=bool)]) == pytest.approx(0, abs=1e-9)
    black = np.zeros_like(images)
    assert np.isfinite(rows(black, black).x).all()
    assert (rows(black, images).y ** 2).mean() == pytest.approx(1)


def test_offsets_cost_no_digits():
    # Days in nanoseconds, and numbers far from zero.
    x = np.random.default_rng(0).normal(size=(50, 1))
    assert rows(x + 1e9, x + 1e9).x == pytest.approx(rows(x, x).x, abs=1e-6)


def test_wide_rows_by_products_are_as_narrow_ones():
    x = np.random.default_rng(0).normal(size=(30, 100))
    x[1] = x[0]
    slow = np.sqrt(((x[:, None] - x) ** 2).sum(-1))
    assert distances(x, x) == pytest.approx(slow, abs=1e-6)
    # Equal rows are equal, whatever the product rounds.
    assert (np.diag(distances(x, x.copy())) == 0).all()


@pytest.mark.parametrize(
    ("X", "Y", "error", "message"),
    [
        (pd.DataFrame({"a": [1.0]}), pd.DataFrame({"b": [1.0]}), ValueError, "only Y has .'b'"),
        (pd.DataFrame({"a": [1.0]}), pd.DataFrame({"a": ["u"]}), ValueError, "column 'a' is float64"),
        (pd.DataFrame({"a": ["u", None]}), pd.DataFrame({"a": ["u"]}), ValueError, "X: Column 'a' co"),
        (np.zeros((3, 4, 4)), np.zeros((3, 16)), ValueError, "both be images"),
        (np.zeros((3, 4, 4)), np.zeros((3, 4, 5)), ValueError, "16 entries and rows of Y 20"),
        (np.full((3, 4, 4), np.nan), np.zeros((3, 4, 4)), ValueError, "X: Column 'pixels' contains"),
        (np.zeros((3, 1)), ["some", "text"], TypeError, "Y holds texts"),
    ],
)  # fmt: skip
def test_bad_rows(X, Y, error, message):
    with pytest.raises(error, match=message):
        rows(X, Y)
