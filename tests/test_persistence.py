"""Files: round trips, errors for damaged files, and no execution of their contents."""

import copy
import importlib
import json
import pathlib
import pickle
import random
import sys

import joblib
import numpy as np
import pandas as pd
import polars as pl
import psutil
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.exceptions import NotFittedError

import densekit
from densekit import (
    GAN,
    Gaussian,
    MaskedAutoregressiveFlow,
    NeuralSplineFlow,
    NGram,
    NoiseConditionalScore,
    RealNVP,
    files,
    probes,
)
from densekit.budget import Budget
from densekit.runtime import seeded


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


def _rows(kind):
    """Forty rows in a container."""
    rng = np.random.default_rng(0)
    words = rng.choice(["a", "é", "\u4e2d"], 40)
    columns = {"x": rng.normal(size=40), "c": words.tolist(), "n": rng.integers(-9, 9, 40)}
    frame = pd.DataFrame(columns)
    days = pd.date_range("2026-01-01", periods=40, tz="Europe/Berlin").to_series(index=frame.index)
    typed = frame.assign(
        when=days,
        level=pd.Categorical(rng.choice([1.5, 2.5], 40), [0.5, 1.5, 2.5], ordered=True),
        flag=rng.random(40) < 0.5,
        some=pd.array(rng.integers(0, 5, 40), dtype="Int64"),
        name=pd.array(words, dtype="string"),
        fixed=7,
    )
    dated = frame.assign(when=days.dt.tz_localize(None), flag=typed["flag"])
    made = {
        "pandas": lambda: typed,
        "polars": lambda: pl.from_pandas(dated).with_columns(
            pl.col("c").cast(pl.Enum(["a", "é", "\u4e2d", "z"])), day=pl.col("when").dt.date()
        ),
        "arrow": lambda: pa.Table.from_pandas(dated).append_column(
            "dictionary", pa.array(columns["c"]).dictionary_encode()
        ),
        "strings": lambda: np.stack([words, rng.choice(["u", "v"], 40)], 1),
        "objects": lambda: np.array(frame, dtype=object),
        "float16": lambda: rng.normal(size=(40, 3)).astype(np.float16),
        "gray": lambda: rng.integers(0, 256, (40, 3, 4), dtype=np.uint8),
        "color": lambda: rng.uniform(size=(40, 2, 2, 3)),
        "mask": lambda: rng.random((40, 3, 3)) < 0.5,
    }
    return made[kind]()


@pytest.mark.parametrize(
    "kind",
    ["pandas", "polars", "arrow", "strings", "objects", "float16", "gray", "color", "mask"],
)
def test_rows_of_every_container_come_back(tmp_path, kind):
    X, path = _rows(kind), tmp_path / "g.densekit"
    est = Gaussian(random_state=0).fit(X)
    est.save(path)
    assert files.read(path)["probe"] is not None
    again = densekit.load(path, device="cpu")
    np.testing.assert_allclose(again.score_samples(X), est.score_samples(X), rtol=1e-12)
    one, other = (e.sample(9, random_state=1) for e in (est, again))
    assert type(one) is type(other) is type(X)
    assert one.equals(other) if hasattr(one, "equals") else np.array_equal(one, other)


@pytest.mark.parametrize("tokens", ["character", "byte", "bpe"])
@pytest.mark.parametrize("kind", [list, pd.Series, pl.Series, pa.array, np.array])
def test_texts_of_every_container_come_back(tmp_path, tokens, kind):
    X, path = kind(["ab é", "ba", "a \u4e2d", "bb"] * 3), tmp_path / "n.densekit"
    est = NGram(order=2, tokens=tokens, random_state=0).fit(X)
    est.save(path)
    again = densekit.load(path, device="cpu")
    np.testing.assert_array_equal(again.score_samples(X), est.score_samples(X))
    assert type(again.sample(3)) is type(X)


def test_a_tokenizer_that_fit_does_not_make_is_refused(tmp_path):
    path = tmp_path / "n.densekit"
    NGram(order=2, tokens="bpe").fit(["ab", "ba", "abba"]).save(path)

    def padded(spec):
        codec = dict(spec["fitted"]["$dict"])["codec_"]["state"]["$dict"]
        pair = next(p for p in codec if p[0] == "tokenizer")
        pair[1] = json.dumps({**json.loads(pair[1]), "padding": {"strategy": {"Fixed": 10**9}}})
        return spec

    _rewrite(path, padded)
    with pytest.raises(ValueError, match="tokenizer is not of the kind that fit trains"):
        densekit.load(path)


