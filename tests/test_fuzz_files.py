"""Randomly modified files: each raises a ValueError that names the file, or loads with unchanged scores.

A third of the mutants get a valid digest, so that they reach the checks behind it. A failure names
the seed and the number of its mutant.

Other mutants lack an attribute of a codec, have one of another type, or have an array that is not
finite. A mutant that loads must be able to draw samples and score them.
"""

import collections
import copy
import gc
import json
import os
import pathlib
import struct
import time
import warnings

import numpy as np
import psutil
import pytest
import torch

import densekit
from densekit import files, guard, probes
from densekit.codecs import Schema, legacy

FOLDER = pathlib.Path(__file__).parent / "golden"
GOLDEN = sorted(FOLDER.glob("*.densekit"))
SECONDS, MEGABYTES = 5.0, 200
"""What one file may take: time, and growth of the process while all are loaded."""

WORDS = [
    "",
    "os.system",
    "Gaussian",
    "densekit.flows.nsf",
    "float64",
    "<U999999999",
    "real",
    "oak",
]
WORDS += [
    "datetime64[ns, dateutil//etc/passwd]",
    "../../x",
    "category[object]",
    "x" * 5000,
    "\x00",
]
NUMBERS = [0, -1, 1, 2, 3, 10**9, 2**63, 10**40, -(2**31), 0.0, 1e-300, 1e300, -0.5]
OTHERS = [None, True, [], {}, [[]] * 3, {"$float": "nan"}, {"$float": "inf"}, {"$tuple": []}]
OTHERS += [{"$dict": []}, {"$dict": [[{"$dict": []}, 1]]}, {"$array": "0:no", "shape": [1]}]
OTHERS += [{"$object": "Schema", "state": {"$dict": []}}, {"$object": "Popen", "state": None}]


