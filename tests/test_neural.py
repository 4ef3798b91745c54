"""Behavior of all neural estimators: progress, precision, callbacks and state."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from densekit import NoiseConditionalScore, RealNVP

SMALL = {
    "max_steps": 60,
    "patience": None,
    "n_transforms": 2,
    "hidden_sizes": (16,),
    "random_state": 0,
}


@pytest.fixture(scope="module")
def X():  # noqa: N802
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 2)) * [1, 50] + [0, 1000]


def test_progress_is_shown_when_asked_for_and_not_in_a_pipe(X, capsys):
    RealNVP(**SMALL).fit(X)
    assert capsys.readouterr() == ("", "")
    RealNVP(**SMALL, verbose=True).fit(X)
    out, err = capsys.readouterr()
    assert out == ""
    assert "50/60" in err
    assert "valid=" in err


def test_history_records_the_fit(X):
    est = RealNVP(**SMALL).fit(X)
    history = est.history_
    n = len(history["step"])
    for name in ("epoch", "seconds", "train_loss", "valid_loss", "learning_rate"):
        assert len(history[name]) == n
    assert history["stop_reason"] == "all 60 steps are done"
    assert est.n_iter_ == history["step"][-1] == 60
    assert history["best_step"] in history["step"]


def test_mixed_precision_trains_and_scores_in_full_precision(X):
    est = RealNVP(**SMALL, mixed_precision=True).fit(X)
    plain = RealNVP(**SMALL).fit(X)
    assert {p.dtype for p in est.module_.parameters()} == {torch.float32}
    assert est.score_samples(X).dtype == np.float32
    assert est.score(X) == pytest.approx(plain.score(X), abs=0.2)


def test_double_precision_agrees_with_single(X):
    single = RealNVP(**SMALL).fit(X)
    double = RealNVP(**SMALL, dtype="float64").fit(X)
    assert double.score_samples(X).dtype == np.float64
    assert double.sample(2).dtype == np.float64
    assert double.score(X) == pytest.approx(single.score(X), abs=0.2)


@pytest.mark.slow
def test_a_compiled_loss_trains_to_the_same_weights(X):
    est = RealNVP(**SMALL, compile=True).fit(X)
    plain = RealNVP(**SMALL).fit(X)
    np.testing.assert_allclose(est.score_samples(X), plain.score_samples(X), atol=0.02)


def test_copies_keep_scores_and_samples_and_hold_no_graph(X):
    est = RealNVP(**SMALL).fit(X)
    for again in (copy.deepcopy(est), pickle.loads(pickle.dumps(est))):
        np.testing.assert_array_equal(again.score_samples(X), est.score_samples(X))
        np.testing.assert_array_equal(
            again.sample(5, random_state=1), est.sample(5, random_state=1)
        )
    assert not any(p.requires_grad for p in est.module_.parameters())


def test_a_refit_forgets_the_first(X):
    est = RealNVP(**SMALL).fit(X)
    fresh = RealNVP(**SMALL).fit(2 * X)
    np.testing.assert_array_equal(est.fit(2 * X).score_samples(X), fresh.score_samples(X))


def test_without_held_out_rows_a_fit_runs_to_its_end(X):
    est = RealNVP(**SMALL, validation_fraction=0.0).fit(X)
    assert np.isnan(est.history_["valid_loss"]).all()
    assert est.n_iter_ == 60


@pytest.mark.gpu
def test_a_fit_on_the_gpu_scores_on_the_cpu_as_it_does_there(X, tmp_path):
    import densekit

    est = RealNVP(**SMALL, device="cuda").fit(X)
    est.save(tmp_path / "flow")
    again = densekit.load(tmp_path / "flow", device="cpu")
    assert est.device_ == "cuda"
    assert again.device_ == "cpu"
    np.testing.assert_allclose(again.score_samples(X), est.score_samples(X), atol=1e-3)


# A further fit.


@pytest.fixture(scope="module")
def bent():
    """A parabola with noise: an untrained flow is a normal, which scores well below a trained one."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    return np.column_stack([x, x**2 + 0.1 * rng.normal(size=300)])