def _rewrite(path, change, seal=True, **arrays):
    """The file with parts of its specification and arrays changed, by someone who knows the format."""
    spec, held = files._contents(path)
    change = change(spec) if callable(change) else change
    spec, held = {**spec, **change}, {**held, **arrays}
    if seal:
        spec["digest"] = files._digest(spec, held)
    save_file(held, path, metadata={"densekit": json.dumps(spec)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "reads formats up to 2: update densekit"),
        ({"format": 1}, "format 1, which was never released"),
        ({"format": "2"}, "its format is no number"),
        ({"class": "os.system"}, "no estimator of densekit's"),
        ({"module": "densekit.bench.foreign"}, "no estimator of densekit's"),
        ({"class": "run", "module": "subprocess"}, r"pass allow=\('subprocess',\)"),
        ({"parameters": {"$dict": [["no_such", 1]]}}, "no_such"),
        ({"parameters": {"$dict": [["shrinkage", -1]]}}, "shrinkage must be at least 0"),
        ({"fitted": {"$object": "Popen", "state": {"$dict": []}}}, "'Popen'"),
        ({"fitted": {"$array": "99:missing", "shape": [1]}}, "damaged, or tampered"),
        ({"fitted": {"$dict": [["score_samples", 1]]}}, "no attribute that fit sets"),
        ({"fitted": {"$dict": [["distribution_", 1]]}}, "no attribute that fit sets"),
        ({"schema_hash": "0" * 64}, "hash of its schema"),
        ({"probe": {"$dict": []}}, "damaged, or tampered"),
    ],
)
def test_a_tampered_specification_is_refused_by_name(tmp_path, frame, change, message):
    path = tmp_path / "g.densekit"
    Gaussian().fit(frame[["x"]]).save(path)
    _rewrite(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        densekit.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_what_is_changed_without_a_new_digest_is_found(tmp_path, frame):
    path = tmp_path / "g.densekit"
    Gaussian().fit(frame[["x"]]).save(path)
    _rewrite(path, {"densekit": "9.9"}, seal=False)
    with pytest.raises(ValueError, match="its digest is not that of its contents"):
        densekit.load(path)
    Gaussian().fit(frame[["x"]]).save(path)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1  # The last bit of the last array: no score would tell.
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="its digest is not that of its contents"):
        densekit.load(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda w: w + np.float32(0.1), "probe rows score .* and scored .* when it was saved"),
        (lambda w: w * np.float32(np.nan), "net.last is not finite"),
        (lambda w: w[..., :-1], "size mismatch"),
        (lambda w: w[0], "size mismatch"),
        (lambda w: w.astype(np.float64), "last is float64 in the file and float32 in the model"),
        (lambda w: w.astype(np.int32), "last is int32 in the file"),
    ],
    ids=["moved", "nan", "narrow", "flat", "double", "integer"],
)
def test_weights_that_are_not_those_that_were_saved_are_refused(tmp_path, frame, wrong, message):
    path = tmp_path / "flow.densekit"
    RealNVP(max_steps=5, hidden_sizes=(8,), random_state=0).fit(frame[["x", "k"]]).save(path)
    _, arrays = files._contents(path)
    name = next(n for n in arrays if "weights_" in n and n.endswith("net.last"))
    changed = wrong(arrays[name])

    def shaped(spec):
        text = json.dumps(spec).replace(
            json.dumps({"$array": name, "shape": list(arrays[name].shape)}),
            json.dumps({"$array": name, "shape": list(changed.shape)}),
        )
        return json.loads(text)

    _rewrite(path, shaped, **{name: np.ascontiguousarray(changed)})
    with pytest.raises(ValueError, match=message):
        densekit.load(path)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("density_kind_", "exact", "density_kind_ is 'exact'"),
        ("base_measure_", "lebesgue", "base_measure_ is 'lebesgue'"),
        ("dtype_", "float16", "dtype_ is 'float16'"),
        ("context_names_", "c", "context_names_ is 'c'"),
        ("codec_", None, "codec_ is None"),
    ],
)
def test_a_state_that_no_fit_leaves_is_refused(tmp_path, frame, attribute, value, message):
    path = tmp_path / "g.densekit"
    Gaussian().fit(frame).save(path)

    def change(spec):
        for pair in spec["fitted"]["$dict"]:
            if pair[0] == attribute:
                pair[1] = value
        return spec

    _rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        densekit.load(path)


