import dataclasses
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from densekit import formats
from densekit.bench import Run, Suite, read, run_suite, runner

# Estimators that keep the contract's public methods and nothing else, in a module that the runs'
# processes can import.
STUBS = '''
import os, pathlib, signal, time, warnings
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
        pathlib.Path(__file__).with_name("asleep").touch()
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


class Hungry(Honest):
    def fit(self, X, y=None):
        self.held = []
        while True:
            self.held.append(np.ones(2**20))
            time.sleep(0.002)


class Bare:
    """fit, score_samples and sample, and no more."""

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return TwoMoons().log_prob(X)

    def sample(self, n_samples):
        return TwoMoons().sample(n_samples, random_state=0), np.zeros(n_samples)


class Strange(Honest):
    """Its parameters cannot be pickled, its history is no mapping."""

    def __init__(self, random_state=None, max_time=None, verbose="auto", callbacks=(), shift=0.0):
        super().__init__(random_state, max_time, verbose, callbacks, shift)
        self.max_time = 7

    def get_params(self, deep=True):
        return {**super().get_params(deep), "shift": lambda: 0}

    def set_params(self, **given):
        for name, value in given.items():
            setattr(self, name, value)

    def fit(self, X, y=None):
        super().fit(X)
        self.history_ = [1, 2]
        self.shift = 0.0
        return self


class Short(Honest):
    def sample(self, n_samples=1, random_state=None):
        return super().sample(n_samples - 1)
'''
NAMES = (
    "Honest", "Silent", "Outside", "Raising", "Sleeping", "Chatting", "Killed", "Leaving", "Short",
    "Hungry", "Bare", "Strange",
)  # fmt: skip


class Notes:
    def __init__(self):
        self.events = []

    def kept(self, records, folder):
        self.events += [(record.run["label"], "kept") for record in records]

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
            metrics=("two_sample_auc", "energy_distance", "hpd"),
            memory_limit=1500.0 if name == "Hungry" else 8192.0,
            time_limit=1000.0 if name in ("Sleeping", "Chatting") else 1e9,
        )
        for name in NAMES
    ]  # fmt: skip
    runs.append(Run("breast_cancer", "Gaussian", "Gaussian", budget=7, time_limit=1e9))
    theirs = "sklearn.mixture:GaussianMixture"
    runs.append(Run("digits", theirs, "scikit-learn", n_test=50, time_limit=1e9))
    notes, now = Notes(), time.perf_counter

    def clock():
        """Once one run sleeps and another one reports, half an hour has gone by."""
        both = (folder / "asleep").exists() and len(notes.of("Chatting")) > 9
        return now() + 1800 * both

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "time", SimpleNamespace(perf_counter=clock))
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
        "overhead",
    }  # fmt: skip
    assert record.times["overhead"] >= 0
    assert 10 < record.memory["start"] <= record.memory["peak"] + 1
    assert record.environment["threads"] == 1
    assert record.environment["versions"]["numpy"] == np.__version__
    assert record.hyper_parameters["max_time"] == 7
    assert record.warnings == ["UserWarning: a word of warning"]
    assert record.history["stop_reason"] == "done"
    assert record.data["n_train"] == 4500


def test_a_run_leaves_what_it_drew(outcome):
    records, _, out = outcome
    record = records["Honest"]
    drawn = formats.read(out / record.samples)
    assert drawn.shape == (200, 2)
    assert formats.read(out / "data" / "two_moons.npy").shape == (400, 2)
    with np.load(out / "data" / "two_moons.density.npz") as grid:
        area = np.diff(grid["x"])[0] * np.diff(grid["y"])[0]
        assert np.exp(grid["log_density"]).sum() * area == pytest.approx(1, abs=0.03)
    frame = formats.read(out / records["Gaussian"].samples)
    assert list(frame.columns) == list(
        formats.read(out / "data" / "breast_cancer.parquet").columns
    )


def test_foreign_estimators_join(outcome):
    bare, theirs = outcome[0]["Bare"], outcome[0]["scikit-learn"]
    assert (bare.status, bare.score["kind"], bare.score["base_measure"]) == (
        "ok",
        *["unstated"] * 2,
    )
    assert bare.score["value"] == bare.truth["value"]
    # Images reach it as flat rows, and its draws are images again.
    assert (theirs.status, theirs.score["kind"], theirs.score["n_rows"]) == ("ok", "unstated", 50)
    assert formats.read(outcome[2] / theirs.samples).shape == (500, 8, 8)


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
        ("Sleeping", "over its time limit of 1000 s", "about to sleep"),
        ("Chatting", "over its time limit of 1000 s", ""),
        ("Hungry", "over its memory limit of 1500 MB", ""),
        ("Killed", "its process was killed by SIGKILL, perhaps for lack of memory", ""),
        ("Leaving", "its process ended with status 3 and without a result", "last words"),
        ("Short", r"ValueError: sample(200) returned 199 rows", "in _sample"),
    ],
)
def test_every_failure_is_a_record(outcome, name, reason, trace):
    record = outcome[0][name]
    assert record.status == "failed"
    assert record.reason.startswith(reason)
    assert trace in record.traceback
    if "time limit" in reason:
        assert record.times["total"] >= 1000
    assert outcome[1].of(name)[-1] == ("finished", "failed")


def test_the_folder_holds_what_it_says_and_nothing_else(outcome):
    records, _, out = outcome
    assert {record.key for record in read(out)} == {record.key for record in records.values()}
    assert set(os.listdir(out)) <= {
        "suite.json", "records.jsonl", "records.parquet", "samples", "data", ".lock"
    }  # fmt: skip
    drawn = {record.samples for record in records.values() if record.samples}
    assert {f"samples/{name}" for name in os.listdir(out / "samples")} == drawn


