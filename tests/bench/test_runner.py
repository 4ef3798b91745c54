import math
import os

import numpy as np
import pytest

from densekit.bench import Run, Suite, read, run_suite

# Estimators that keep the contract's public methods and nothing else, in a module that the runs'
# processes can import.
STUBS = '''
import os, signal, time, warnings
from types import SimpleNamespace
import numpy as np
from sklearn.base import BaseEstimator
from densekit.datasets import TwoMoons


class Honest(BaseEstimator):
    """Knows the truth."""

    density_kind_ = "exact"
    base_measure_ = "lebesgue"

    def __init__(self, random_state=None, max_time=None, verbose="auto", callbacks=(), shift=0.0):
        self.random_state, self.max_time, self.verbose = random_state, max_time, verbose
        self.callbacks, self.shift = callbacks, shift

    def fit(self, X, y=None):
        assert len(X) == 4500
        assert self.max_time == 7 and self.random_state == 3 and self.verbose is False
        warnings.warn("a word of warning")
        for step in range(1, 4):
            state = SimpleNamespace(step=step, total_steps=4, seconds=0.0, valid_loss=float("nan"))
            state.train_loss = 1.0 / step
            for callback in self.callbacks:
                callback(state)
        self.history_ = {"step": [3], "stop_reason": "done"}
        return self

    def score_samples(self, X, return_std=False):
        scores = TwoMoons().log_prob(X) + self.shift
        return (scores, np.full(len(X), 0.25)) if return_std else scores

    def sample(self, n_samples=1, random_state=None):
        return TwoMoons().sample(n_samples, random_state=random_state)


class Silent(Honest):
    density_kind_ = "none"

    def __getattribute__(self, name):
        if name in ("score_samples", "score"):
            raise AttributeError("no density")
        return super().__getattribute__(name)


class Outside(Honest):
    def score_samples(self, X, return_std=False):
        scores, errors = super().score_samples(X, return_std=True)
        scores[:2] = -np.inf
        return (scores, errors) if return_std else scores


class Raising(Honest):
    def fit(self, X, y=None):
        raise RuntimeError("cannot learn this\\nat all")


class Sleeping(Honest):
    def fit(self, X, y=None):
        print("about to sleep", flush=True)
        time.sleep(3600)


class Chatting(Honest):
    """Reports for ever: progress must not keep it alive."""

    def fit(self, X, y=None):
        while True:
            super().fit(X)


class Killed(Honest):
    def fit(self, X, y=None):
        os.kill(os.getpid(), signal.SIGKILL)


class Leaving(Honest):
    def fit(self, X, y=None):
        os.write(2, b"last words")
        os._exit(3)


class Short(Honest):
    def sample(self, n_samples=1, random_state=None):
        return super().sample(n_samples - 1)
'''
NAMES = (
    "Honest", "Silent", "Outside", "Raising", "Sleeping", "Chatting", "Killed", "Leaving", "Short",
)  # fmt: skip


class Notes:
    def __init__(self):
        self.events = []

    def started(self, run):
        self.events.append((run.label, "started"))

    def progressed(self, run, stage, share, loss):
        self.events.append((run.label, stage, share, loss))

    def finished(self, run, record):
        self.events.append((run.label, "finished", record.status))

    def of(self, label):
        return [event[1:] for event in self.events if event[0] == label]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "bench_stubs.py").write_text(STUBS)
    runs = [
        Run(
            "two_moons", f"bench_stubs:{name}", name, seed=3, budget=7, n_samples=200,
            time_limit=6.0 if name in ("Sleeping", "Chatting") else 120.0,
        )
        for name in NAMES
    ]  # fmt: skip
    runs.append(Run("breast_cancer", "Gaussian", "Gaussian", budget=7))
    notes = Notes()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        out = folder / "results"
        records = run_suite(Suite("tiny", "", tuple(runs)), out, notes, jobs=2)
    return {record.run["label"]: record for record in records}, notes, out


def test_a_run_leaves_its_scores(outcome):
    record = outcome[0]["Honest"]
    assert (record.status, record.reason) == ("ok", "")
    score = record.score
    assert (score["kind"], score["base_measure"]) == ("exact", "lebesgue")
    assert score["value"] == record.truth["value"]
    assert score["n_rows"] == 1000
    assert score["monte_carlo_error"] == 0.25
    assert score["standard_error"] == pytest.approx(
        math.hypot(0.25, record.truth["standard_error"])
    )
    assert record.truth["entropy"] == pytest.approx(-record.truth["value"], abs=0.1)
    assert abs(record.metrics["two_sample_auc"]["value"] - 0.5) < 0.15
    assert abs(record.metrics["energy_distance"]["value"]) < 0.05


def test_a_run_leaves_what_it_took(outcome):
    record = outcome[0]["Honest"]
    assert set(record.times) == {
        "fit", "score", "sample", "scored_rows_per_second", "sampled_rows_per_second", "total",
    }  # fmt: skip
    assert 10 < record.memory["start"] <= record.memory["peak"] + 1
    assert record.environment["threads"] == 1
    assert record.environment["versions"]["numpy"] == np.__version__
    assert record.hyper_parameters["max_time"] == 7
    assert record.warnings == ["UserWarning: a word of warning"]
    assert record.history["stop_reason"] == "done"
    assert record.data["n_train"] == 4500


def test_progress_arrives_in_order(outcome):
    events = outcome[1].of("Honest")
    assert [event[0] for event in events] == [
        "started", "load", "fit", "fit", "fit", "fit", "score", "sample", "finished",
    ]  # fmt: skip
    assert [event[1] for event in events if event[0] == "fit"] == [0, 0.25, 0.5, 0.75]
    assert events[3][2] == 1.0


def test_no_density_is_no_score(outcome):
    record = outcome[0]["Silent"]
    assert record.status == "ok"
    assert record.score is None
    assert record.metrics["two_sample_auc"]["value"] < 0.65


def test_rows_outside_the_support_are_counted(outcome):
    score = outcome[0]["Outside"].score
    assert score["value"] == -math.inf
    assert score["n_outside"] == 2


@pytest.mark.parametrize(
    ("name", "reason", "trace"),
    [
        ("Raising", "RuntimeError: cannot learn this", "in fit"),
        ("Sleeping", "over its time limit of 6 s", "about to sleep"),
        ("Chatting", "over its time limit of 6 s", ""),
        ("Killed", "its process was killed by SIGKILL, perhaps for memory", ""),
        ("Leaving", "its process ended with status 3 and left no result", "last words"),
        ("Short", r"ValueError: sample(200) returned 199 rows", "in _sample"),
    ],
)
def test_every_failure_is_a_record(outcome, name, reason, trace):
    record = outcome[0][name]
    assert record.status == "failed"
    assert record.reason == reason
    assert trace in record.traceback
    if "time limit" in reason:
        assert 2 <= record.times["total"] < 60
    assert outcome[1].of(name)[-1] == ("finished", "failed")


def test_the_folder_holds_the_records_and_nothing_else(outcome):
    records, _, out = outcome
    assert {record.key for record in read(out)} == {record.key for record in records.values()}
    assert all(name.endswith(".json") for name in os.listdir(out))


def test_our_own_estimators_run(outcome):
    record = outcome[0]["Gaussian"]
    assert (record.status, record.family, record.score["kind"]) == ("ok", "classical", "exact")
    assert record.hyper_parameters["random_state"] == 0
