"""Files changed at random: each is refused by a ValueError that names it, or loads and scores as it did.

A third of the mutants get a new digest, as from someone who knows the format: those come past the
digest to the checks behind it. A mutant is known by its seed and number, which a failure names.
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
from densekit import files, probes

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


def sealed(header, body, spec):
    """The file with another specification, and the digest that goes with it."""
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            a, b = entry["data_offsets"]
            dtype = {"F": "f", "I": "i", "U": "u", "B": "?"}[entry["dtype"][0]]
            width = "" if dtype == "?" else str(int(entry["dtype"][1:]) // 8)
            arrays[name] = np.frombuffer(body[a:b], dtype + width).reshape(entry["shape"])
    spec = {**spec, "digest": files._digest(spec, arrays)}
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
        found = probes._outcome(estimator, stored)["scores"]
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
        ("kernel", "dequantisation_draws"),
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
