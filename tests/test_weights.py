"""Weights of rows: validation and normalization in ``fit``."""

import io

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from pyro.distributions import Independent, Normal
from sklearn import config_context
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from densekit import Gaussian
from densekit.base import Capabilities, DensityEstimator
from densekit.codecs.table import TableCodec


class Means(DensityEstimator):
    """Normal columns about their weighted mean."""

    _capabilities = Capabilities(
        density="exact", view="relaxed", modalities=("table",), weights=True, context="features"
    )
    _learns_in_batches = _relaxes_itself = True
    shift: float = 0.0

    def _fit(self, events, context, weights=None):
        rows = events if isinstance(events, torch.Tensor) else torch.cat(list(events.pieces()))
        rows = rows.double()
        w = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights
        self.total_, self.events_, self.contexts_ = float(w.sum()), rows, context
        self.mean_ = (w @ rows / w.sum()).numpy()

    def _distribution(self, context):
        loc = torch.as_tensor(self.mean_ + self.shift, dtype=self._torch_dtype)
        return Independent(Normal(loc, torch.ones_like(loc)), 1)


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(8, 3))


WEIGHTS = np.array([1, 0, 2, 1, 0, 3, 1, 1])
CONTAINERS = {
    "an array": np.asarray,
    "a list": np.ndarray.tolist,
    "pandas": lambda x: pd.DataFrame(x, columns=list("abc"), index=np.arange(len(x)) * 7),
    "polars": lambda x: pl.DataFrame(x, schema=list("abc")),
    "pyarrow": lambda x: pa.table(dict(zip("abc", x.T, strict=True))),
}


@pytest.mark.parametrize("made", CONTAINERS.values(), ids=CONTAINERS)
def test_rows_of_weight_zero_are_as_if_they_were_not_there(rows, made):
    weightless = WEIGHTS == 0
    wild = np.where(weightless[:, None], np.nan, rows)
    est = Means().fit(made(wild), sample_weight=WEIGHTS)
    few = Means().fit(made(rows[~weightless]), sample_weight=WEIGHTS[~weightless])
    np.testing.assert_array_equal(est.events_, few.events_)
    assert est.total_ == 9
    np.testing.assert_array_equal(est.score_samples(made(rows)), few.score_samples(made(rows)))


def test_weights_reach_the_model_as_repeated_rows_would(rows):
    weighted, repeated = (
        Means(dtype="float64").fit(rows, sample_weight=WEIGHTS),
        Means(dtype="float64").fit(np.repeat(rows, WEIGHTS, 0)),
    )
    back = [e.codec_.decode(torch.as_tensor(e.mean_[None])) for e in (weighted, repeated)]
    np.testing.assert_allclose(*back, rtol=1e-12)


def test_the_codec_learns_with_the_weights_where_its_fit_takes_them(rows, monkeypatch):
    seen = []
    plain = TableCodec.fit

    def fit(self, X, weights=None):
        seen.append(weights)
        return plain(self, X)

    monkeypatch.setattr(TableCodec, "fit", fit)
    Means().fit(rows, sample_weight=WEIGHTS)
    Means().fit(rows)
    np.testing.assert_array_equal(seen[0], WEIGHTS[WEIGHTS > 0])
    assert seen[1] is None


def test_contexts_of_weight_zero_are_left_out(rows):
    frame = pd.DataFrame(rows, columns=list("abc")).assign(g=list("uvuvwuvu"))
    few = frame[WEIGHTS > 0]
    split = Means().fit(frame, context=["g"], sample_weight=WEIGHTS)
    apart = Means().fit(frame[list("abc")], context=frame[["g"]], sample_weight=WEIGHTS)
    wanted = Means().fit(few, context=["g"])
    for est in (split, apart):
        assert torch.equal(est.contexts_, wanted.contexts_)
        # The level w is in a row of weight zero alone.
        with pytest.raises(ValueError, match="w"):
            est.condition({"g": "w"})


def test_rows_in_files_are_weighed(rows, tmp_path):
    import pyarrow.parquet as pq

    np.save(tmp_path / "x.npy", rows)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    file = io.BytesIO()
    pq.write_table(pa.table(dict(zip("abc", rows.T, strict=True))), file, row_group_size=3)
    wanted = Means().fit(rows, sample_weight=WEIGHTS)
    for X in (mapped, pq.ParquetFile(file)):
        est = Means().fit(X, sample_weight=WEIGHTS)
        # Events of Parquet are kept as float32 while it is learned from.
        np.testing.assert_allclose(est.mean_, wanted.mean_, atol=1e-6)
        assert est.total_ == 9


