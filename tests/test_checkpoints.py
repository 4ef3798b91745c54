"""Checkpoints: an interrupted fit resumes to the result of an uninterrupted one."""

import json
import pathlib
import runpy
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import densekit
from densekit import GAN, VAE, RealNVP, checkpoints
from densekit.checkpoints import Checkpoint, Saved, digest, plain

KILLS = pathlib.Path(__file__).with_name("kills.py")
_kills = runpy.run_path(str(KILLS))
FAMILIES, make, outcome = _kills["FAMILIES"], _kills["make"], _kills["outcome"]
X = _kills["TABLE"]
SMALL = {"n_transforms": 2, "hidden_sizes": (8,), "max_steps": 40, "device": "cpu"}


class CutError(Exception):
    pass


@pytest.fixture(autouse=True)
def every_round(monkeypatch):
    """Small fits would be over before a second writing is worth its time."""
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)


def cut(estimator, rows, after):
    """Fit until the round that ends at step `after` has been saved."""

    def stop(state):
        if state.step > after:
            raise CutError

    callbacks = estimator.callbacks
    with pytest.raises(CutError):
        estimator.set_params(callbacks=(stop,)).fit(rows)
    return estimator.set_params(callbacks=callbacks)


def saved_steps(folder):
    with safe_open(str(folder / "fit.safetensors"), framework="numpy") as file:
        return json.loads(file.metadata()["densekit-fit"])["values"]["step"]


