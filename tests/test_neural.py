"""What every neural estimator does beside its model: progress, precision, callbacks, state."""

import copy
import pickle

import numpy as np
import pytest
import torch

from densekit import RealNVP

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


def test_history_tells_what_happened(X):
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