def parts(raw):
    """The header of a safetensors file, as a dict, and the bytes behind it."""
    (size,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def joined(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def dtype_of(entry):
    """NumPy's name of a dtype of safetensors."""
    kind = {"F": "f", "I": "i", "U": "u", "B": "?"}[entry["dtype"][0]]
    return kind + ("" if kind == "?" else str(int(entry["dtype"][1:]) // 8))


def arrays_of(header, body):
    """The arrays of a file by name."""
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            a, b = entry["data_offsets"]
            arrays[name] = np.frombuffer(body[a:b], dtype_of(entry)).reshape(entry["shape"])
    return arrays


def sealed(header, body, spec):
    """The file with another specification and the matching digest."""
    spec = {**spec, "digest": files._digest(spec, arrays_of(header, body))}
    return joined({**header, "__metadata__": {"densekit": json.dumps(spec)}}, body)


def places(value, path=()):
    """The way to every value inside a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, dict | list):
            found += places(inner, (*path, key))
        else:
            found.append((*path, key))
    return found


def draw_value(rng, old):
    """Another value; often of the kind of the old one, which comes further."""
    kind = rng.integers(5)
    if kind == 0 and isinstance(old, int | float):
        return type(old)(old * rng.choice([2, -1, 1000])) + int(rng.integers(-1, 2))
    pool = [WORDS, NUMBERS, OTHERS][rng.integers(3)]
    if kind < 3 and isinstance(old, str):
        pool = WORDS
    elif kind < 3 and isinstance(old, int | float):
        pool = NUMBERS
    value = copy.deepcopy(pool[rng.integers(len(pool))])
    for _ in range(50 if kind == 4 else 0):
        value = [value]
    return value


def change(spec, rng):
    """One to three values of the specification replaced, removed or doubled."""
    spec = copy.deepcopy(spec)
    for _ in range(rng.integers(1, 4)):
        # The history is long and says nothing of the model.
        ways = [p for p in places(spec) if "history_" not in str(p)]
        *way, last = ways[rng.integers(len(ways))]
        inner = spec
        for key in way:
            inner = inner[key]
        action = rng.integers(6)
        if action == 0:
            del inner[last]
        elif action == 1 and isinstance(inner, list):
            inner.append(copy.deepcopy(inner[last]))
        else:
            inner[last] = draw_value(rng, inner[last])
    return spec


def mutate(raw, rng):
    """The name of a mutation, and the mutant."""
    data, kind = bytearray(raw), rng.integers(11)
    if kind == 0:
        for _ in range(rng.integers(1, 9)):
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        return "bits", bytes(data)
    if kind == 1:
        return "cut", bytes(data[: rng.integers(len(data))])
    if kind == 2:
        a, b, n = (int(v) for v in rng.integers(0, len(data), 3))
        data[a : a + n % 64] = data[b : b + n % 64]
        return "splice", bytes(data)
    if kind == 3:
        size = int(rng.choice([0, 1, 2**31, 2**63, 10**8 + 1, len(data), len(data) - 9]))
        return "header length", struct.pack("<Q", size) + raw[8:]
    header, body = parts(raw)
    if kind == 4:
        names = [n for n in header if n != "__metadata__"]
        entry = header[names[rng.integers(len(names))]]
        entry[rng.choice(["dtype", "shape", "data_offsets"])] = [
            "F32", "F16", "BF16", [10**12], [0], [], [2**63, 2], [0, 10**12], [8, 0],
        ][rng.integers(9)]  # fmt: skip
        return "tensor entry", joined(header, body)
    text = header["__metadata__"]["densekit"]
    if kind == 10:
        depth, pair = (
            int(rng.choice([500, 10**5])),
            ("[", "]") if rng.integers(2) else ('{"a":', "}"),
        )
        deep = pair[0] * depth + "1" + pair[1] * depth
        at = '"fitted": ' if rng.integers(2) else '"probe": '
        header["__metadata__"]["densekit"] = text.replace(at, f'{at}{deep}, "rest": ', 1)
        return "nesting", joined(header, body)
    spec = json.loads(text)
    if kind == 5:
        flipped = bytearray(body)
        for _ in range(rng.integers(1, 4)):
            flipped[rng.integers(len(body))] ^= 1 << int(rng.integers(8))
        return "weights, sealed", sealed(header, bytes(flipped), spec)
    spec = change(spec, rng)
    if kind == 6:
        header["__metadata__"]["densekit"] = json.dumps(spec)
        return "specification", joined(header, body)
    return "specification, sealed", sealed(header, body, spec)


def outcome(path, probe_of):
    """What came of loading: a word, or an AssertionError where it is neither of the two."""
    begin = time.process_time()
    estimator, refusal = None, ""
    try:
        estimator = densekit.load(path, device="cpu")
    except ValueError as error:
        refusal = str(error)
    if estimator is None:
        assert str(path) in refusal, f"the error does not name the file: {refusal}"
    elif (stored := probe_of(path)) is not None and "scores" in stored:
        old, content = files.read(path)["fitted"]["schema_"], {"rows": stored["rows"]}
        if isinstance(old, Schema) and isinstance(stored["rows"], np.ndarray):
            # Files from before atoms had an entry have probe rows of their own layout.
            new = legacy.with_atoms(old)
            if new is not old:
                content["rows"] = legacy.events_with_atoms(old, stored["rows"])
        found = probes._outcome(estimator, {**stored, **content})["scores"]
        tolerance = probes._TOLERANCE[estimator.dtype_]
        np.testing.assert_allclose(found, stored["scores"], tolerance, tolerance)
    took = time.process_time() - begin
    assert took < SECONDS, f"it took {took:.1f} s"
    return "loaded" if estimator is not None else "refused"


def fuzz(n, seed, folder):
    """Outcomes of n mutants, counted by mutation."""
    path, process = folder / "mutant.densekit", psutil.Process(os.getpid())
    originals = [p.read_bytes() for p in GOLDEN]
    for file in GOLDEN:  # What is imported and cached once is not the mutants'.
        densekit.load(file, device="cpu")
    gc.collect()
    before, counts, most = process.memory_info().rss, collections.Counter(), 0
    with warnings.catch_warnings():
        # Nonsense may overflow on its way to being refused.
        warnings.simplefilter("ignore")
        for i in range(n):
            rng = np.random.default_rng((seed, i))
            name, mutant = mutate(originals[rng.integers(len(originals))], rng)
            path.write_bytes(mutant)
            try:
                counts[name, outcome(path, lambda p: files.read(p)["probe"])] += 1
            except BaseException as error:
                raise AssertionError(f"mutant {(seed, i)} ({name}): {error!r}") from error
            most = max(most, process.memory_info().rss - before)
    assert most < MEGABYTES * 2**20, f"grew by {most / 2**20:.0f} MB"
    return counts


def test_five_hundred_mutants_are_refused_or_score_as_they_did(tmp_path):
    counts = fuzz(500, 1, tmp_path)
    kinds = {name for name, _ in counts}
    assert len(kinds) == 9
    assert all(counts[k, "refused"] for k in kinds)
    # Not all mutants are harmful: unread parts of a sealed specification may change.
    assert counts["specification, sealed", "loaded"] > 0


@pytest.mark.slow
def test_ten_thousand_mutants_are_refused_or_score_as_they_did(tmp_path):
    assert sum(fuzz(10_000, 2, tmp_path).values()) == 10_000


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("spline", "hidden_sizes"),
        ("spline", "n_transforms"),
        ("realnvp", "n_transforms"),
        ("vae", "latent_dim"),
        ("vae", "hidden_sizes"),
        ("gan", "latent_dim"),
        ("score", "hidden_sizes"),
        ("score", "n_ode_steps"),
        ("transformer", "n_layers"),
        ("transformer", "width"),
        ("kernel", "dequantisation_draws"),  # as files of older versions call it
    ],
)
def test_a_size_that_the_file_does_not_justify_costs_nothing(tmp_path, model, name):
    header, body = parts((FOLDER / f"{model}.densekit").read_bytes())
    spec = json.loads(header["__metadata__"]["densekit"])
    size = {"$tuple": [10**9, 10**9]} if name == "hidden_sizes" else 10**9
    built = dict(spec["fitted"]["$dict"]).get("built_with_", {"$dict": []})
    pairs = [p for p in spec["parameters"]["$dict"] + built["$dict"] if p[0] == name]
    assert pairs
    for pair in pairs:
        pair[1] = size
    path = tmp_path / "big.densekit"
    path.write_bytes(sealed(header, body, spec))
    begin, before = time.process_time(), psutil.Process().memory_info().rss
    with pytest.raises(ValueError, match=r"big.densekit: damaged, or tampered with \(OverBudget"):
        densekit.load(path, device="cpu")
    assert time.process_time() - begin < SECONDS
    assert psutil.Process().memory_info().rss - before < MEGABYTES * 2**20
    torch.zeros(2**23)  # The budget ends with the load.


# What is tampered with is in the way of its use, or refused.

DROPPED = object()
TYPES = [DROPPED, None, True, 7, -1, 0.5, "x", [], [1, 2], {"$tuple": []}, {"$tuple": ["real"]}]
TYPES += [{"$dict": []}, {"$float": "nan"}, {"$float": "inf"}]
STATES = ("codec_", "context_codec_", "schema_")


def original(name):
    """Header, bytes and specification of a golden file, and its fitted attributes by name."""
    header, body = parts((FOLDER / f"{name}.densekit").read_bytes())
    spec = json.loads(header["__metadata__"]["densekit"])
    return header, body, spec, dict(spec["fitted"]["$dict"])


def attributes(value, path=()):
    """The way to every attribute of the objects in a value: names, and places in lists."""
    found = []
    if isinstance(value, list):
        for i, inner in enumerate(value):
            found += attributes(inner, (*path, i))
    elif isinstance(value, dict) and "$object" in value:
        for name, inner in value["state"]["$dict"]:
            found += [(*path, name), *attributes(inner, (*path, name))]
    elif isinstance(value, dict) and "$tuple" in value:
        found += attributes(value["$tuple"], path)
    return found


def put(value, path, new):
    """Set or delete the attribute at the end of a path."""
    first, *rest = path
    if isinstance(first, int):
        inner = value["$tuple"] if isinstance(value, dict) else value
        return put(inner[first], rest, new)
    pairs = value["state"]["$dict"]
    (place,) = (i for i, pair in enumerate(pairs) if pair[0] == first)
    if rest:
        return put(pairs[place][1], rest, new)
    if new is DROPPED:
        del pairs[place]
    else:
        pairs[place][1] = copy.deepcopy(new)
    return None


def tampered(header, body, spec, name, path, new):
    """The file with one attribute put in place of another, wherever it is held twice, and sealed."""
    spec = copy.deepcopy(spec)
    fitted = spec["fitted"]["$dict"]
    held = dict(fitted)
    if not path:
        fitted[:] = [pair for pair in fitted if pair[0] != name]
        fitted += [] if new is DROPPED else [[name, copy.deepcopy(new)]]
    else:
        put(held[name], path, new)
        if name == "codec_" and path[0] == "schema" and path[1:]:
            put(held["schema_"], path[1:], new)
    return sealed(header, body, spec | hash_of(header, body, spec))


def hash_of(header, body, spec):
    """The hash of the schema, if it can be read."""
    try:
        schema = files._decode(dict(spec["fitted"]["$dict"])["schema_"], arrays_of(header, body))
        return {"schema_hash": files.digest(schema)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def use(path, name):
    """Whether a file loads: False by a ValueError that names it, an error where it is of no use."""
    try:
        estimator = densekit.load(path, device="cpu")
    except ValueError as refusal:
        if str(path) not in str(refusal):
            raise AssertionError(f"the error does not name the file: {refusal}") from refusal
        return False
    known = json.loads((FOLDER / f"{name}.json").read_text())
    context = None
    if estimator.context_codec_ is not None:
        rows = known.get("frame", {})
        context = {k: rows[k][0] for k in estimator.context_names_} if rows else known["array"][0]
    rows = estimator.sample(3, random_state=0, context=context)
    if hasattr(estimator, "score_samples"):
        apart = None if isinstance(context, dict) or context is None else [context] * 3
        assert not np.isnan(estimator.score_samples(rows, context=apart)).any()
    return True


@pytest.mark.parametrize("name", [path.stem for path in GOLDEN])
def test_a_file_that_lacks_an_attribute_of_a_codec_is_refused(tmp_path, name):
    header, body, spec, fitted = original(name)
    ways = [("codec_", way) for way in attributes(fitted["codec_"]) if len(way) == 1]
    context = attributes(fitted["context_codec_"])
    ways += [("context_codec_", way) for way in context if way[:-1] in ((), ("table",))]
    ways += [(attribute, ()) for attribute in guard._FITTED]
    path = tmp_path / "tampered.densekit"
    for state, way in ways:
        path.write_bytes(tampered(header, body, spec, state, way, DROPPED))
        lost = way[-1] if way else state
        later = lost in ("missing", "spike_share")  # which older files lack
        assert use(path, name) == later, lost


@pytest.mark.parametrize("name", [path.stem for path in GOLDEN])
def test_what_has_an_attribute_of_another_type_is_refused_or_of_use(tmp_path, name):
    tamper_at_random(tmp_path, name, 12, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in GOLDEN])
def test_whatever_attribute_is_of_another_type(tmp_path, name):
    tamper_at_random(tmp_path, name, 10_000, 1)


def tamper_at_random(folder, name, most, seed):
    header, body, spec, fitted = original(name)
    ways = [(state, way) for state in STATES for way in attributes(fitted[state])]
    ways += [(attribute, ()) for attribute in fitted if attribute != "history_"]
    every = [(state, way, new) for state, way in ways for new in TYPES]
    rng, path = np.random.default_rng(seed), folder / "tampered.densekit"
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in rng.permutation(len(every))[:most]:
            state, way, new = every[k]
            path.write_bytes(tampered(header, body, spec, state, way, new))
            try:
                refused += not use(path, name)
            except Exception as error:
                raise AssertionError(f"{name}: {state}{way} as {new!r}: {error!r}") from error
    assert refused > min(most, len(every)) / 2


@pytest.mark.parametrize("name", [path.stem for path in GOLDEN])
def test_an_array_that_is_not_finite_is_refused(tmp_path, name):
    header, body, spec, _ = original(name)
    rng, path = np.random.default_rng(0), tmp_path / "tampered.densekit"
    arrays = [n for n, entry in header.items() if n[0] != "_" and entry["dtype"][0] == "F"]
    arrays = [n for n in arrays if "probe" not in n and 0 not in header[n]["shape"]]
    assert arrays
    for array in rng.permutation(arrays)[:6]:
        a, b = header[array]["data_offsets"]
        values = np.frombuffer(body[a:b], dtype_of(header[array])).copy()
        values[rng.integers(len(values))] = rng.choice([np.nan, np.inf, -np.inf])
        changed = body[:a] + values.tobytes() + body[b:]
        path.write_bytes(sealed(header, changed, spec | hash_of(header, changed, spec)))
        with pytest.raises(ValueError, match="is not finite"):
            densekit.load(path, device="cpu")