def change(folder, edit):
    """Rewrite a checkpoint with its header or tensors changed."""
    path = folder / "fit.safetensors"
    with safe_open(str(path), framework="pt") as file:
        header = json.loads(file.metadata()["densekit-fit"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    edit(header, tensors)
    save_file(tensors, path, metadata={"densekit-fit": json.dumps(header)})


# The same result as without a cut.


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_fit_that_was_cut_ends_as_one_that_was_not(family, tmp_path):
    whole = outcome(make(family)[0].fit(FAMILIES[family][1]))
    for after in (10, 30):
        folder = tmp_path / str(after)
        estimator, rows = make(family, checkpoint_dir=str(folder))
        cut(estimator, rows, after)
        assert saved_steps(folder) == after
        seen = []
        again, _ = make(
            family,
            checkpoint_dir=str(folder),
            callbacks=(lambda s, seen=seen: seen.append(s.step),),
        )
        again.fit(rows)
        assert seen[0] == after + 10
        assert outcome(again) == whole


def test_a_fit_may_be_cut_again_and_again(tmp_path):
    whole = outcome(make("VAE")[0].fit(X))
    estimator, _ = make("VAE", checkpoint_dir=str(tmp_path))
    for after in (10, 20, 30, 50):
        cut(estimator, X, after)
    assert outcome(estimator.fit(X)) == whole


def test_the_patience_that_was_used_up_counts(tmp_path):
    """The third evaluation without a better loss ends the fit, wherever it was cut."""
    settings = {"max_steps": 600, "learning_rate": 0.5, "ema_decay": 0.0, "patience": 3}
    whole = make("RealNVP", **settings)[0].fit(X)
    assert "no better held-out loss" in whole.history_["stop_reason"]
    end = whole.history_["step"][-2]
    cut_short, _ = make("RealNVP", **settings, checkpoint_dir=str(tmp_path))
    cut(cut_short, X, end)
    assert saved_steps(tmp_path) == end
    assert outcome(cut_short.fit(X)) == outcome(whole)


def test_the_seed_of_a_fit_without_one_is_kept(tmp_path):
    """Rows are held out by the seed: were it drawn anew, held-out rows would be trained on."""
    settings = {**SMALL, "random_state": None, "checkpoint_dir": str(tmp_path)}
    cut(RealNVP(**settings), X, 20)
    copy = (tmp_path / "fit.safetensors").read_bytes()
    one = RealNVP(**settings).fit(X)
    (tmp_path / "fit.safetensors").write_bytes(copy)
    assert outcome(RealNVP(**settings).fit(X)) == outcome(one)


def test_seconds_go_on(tmp_path):
    cut(RealNVP(**SMALL, random_state=0, checkpoint_dir=str(tmp_path)), X, 20)
    change(tmp_path, lambda header, _: header["values"].update(seconds=100.0))
    est = RealNVP(**SMALL, random_state=0, checkpoint_dir=str(tmp_path)).fit(X)
    assert est.history_["seconds"][-1] > 100


def test_a_context_and_frames_go_on(tmp_path):
    settings = {**SMALL, "random_state": 1}
    whole = RealNVP(**settings).fit(X, context=X[:, :1])
    estimator = RealNVP(**settings, checkpoint_dir=str(tmp_path))

    def stop(state):
        if state.step > 20:
            raise CutError

    with pytest.raises(CutError):
        estimator.set_params(callbacks=(stop,)).fit(X, context=X[:, :1])
    estimator.set_params(callbacks=()).fit(X, context=X[:, :1])
    np.testing.assert_array_equal(
        estimator.score_samples(X, context=X[:, :1]), whole.score_samples(X, context=X[:, :1])
    )


def test_checkpoints_change_nothing_in_a_fit(tmp_path):
    for family in ("RealNVP", "GAN"):
        with_one, rows = make(family, checkpoint_dir=str(tmp_path))
        assert outcome(with_one.fit(rows)) == outcome(make(family)[0].fit(rows))


def killed(*families, kills):
    command = [sys.executable, str(KILLS), "--kills", str(kills), "--families", *families]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(families)
    for line in lines:
        assert f": {kills} kills, " in line
        assert line.endswith(" 0 unlike, 0 left")


def test_a_killed_fit_ends_as_one_that_was_not():
    killed("RealNVP", "GAN", kills=1)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_twenty_kills_are_survived(family):
    killed(family, kills=20)


# When it is written, and when it goes.


def test_a_fit_that_ends_removes_its_checkpoint_and_the_next_begins_anew(tmp_path):
    (tmp_path / ".fit-killed.safetensors").write_bytes(b"half of one")
    seen = []
    est = RealNVP(**SMALL, checkpoint_dir=str(tmp_path / "new" / "folder"))
    est.fit(X)
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    est.set_params(checkpoint_dir=str(tmp_path), callbacks=(lambda s: seen.append(s.step),))
    est.fit(X + 1)
    assert seen == [10, 20, 30, 40]
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_a_crash_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    estimator = RealNVP(**SMALL, random_state=0, checkpoint_dir=str(tmp_path))
    cut(estimator, X, 20)
    before = (tmp_path / "fit.safetensors").read_bytes()

    def crash(path, data):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_bytes", crash)
        with pytest.raises(OSError, match="no space left"):
            estimator.fit(X)
    assert (tmp_path / "fit.safetensors").read_bytes() == before
    assert outcome(estimator.fit(X)) == outcome(RealNVP(**SMALL, random_state=0).fit(X))


def test_writing_takes_no_more_than_its_share_of_the_time(tmp_path, monkeypatch, clock):
    """With a clock that only the writing moves forward, by 1 second, the next comes 49 seconds later."""
    monkeypatch.setattr(checkpoints, "_SHARE", 1 / 49)
    checkpoint, written = Checkpoint(tmp_path, {}), []

    def state():
        clock.advance(1)
        written.append(clock.now)
        return Saved({}, {})

    start = clock.now
    for second in range(1, 151):
        clock.now = max(clock.now, start + second)
        checkpoint.write(state)
    assert len(written) == 3
    assert np.diff(written).min() >= 49


# Refused by name.


@pytest.fixture
def folder(tmp_path):
    cut(RealNVP(**SMALL, random_state=0, checkpoint_dir=str(tmp_path)), X, 20)
    return tmp_path


def refused(estimator, rows, *words, **fit):
    with pytest.raises(ValueError) as error:
        estimator.fit(rows, **fit)
    for word in (*words, "fit.safetensors"):
        assert word in str(error.value)
    assert not [k for k in vars(estimator) if k.endswith("_") and not k.startswith("_")]
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_transforms": 3}, ["n_transforms=2 there, 3 here"]),
        (
            {"learning_rate": 0.01, "max_steps": 50},
            ["learning_rate", "max_steps=40 there, 50 here"],
        ),
        ({"hidden_sizes": (8, 8)}, ["hidden_sizes=[8] there, [8, 8] here"]),
        ({"dtype": "float64"}, ["dtype='float32' there, 'float64' here", "other rows"]),
        ({"random_state": 1}, ["random_state=0 there, 1 here"]),
        ({"random_state": None}, ["random_state=0 there, None here"]),
        (
            {"support": ("interval", -1e4, 1e4)},
            ["support=None there, ['interval', -10000.0, 10000.0] here", "other rows of X"],
        ),
    ],
)
def test_other_hyper_parameters_are_refused_by_name(folder, changes, words):
    settings = {**SMALL, "random_state": 0, **changes, "checkpoint_dir": str(folder)}
    message = refused(RealNVP(**settings), X, *words)
    assert "remove the file or give another checkpoint_dir" in message


def test_another_scale_of_the_same_rows_is_other_data(folder):
    """Standardized they are equal, so that the events alone would not tell them apart."""
    estimator = RealNVP(**SMALL, random_state=0, checkpoint_dir=str(folder))
    message = refused(estimator, 2 * X, "other rows of X, or other columns")
    assert "there" not in message
    refused(estimator, X[:-1], "other rows of X")


