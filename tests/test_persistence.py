"""Files: what goes in comes out, a damaged file is an error, nothing in it runs."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import NotFittedError

import densekit
from densekit import Gaussian, NeuralSplineFlow


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    n = 120
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "k": rng.poisson(3, n),
            "c": pd.Categorical(rng.choice(["a", "b", "c"], n)),
            "when": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**6, n), "s"),
        }
    )


def test_a_flow_on_a_mixed_table_comes_back_whole(tmp_path, frame):
    est = NeuralSplineFlow(max_steps=20, hidden_sizes=(16,), random_state=0).fit(frame)
    est.save(tmp_path / "flow.densekit")
    again = densekit.load(tmp_path / "flow.densekit")
    assert again.get_params() == est.get_params()
    np.testing.assert_array_equal(again.score_samples(frame), est.score_samples(frame))
    pd.testing.assert_frame_equal(again.sample(9, random_state=3), est.sample(9, random_state=3))
    assert again.history_ == est.history_
    assert [p.name for p in tmp_path.iterdir()] == ["flow.densekit"]


def test_a_conditional_flow_comes_back_with_its_context(tmp_path, frame):
    est = NeuralSplineFlow(max_steps=20, hidden_sizes=(16,), random_state=0)
    est.fit(frame, context=["c"]).save(tmp_path / "flow.densekit")
    again = densekit.load(tmp_path / "flow.densekit")
    np.testing.assert_array_equal(again.score_samples(frame), est.score_samples(frame))


def test_pickles_hold_weights_and_not_the_last_batch(frame):
    est = NeuralSplineFlow(max_steps=20, hidden_sizes=(16,), random_state=0).fit(frame)
    before = len(pickle.dumps(est))
    est.score_samples(pd.concat([frame] * 50))
    assert len(pickle.dumps(est)) == before


def test_unfitted_estimators_are_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        Gaussian().save(tmp_path / "no")
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file(tmp_path, frame, monkeypatch):
    path = tmp_path / "g.densekit"
    est = Gaussian().fit(frame[["x"]])
    est.save(path)
    before = path.read_bytes()

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        est.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["g.densekit"]


def _spec(path):
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        return json.loads(file.metadata()["densekit"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "reads formats up to 1: update densekit"),
        ({"class": "os.system"}, "no estimator of densekit's"),
        ({"parameters": {"$dict": [["no_such", 1]]}}, "damaged, or tampered"),
        ({"fitted": {"$object": "Popen", "state": {"$dict": []}}}, "'Popen'"),
        ({"fitted": {"$array": "99:missing", "shape": [1]}}, "damaged, or tampered"),
    ],
)
def test_a_tampered_specification_is_refused_by_name(tmp_path, frame, change, message):
    path = tmp_path / "g.densekit"
    Gaussian().fit(frame[["x"]]).save(path)
    spec = {**_spec(path), **change}
    save_file(load_file(path), path, metadata={"densekit": json.dumps(spec)})
    with pytest.raises(ValueError, match=message):
        densekit.load(path)


@pytest.mark.parametrize("content", [b"", b"not a file of ours", b"\x00" * 100, b"\xff" * 64])
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a densekit file"):
        densekit.load(path)


def test_truncated_and_missing_files_are_refused(tmp_path, frame):
    path = tmp_path / "g.densekit"
    Gaussian().fit(frame[["x"]]).save(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="damaged"):
        densekit.load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        densekit.load(tmp_path / "nowhere")
    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="not one that densekit wrote"):
        densekit.load(path)


def test_a_class_of_the_users_own_is_not_saved(tmp_path, frame):
    Own = type("Own", (Gaussian,), {"__module__": "somewhere"})
    with pytest.raises(TypeError, match=r"a class of .somewhere.*pickle it instead"):
        Own().fit(frame[["x"]]).save(tmp_path / "own")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        Gaussian().fit(frame[["x"]]).save(tmp_path)
    with pytest.raises(FileNotFoundError, match="make it first"):
        Gaussian().fit(frame[["x"]]).save(tmp_path / "no" / "file")