def test_what_an_estimator_says_of_itself_does_not_break_its_run(outcome):
    record = outcome[0]["Strange"]
    assert (record.status, record.history) == ("ok", None)
    assert "lambda" in record.hyper_parameters["shift"]


def test_our_own_estimators_run(outcome):
    record = outcome[0]["Gaussian"]
    assert (record.status, record.family, record.score["kind"]) == ("ok", "classical", "exact")
    assert record.hyper_parameters["random_state"] == 0


SHORT = {"n_samples": 50, "metrics": (), "time_limit": 1e6}
FAST = (
    Run("two_moons", "Gaussian", "first", **SHORT),
    Run("two_moons", "Gaussian", "second", **SHORT, seed=1),
)


def test_what_is_there_is_not_repeated(tmp_path):
    notes = [Notes() for _ in range(4)]
    run_suite(Suite("s", "", FAST[:1]), tmp_path, notes[0], jobs=1)
    first = (tmp_path / "records.jsonl").read_text()
    renamed = (dataclasses.replace(FAST[0], label="mine"), FAST[1])
    records = run_suite(Suite("s", "", renamed), tmp_path, notes[1], jobs=1)
    assert [record.run["label"] for record in records] == ["mine", "second"]
    assert notes[1].of("mine") == [("kept",)]
    assert ("finished", "ok") in notes[1].of("second")
    assert (tmp_path / "records.jsonl").read_text().startswith(first)
    run_suite(Suite("s", "", FAST), tmp_path, notes[2], jobs=1)
    assert notes[2].events == [("first", "kept"), ("second", "kept")]
    run_suite(Suite("s", "", FAST), tmp_path, notes[3], jobs=1, repeat="all")
    assert ("kept",) not in notes[3].of("first")
    assert len(read(tmp_path)) == 2


def test_a_failure_is_kept_until_it_is_asked_for_or_its_limits_change(tmp_path, monkeypatch):
    (tmp_path / "flaky_stub.py").write_text(
        "from densekit import Gaussian\n"
        "class Flaky(Gaussian):\n"
        "    def _fit(self, events, context):\n"
        "        raise ArithmeticError('no')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run = Run("two_moons", "flaky_stub:Flaky", "Flaky", n_samples=50)
    seen = []
    for limit, repeat in ((1e5, "none"), (1e5, "none"), (1e5, "failed"), (1e6, "none")):
        notes = Notes()
        suite = Suite("s", "", (dataclasses.replace(run, time_limit=limit),))
        run_suite(suite, tmp_path / "out", notes, jobs=1, repeat=repeat)
        seen.append(("kept",) in notes.of("Flaky"))
    assert seen == [False, True, False, False]


def test_a_full_disk_stops_the_suite_and_keeps_what_is_done(tmp_path, monkeypatch):
    real, calls = runner.append, []

    def append(record, folder):
        calls.append(record)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(record, folder)

    monkeypatch.setattr(runner, "append", append)
    with pytest.raises(OSError, match=r"the result of two_moons--.* cannot be written .*No space"):
        run_suite(Suite("s", "", FAST), tmp_path, Notes(), jobs=1)
    assert len(read(tmp_path)) == 1
    assert not multiprocessing.active_children()


def test_samples_that_find_a_full_disk_stop_the_suite_too(tmp_path):
    # A file where a folder should be: the samples cannot be kept, whatever the disk.
    (tmp_path / "samples").write_text("")
    with pytest.raises(
        OSError, match=r"the result of two_moons--.* cannot be written .* free some space"
    ):
        run_suite(Suite("s", "", FAST), tmp_path, Notes(), jobs=1)
    assert not (tmp_path / "records.jsonl").exists()


def test_a_disk_that_is_full_for_the_model_is_the_runs_result(tmp_path, monkeypatch):
    (tmp_path / "full_stub.py").write_text(
        "from densekit import Gaussian\n"
        "class Full(Gaussian):\n"
        "    def _fit(self, events, context):\n"
        "        raise OSError(28, 'No space left on device')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run = Run("two_moons", "full_stub:Full", "Full")
    (record,) = run_suite(Suite("s", "", (run,)), tmp_path / "out", Notes(), jobs=1)
    assert record.reason.endswith("No space left on device")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_stops_a_run_and_the_next_call_goes_on(tmp_path):
    (tmp_path / "bench_stubs.py").write_text(STUBS)
    (tmp_path / "slow.toml").write_text(
        "baselines = false\nbudget = 7\nseeds = [3]\nn_samples = 200\ntime_limit = 3000\n"
        + '[[runs]]\ndata = "two_moons"\nmodel = "bench_stubs:Honest"\n'
        + '[[runs]]\ndata = "two_moons"\nmodel = "bench_stubs:Sleeping"\nbudget = 1\n'
    )
    command = [sys.executable, "-m", "densekit", "bench", "slow.toml", "--jobs", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as going:  # fmt: skip
        assert "Honest" in going.stderr.readline()
        # The second run is in its fit now, and would sleep until its time limit.
        while not (tmp_path / "asleep").exists():
            assert going.poll() is None
            time.sleep(0.05)
        going.send_signal(signal.SIGINT)
        _, err = going.communicate()
    assert going.returncode == 130
    assert "1 of 2 runs are kept" in err
    assert "the same command continues" in err
    (record,) = read(tmp_path / "densekit-results" / "slow")
    assert record.run["label"] == "Honest"