def test_another_class_context_or_version_is_refused_by_name(folder):
    same = {k: v for k, v in SMALL.items() if k != "n_transforms"}
    vae = VAE(**same, random_state=0, checkpoint_dir=str(folder))
    refused(vae, X, "class='densekit.flows.realnvp.RealNVP' there", "vae.VAE' here")
    estimator = RealNVP(**SMALL, random_state=0, checkpoint_dir=str(folder))
    refused(estimator, X, "another context", context=X[:, :1])
    change(folder, lambda header, _: header.update(densekit="0.0.9"))
    refused(estimator, X, f"densekit='0.0.9' there, {densekit.__version__!r} here")
    change(folder, lambda header, _: header.update(format=99))
    refused(estimator, X, f"format=99 there, {checkpoints.FORMAT} here")


def test_other_weights_to_start_from_are_refused_by_name(tmp_path):
    first = RealNVP(**SMALL, random_state=0).fit(X)
    first.set_params(warm_start=True, checkpoint_dir=str(tmp_path), random_state=3)
    cut(first, X, 20)
    with pytest.raises(ValueError, match="other weights to start from"):
        RealNVP(**SMALL, random_state=1).fit(X).set_params(
            warm_start=True, checkpoint_dir=str(tmp_path), random_state=3
        ).fit(X)
    seen = []
    first.set_params(callbacks=(lambda s: seen.append(s.step),)).fit(X)
    assert seen == [30, 40]


def test_what_leaves_the_steps_alone_may_differ(folder):
    seen = []
    est = RealNVP(
        **SMALL,
        random_state=np.int64(0),
        checkpoint_dir=str(folder),
        verbose=False,
        callbacks=(lambda s: seen.append(s.step),),
    )
    est.fit(X)
    assert seen == [30, 40]


def _cut_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_header(path):
    raw = bytearray(path.read_bytes())
    raw[20] ^= 255
    path.write_bytes(bytes(raw))


DAMAGES = {
    "cut": lambda f: _cut_half(f / "fit.safetensors"),
    "empty": lambda f: (f / "fit.safetensors").write_bytes(b""),
    "header": lambda f: _flip_header(f / "fit.safetensors"),
    "foreign": lambda f: save_file({"a": torch.ones(2)}, f / "fit.safetensors"),
    "no values": lambda f: change(f, lambda header, _: header.pop("values")),
    "no parameters": lambda f: change(f, lambda header, _: header.pop("parameters")),
    "no step": lambda f: change(f, lambda header, _: header["values"].pop("step")),
    "seed": lambda f: change(f, lambda header, _: header["values"].update(seed="x")),
    "history": lambda f: change(f, lambda header, _: header["values"].update(history={"a": 1})),
    "no average": lambda f: change(f, lambda _, tensors: tensors.pop("average/3")),
    "no generator": lambda f: change(f, lambda _, tensors: tensors.pop("generators/cpu")),
    "shape": lambda f: change(f, lambda _, tensors: tensors.update({"best/0": torch.ones(3, 77)})),
    "moments": lambda f: change(
        f, lambda _, tensors: tensors.update({"moments0/0/exp_avg": torch.ones(3, 77)})
    ),
    "kind of moments": lambda f: change(
        f, lambda _, tensors: tensors.update({"moments0/0/other": torch.ones(())})
    ),
    "moments of none": lambda f: change(
        f, lambda _, tensors: tensors.update({"moments0/99/exp_avg": torch.ones(3)})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_an_error_with_a_remedy(folder, damage):
    damage(folder)
    estimator = RealNVP(**SMALL, random_state=0, checkpoint_dir=str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refused(estimator, X, "damaged checkpoint")
    assert "remove it to begin the fit anew" in message


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("file", "file/below"):
        with pytest.raises(
            ValueError, match=f"checkpoint_dir='.*{name}' is a file, or is inside one"
        ):
            GAN(max_steps=2, checkpoint_dir=str(tmp_path / name)).fit(X)


# What a fit is known by.


def test_a_digest_depends_on_dtype_and_shape():
    rows = torch.zeros(4, 2)
    others = [rows.double(), rows.reshape(2, 4), rows[:3], rows + 1, "zeros", None]
    digests = [digest([v]) for v in (rows, *others)]
    assert len(set(digests)) == len(digests)
    assert digest([rows]) == digest([rows.clone()])
    assert digest([rows.T]) != digest([rows])


def test_plain_values_are_the_same_in_every_process():
    assert plain(plain) == "densekit.checkpoints.plain"
    assert plain((np.float64(0.5), np.arange(2), {"a": (1,)})) == [0.5, [0, 1], {"a": [1]}]
    assert " at 0x" not in json.dumps(plain(RealNVP(**SMALL).fit(X).codec_))