def test_a_warm_start_goes_on_from_the_weights_with_the_codec_as_it_was(bent):
    X = bent
    est = RealNVP(**SMALL).fit(X)
    codec, first = est.codec_, est.score(X)
    est.set_params(warm_start=True, max_steps=1, learning_rate=1e-9).fit(2 * X)
    assert est.codec_ is codec
    assert est.n_iter_ == 1
    assert est.score(X) == pytest.approx(first, abs=1e-4)
    est.set_params(max_steps=200, learning_rate=1e-2).fit(X)
    assert est.score(X) > first + 0.3
    anew = RealNVP(**SMALL, warm_start=True).fit(X)
    np.testing.assert_array_equal(anew.score_samples(X), RealNVP(**SMALL).fit(X).score_samples(X))


def test_a_warm_start_keeps_double_precision_and_a_context(X):
    est = RealNVP(**SMALL, dtype="float64").fit(X, context=X[:, :1])
    first = est.score_samples(X, context=X[:, :1])
    est.set_params(warm_start=True, max_steps=1, learning_rate=1e-300, weight_decay=0.0)
    est.fit(X, context=X[:, :1])
    np.testing.assert_allclose(est.score_samples(X, context=X[:, :1]), first, rtol=1e-12)
    with pytest.raises(ValueError, match="with a context and is used without one"):
        est.fit(X)


def test_the_coordinates_that_a_first_batch_set_stay(X):
    est = NoiseConditionalScore(hidden_sizes=(8,), max_steps=20, random_state=0).fit(X)
    frame = est.module_.frame.loc.clone()
    est.partial_fit(X + 100)
    assert torch.equal(est.module_.frame.loc, frame)


def test_what_does_not_fit_the_first_fit_is_an_error_and_changes_nothing(X):
    frame = pd.DataFrame({"size": X[:, 0], "color": pd.Categorical(["red", "blue"] * 150)})
    est = RealNVP(**SMALL).fit(frame).set_params(warm_start=True)
    before = est.score_samples(frame[:9])
    green = frame.assign(color=pd.Categorical(["red", "green"] * 150))
    with (
        pytest.warns(UserWarning, match="green"),
        pytest.raises(ValueError, match=r"row 1 of X.*warm_start=False"),
    ):
        est.fit(green)
    with pytest.raises(ValueError, match="feature names"):
        est.fit(frame.rename(columns={"size": "length"}))
    with pytest.raises(ValueError, match="0 rows"):
        est.fit(frame[:0])
    with pytest.raises(ValueError, match=r"(?s)hyper-parameters now ask for.*size mismatch"):
        est.set_params(hidden_sizes=(8,)).fit(frame)
    est.set_params(hidden_sizes=(16,))
    with pytest.raises(ValueError, match="feature names"):
        est.partial_fit(frame.rename(columns={"size": "length"}))
    np.testing.assert_array_equal(est.score_samples(frame[:9]), before)


def test_partial_fits_of_pieces_learn_what_one_fit_learns(bent):
    X, pieces = bent, np.array_split(bent, 3)
    est = RealNVP(**{**SMALL, "max_steps": 1}, batch_size=32, learning_rate=5e-3)
    est.partial_fit(pieces[0])
    start, codec, parameters = est.score(X), est.codec_, est.get_params()
    for _ in range(15):
        for piece in pieces:
            assert est.partial_fit(piece) is est
            assert est.n_iter_ == 4
    assert est.codec_ is codec
    assert est.get_params() == parameters
    assert est.score(X) > start + 0.3
    assert set(est.history_["learning_rate"]) == {5e-3}


def test_passes_over_the_same_rows_see_noise_of_their_own_and_one_integer_fixes_them(
    X, monkeypatch
):
    seen, loss = [], RealNVP._loss

    def looked_at(self, module, events, context):
        seen.append(events.sort(0).values)
        return loss(self, module, events, context)

    whole = X.astype(int)
    fits = [RealNVP(**SMALL, batch_size=300).fit(whole) for _ in range(2)]
    monkeypatch.setattr(RealNVP, "_loss", looked_at)
    for est in fits:
        est.partial_fit(whole).partial_fit(whole)
    first, second, *again = seen
    assert not torch.isclose(first, second, atol=1e-5).all(1).any()
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


def test_a_pass_takes_all_rows_but_fewer_than_it_has_steps(X):
    """100 rows in batches of at most 40 are three of 33, and not two of 40."""
    est = RealNVP(**SMALL, batch_size=40).fit(X)
    est.partial_fit(X[:100])
    assert est.n_iter_ == 3
    assert est.batch_size == 40
    assert est.partial_fit(X[:1]).n_iter_ == 1