@pytest.mark.parametrize("claim", [2**63 - 1, 2**40, 10**8 - 1, 200])
def test_a_header_that_says_it_is_longer_than_the_file_costs_no_memory(tmp_path, claim):
    path = tmp_path / "bomb"
    path.write_bytes(claim.to_bytes(8, "little") + b"{" + b" " * 100)
    before = psutil.Process().memory_info().rss
    with pytest.raises(ValueError, match="bomb: not a densekit file"):
        densekit.load(path)
    assert psutil.Process().memory_info().rss - before < 2**24


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


OWN = """
import pathlib
from densekit import Gaussian
pathlib.Path(__file__).with_suffix(".ran").touch()
class Own(Gaussian):
    pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's with an estimator, which leaves a trace where it is imported."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


def test_a_class_of_the_users_own_loads_only_where_its_module_is_allowed(tmp_path, frame, own):
    X, path = frame[["x"]], tmp_path / "own.densekit"
    est = own.Own().fit(X)
    est.save(path)
    del sys.modules[own.__name__]
    trace = tmp_path / f"{own.__name__}.ran"
    trace.unlink()
    for allow in ((), ("elsewhere",)):
        with pytest.raises(ValueError, match=rf"if you trust that module.*'{own.__name__}',"):
            densekit.load(path, allow=allow)
    with pytest.raises(TypeError, match="must be a collection of module names"):
        densekit.load(path, allow=own.__name__)
    assert own.__name__ not in sys.modules
    assert not trace.exists()
    again = densekit.load(path, allow=[own.__name__])
    np.testing.assert_array_equal(again.score_samples(X), est.score_samples(X))
    _rewrite(path, {"class": "pathlib"})
    with pytest.raises(ValueError, match="pathlib is no estimator"):
        densekit.load(path, allow=[own.__name__])


def test_a_file_of_densekits_own_classes_imports_nothing_that_it_names(tmp_path, frame, own):
    path = tmp_path / "g.densekit"
    Gaussian().fit(frame[["x"]]).save(path)
    del sys.modules[own.__name__]
    _rewrite(path, {"module": own.__name__})
    with pytest.raises(ValueError, match="is not densekit's"):
        densekit.load(path)
    assert own.__name__ not in sys.modules


def test_what_cannot_be_saved_says_why(tmp_path, frame):
    Own = type("Own", (Gaussian,), {"__module__": "somewhere"})
    with pytest.raises(TypeError, match=r"Own cannot be found as somewhere.Own"):
        Own().fit(frame[["x"]]).save(tmp_path / "own")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        Gaussian().fit(frame[["x"]]).save(tmp_path)
    with pytest.raises(FileNotFoundError, match="make it first"):
        Gaussian().fit(frame[["x"]]).save(tmp_path / "no" / "file")
    with pytest.raises(ValueError, match="shrinkage must be at least 0"):
        Gaussian().fit(frame[["x"]]).set_params(shrinkage=-1.0).save(tmp_path / "bad")
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_scored_is_saved_without_probe_rows(tmp_path, frame, monkeypatch):
    path, est = tmp_path / "g.densekit", Gaussian().fit(frame[["x"]])
    with monkeypatch.context() as m:
        m.setattr(
            Gaussian, "_sample_events", lambda *_: (_ for _ in ()).throw(ValueError("never"))
        )
        with pytest.warns(UserWarning, match="without probe rows.*ValueError: never"):
            est.save(path)
    assert densekit.load(path).score(frame[["x"]]) == est.score(frame[["x"]])


def test_a_model_whose_score_is_dear_is_saved_without_probe_rows(tmp_path, frame, monkeypatch):
    est = NoiseConditionalScore(hidden_sizes=(8,), max_steps=2, n_ode_steps=4, random_state=0)
    est.fit(frame[["x"]]).set_params(n_ode_steps=10)
    est.save(tmp_path / "s.densekit")  # What was built keeps its 4 steps.
    assert files.read(tmp_path / "s.densekit")["probe"]["operations"] < 5000
    monkeypatch.setattr(probes, "_MOST_OPERATIONS", 1000)
    est.set_params(n_ode_steps=10**7, dequantization_draws=10**9).fit(frame[["x"]])
    with pytest.warns(UserWarning, match="without probe rows.*more than 1000 operations"):
        est.save(tmp_path / "s.densekit")


def test_what_a_probe_may_allocate_grows_with_the_model(tmp_path, frame, monkeypatch):
    monkeypatch.setattr(probes, "_MOST_ENTRIES", 1000)
    path = tmp_path / "m.densekit"
    NeuralSplineFlow(max_steps=2, random_state=0).fit(frame).save(path)
    assert densekit.load(path).density_kind_ == "lower_bound"
    assert files.read(path)["probe"]["scores"].shape == (4,)


def test_hyper_parameters_set_after_fit_leave_the_fitted_model_as_it_is(tmp_path, frame):
    est = NeuralSplineFlow(n_transforms=2, hidden_sizes=(16,), max_steps=9, random_state=0)
    expected = est.fit(frame).score_samples(frame)
    est.set_params(hidden_sizes=(5, 5), n_transforms=7, coupling=True)
    est.save(tmp_path / "flow.densekit")
    for twin in (
        densekit.load(tmp_path / "flow.densekit"),
        pickle.loads(pickle.dumps(est)),
        copy.deepcopy(est),
    ):
        with pytest.warns(UserWarning, match="n_transforms=7 was set after fit"):
            scores = twin.score_samples(frame)
        np.testing.assert_array_equal(scores, expected)
        assert twin.get_params()["hidden_sizes"] == (5, 5)
        assert twin.get_params() == est.get_params()
        refitted = twin.fit(frame)
        assert len(pickle.loads(pickle.dumps(refitted)).module_.state_dict()) > 0
        assert len(refitted.module_.state_dict()) != len(est.module_.state_dict())


def test_copies_are_as_large_as_the_weights(tmp_path, frame):
    est = NeuralSplineFlow(max_steps=20, random_state=0).fit(frame)
    est.score_samples(pd.concat([frame] * 50))
    weights = sum(t.numel() * t.element_size() for t in est.module_.state_dict().values())
    assert weights > 300_000
    joblib.dump(est, tmp_path / "flow.joblib")
    est.save(tmp_path / "flow.densekit")
    sizes = [len(pickle.dumps(copy.deepcopy(est))), len(pickle.dumps(est))]
    sizes += [(tmp_path / name).stat().st_size for name in ("flow.joblib", "flow.densekit")]
    assert max(sizes) < 1.2 * weights + 20_000
    assert min(sizes) > weights
    twin = joblib.load(tmp_path / "flow.joblib")
    np.testing.assert_array_equal(twin.score_samples(frame), est.score_samples(frame))


@pytest.mark.parametrize("kind", [Gaussian, RealNVP, GAN])
def test_a_file_from_a_gpu_loads_on_a_cpu(tmp_path, frame, kind):
    settings = {} if kind is Gaussian else {"hidden_sizes": (8,), "max_steps": 5}
    est, path = kind(**settings, random_state=0).fit(frame), tmp_path / "m.densekit"
    est.save(path)

    def change(spec):
        pairs = [p for p in spec["fitted"]["$dict"] if p[0] == "device_"]
        assert len(pairs) == 1
        pairs[0][1] = "cuda:0"
        return spec

    _rewrite(path, change)
    again = densekit.load(path, device="cpu")
    assert again.device_ == "cpu"
    drawn = [e.sample(5, random_state=0) for e in (est, again)]
    pd.testing.assert_frame_equal(*drawn)


def test_saving_and_loading_leave_global_generators_alone(tmp_path, frame):
    models = [
        Gaussian(),
        RealNVP(hidden_sizes=(8,), max_steps=5),
        GAN(hidden_sizes=(8,), max_steps=5),
    ]
    texts = NGram(order=2).fit(["ab", "ba", "abba"])
    for est in [*(m.fit(frame) for m in models), texts]:
        before = (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        )
        est.save(tmp_path / "m.densekit")
        densekit.load(tmp_path / "m.densekit")
        after = (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        )
        assert before == after


GOLDEN = sorted((pathlib.Path(__file__).parent / "golden").glob("*.json"))


def golden(path):
    """The content of a model's golden file, the model, and its rows."""
    record = json.loads(path.read_text())
    est = densekit.load(path.with_suffix(".densekit"))
    if "frame" in record:
        return record, est, pd.DataFrame(record["frame"])
    rows = np.array(record["array"])
    return record, est, rows.tolist() if est.schema_.modality == "text" else rows


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_files_of_earlier_releases_score_as_they_did(path):
    record, est, rows = golden(path)
    if "scores" not in record:
        assert not hasattr(est, "score_samples")
        drawn = est.sample(8, context=rows[list(est.context_names_)], random_state=0)
        assert list(drawn.columns) == list(rows.columns)
        return
    scores = est.score_samples(rows)
    assert str(scores.dtype) == record["dtype"]
    rtol = {"float32": 1e-4, "float64": 1e-8}[record["dtype"]]
    np.testing.assert_allclose(scores, record["scores"], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_log_prob_is_the_same_with_gradients_and_without(path):
    """To the last bit where one compiled pass computes it."""
    record, est, rows = golden(path)
    if "scores" not in record or not hasattr(est, "module_"):
        return
    X, context = est._check_rows(rows[:7], None, reset=False)
    events = est._events(est.codec_.encode(X)[0])
    given = est._encode_context(context, len(events))

    def log_prob():
        with seeded(0):
            return est._over_typed(given).log_prob(events)

    est.module_.requires_grad_(True)
    loud = log_prob()
    assert loud.requires_grad
    with torch.no_grad():
        quiet = log_prob()
    compiled = isinstance(est, NeuralSplineFlow | RealNVP | MaskedAutoregressiveFlow)
    within = (0, 0) if compiled else (2e-4, 2e-5)
    torch.testing.assert_close(quiet, loud, atol=within[0], rtol=within[1])


def test_there_is_a_golden_file_of_every_model():
    held = {files.read(p.with_suffix(".densekit"))["class"] for p in GOLDEN}
    assert held == set(densekit.all_estimators())


@pytest.mark.parametrize(
    "index",
    [
        (torch.rand(5, 6) > 0.5,),
        (torch.tensor([0, 1, 2]),),
        (slice(None), torch.tensor([[1, 2], [3, 4]])),
        (torch.tensor([0, 1]), slice(None), torch.tensor([[3], [4]])),
        (slice(None), torch.ones(6, 7, dtype=torch.bool)),
        (torch.ones(5, dtype=torch.bool), slice(None), torch.tensor([0])),
    ],
)
def test_an_indexed_result_is_never_larger_than_the_budget_assumes(index):
    x = torch.zeros(5, 6, 7)
    with Budget(10, x[index].numel() - 1), pytest.raises(ValueError, match=r"aten\.index"):
        x[index]
    with Budget(100, x.numel()):
        x[index]


@pytest.mark.parametrize(
    "grow",
    [
        lambda x: torch.nn.functional.embedding(torch.zeros(8, 30, dtype=torch.long), x),
        lambda x: x.index_select(1, torch.zeros(50, dtype=torch.long)),
        lambda x: x.repeat(2, 30),
        lambda x: torch.cat([x] * 20),
        lambda x: torch.stack([x] * 20),
        lambda x: torch.nn.functional.pad(x, (50, 3, 1, 0)),
        lambda x: torch.nn.functional.pad(x, (-2, 40)),
    ],
)
def test_what_grows_is_counted_before_it_is_made(grow):
    x = torch.zeros(3, 5)
    size = grow(x).numel()
    with Budget(10, size - 1), pytest.raises(ValueError, match=f"makes up to {size:.4g}"):
        grow(x)
    with Budget(10, size):
        grow(x)


def test_masked_diffusion_is_saved_with_its_probe_rows(tmp_path, recwarn):
    model = densekit.MaskedDiffusion(max_steps=1, random_state=0).fit(["some text", "more"] * 20)
    model.save(tmp_path / "model")
    assert not recwarn
    densekit.load(tmp_path / "model")