@pytest.mark.parametrize(
    "kind", [list, np.float32, pd.Series, pl.Series, torch.tensor, lambda w: w.tolist()]
)
def test_weights_come_in_any_container(rows, kind):
    w = WEIGHTS.astype(float)
    assert Means().fit(rows, sample_weight=kind(w)).total_ == 9


def test_one_number_weighs_all_rows(rows):
    assert Means().fit(rows, sample_weight=2).total_ == 16


@pytest.mark.parametrize(
    ("weights", "error", "pattern"),
    [
        (np.ones(7), ValueError, r"shape \(7,\) and X has 8 rows"),
        (np.ones((8, 1)), ValueError, r"shape \(8, 1\)"),
        ([1, 1, np.nan, 1, 1, 1, 1, 1], ValueError, "is nan in row 2, which is not finite"),
        ([1, 1, 1, np.inf, 1, 1, 1, 1], ValueError, "is inf in row 3"),
        ([1, -2, 1, 1, 1, 1, 1, 1], ValueError, "is -2 in row 1, which is negative"),
        (np.zeros(8), ValueError, "all 8 weights of sample_weight are zero"),
        ([0, 0, 5, 0, 0, 0, 0, 0], ValueError, "in all rows of X but one"),
        ("w", TypeError, "sample_weight='w' must be numbers"),
        (["heavy"] * 8, TypeError, "must be numbers, one per row, got list"),
        ([1 + 2j] * 8, TypeError, "must be numbers"),
        ({"a": 1}, TypeError, "must be numbers, one per row, got dict"),
    ],
)
def test_bad_weights_are_refused_by_value_and_remedy(rows, weights, error, pattern):
    est = Means()
    with pytest.raises(error, match=pattern):
        est.fit(rows, sample_weight=weights)
    assert not hasattr(est, "codec_")


class Unweighted(Means):
    """The same without weights."""

    _capabilities = Capabilities(density="exact", view="relaxed", modalities=("table",))


def test_a_model_without_weights_refuses_them_by_name(rows):
    with pytest.raises(ValueError, match=r"Unweighted takes no sample_weight.*\.weights is True"):
        Unweighted().fit(rows, sample_weight=np.ones(8))


def test_score_takes_weights(rows):
    est = Means(dtype="float64", support="positive").fit(np.abs(rows) + 1)
    X = np.abs(rows) + 2
    repeated = est.score(np.repeat(X, WEIGHTS, 0))
    assert est.score(X, sample_weight=WEIGHTS) == pytest.approx(repeated, rel=1e-12)
    X[WEIGHTS == 0] = -1  # outside the support
    assert est.score(X, sample_weight=WEIGHTS) == pytest.approx(repeated, rel=1e-12)
    assert est.score(X) == -np.inf


def test_weights_are_not_written_to(rows):
    w = WEIGHTS.astype(float)
    w.flags.writeable = False
    Means().fit(rows, sample_weight=w)
    np.testing.assert_array_equal(w, WEIGHTS)


def test_metadata_is_routed_in_a_pipeline_and_a_search(rows):
    w = WEIGHTS.astype(float)
    with config_context(enable_metadata_routing=True):
        est = Means().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        steps = Pipeline(
            [("scale", StandardScaler().set_fit_request(sample_weight=False)), ("est", est)]
        )
        assert steps.fit(rows, sample_weight=w)["est"].total_ == 9
        search = GridSearchCV(est, {"shift": [0.0, 50.0]}, cv=2).fit(rows, sample_weight=w)
        assert search.best_estimator_.total_ == 9
        assert search.best_params_ == {"shift": 0.0}
        deaf = Means().set_fit_request(sample_weight=False)
        assert Pipeline([("est", deaf)]).fit(rows)["est"].total_ == 8
    # Without routing, by the name of the step.
    piped = Pipeline([("est", Means())]).fit(rows, est__sample_weight=w)
    assert piped["est"].total_ == 9
    assert (
        GridSearchCV(Means(), {"shift": [0.0]}, cv=2)
        .fit(rows, sample_weight=w)
        .best_estimator_.total_
        == 9
    )


def test_capabilities_say_who_takes_weights():
    import densekit

    assert isinstance(densekit.capabilities(Gaussian).weights, bool)
    assert not densekit.base.Capabilities(density="exact", view="typed", modalities=()).weights
