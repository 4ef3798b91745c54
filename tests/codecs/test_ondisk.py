"""Rows in a file: read in pieces and batches, with the result of the same rows in memory."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from densekit import VAE, Gaussian, RealNVP
from densekit.codecs import TableCodec
from densekit.containers import PIECE, RowsOnDisk

SMALL = {"max_steps": 20, "device": "cpu", "random_state": 3, "hidden_sizes": (8,)}


@pytest.fixture(scope="module")
def rows():
    """More than two pieces; an offset that float32 sums would lose, and a column of one value."""
    n = 2 * PIECE + 77
    noise = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    return np.column_stack([1000 + noise[:, 0], np.exp(noise[:, 1]), np.full(n, 7), noise[:, 2]])


@pytest.fixture(scope="module")
def on_disk(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(path, rows)
    return np.load(path, mmap_mode="r")


def weights(estimator):
    return torch.cat([v.double().flatten() for v in estimator.module_.state_dict().values()])


@pytest.mark.parametrize("support", [None, {1: "positive"}, {0: ("interval", 990.0, 1010.0)}])
def test_a_codec_learns_from_pieces_what_it_learns_from_the_whole(rows, on_disk, support):
    from_pieces = TableCodec(support=support).fit(RowsOnDisk.of(on_disk)).schema
    assert from_pieces.columns == TableCodec(support=support).fit(rows).schema.columns


def test_location_and_scale_of_pieces_are_those_of_all_rows(rows, on_disk):
    """Against NumPy, on the whole."""
    columns = TableCodec().fit(RowsOnDisk.of(on_disk)).schema.columns
    assert [c.kind for c in columns] == ["real", "real", "constant", "real"]
    for j in (0, 1, 3):
        assert columns[j].loc == pytest.approx(rows[:, j].mean(), rel=1e-13, abs=1e-15)
        assert columns[j].scale == pytest.approx(rows[:, j].std(), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_pieces_of_extreme_scales_join_without_overflow(scale):
    y = scale * np.random.default_rng(0).uniform(-1, 1, (3 * PIECE, 1))
    column = TableCodec().fit(y).schema.columns[0]
    assert column.loc / scale == pytest.approx((y / scale).mean(), abs=1e-12)
    assert column.scale / scale == pytest.approx((y / scale).std(), rel=1e-12)


@pytest.mark.parametrize("kind", [RealNVP, VAE])
def test_a_fit_on_disk_is_the_fit_in_memory_bit_for_bit(kind, rows, on_disk):
    disk, memory = (kind(**SMALL).fit(X) for X in (on_disk, rows))
    assert torch.equal(weights(disk), weights(memory))
    assert disk.history_["valid_loss"] == memory.history_["valid_loss"]
    assert np.array_equal(disk.score_samples(on_disk[:50]), memory.score_samples(rows[:50]))
    assert len(pickle.dumps(disk)) < 100_000


def test_a_slice_of_a_map_is_read_from_its_own_place(rows, on_disk, tmp_path):
    part = RowsOnDisk.of(on_disk[100:][50:90])
    assert np.array_equal(part[:], rows[150:190])
    assert np.array_equal(part[np.array([3, 0])], rows[[153, 150]])
    plain = tmp_path / "plain"
    rows.tofile(plain)
    mapped = np.memmap(plain, rows.dtype, "r", offset=8 * 4 * 9, shape=(20, 4))
    assert np.array_equal(RowsOnDisk.of(mapped[1:])[:], rows[10:29])


def test_a_file_that_is_cut_meanwhile_is_named(rows, tmp_path):
    np.save(tmp_path / "rows.npy", rows)
    on_disk = RowsOnDisk.of(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    os.truncate(tmp_path / "rows.npy", 10_000)
    for index in (slice(600, 700), np.array([650])):
        with pytest.raises(ValueError, match=r"rows.npy ends before row 6.. of 32845"):
            on_disk[index]


def test_what_is_not_plain_rows_of_a_file_is_read_whole(rows, on_disk, tmp_path):
    changed = np.load(on_disk.filename, mmap_mode="c")
    for X in (rows, changed, on_disk[:, :2], on_disk[::2], on_disk[0], rows.tolist()):
        assert RowsOnDisk.of(X) is None
    changed[:, 3] *= 2
    assert RealNVP(**SMALL).fit(changed).schema_.columns[3].scale == pytest.approx(2, rel=0.02)
    settings = {"device": "cpu", "random_state": 0}  # folds are drawn
    whole, parts = Gaussian(**settings).fit(rows), Gaussian(**settings).fit(on_disk)
    assert whole.score(rows[:9]) == parts.score(rows[:9])


def test_a_missing_value_in_the_last_piece_is_found(rows, tmp_path):
    bad = rows.copy()
    bad[-1, 3] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    with pytest.raises(ValueError, match="Column 'x3' contains NaN: 1 missing value"):
        RealNVP(**SMALL).fit(np.load(tmp_path / "bad.npy", mmap_mode="r"))


def test_a_value_outside_the_support_in_the_last_piece_is_found(rows, tmp_path):
    bad = rows.copy()
    bad[-1, 1] = -1.0
    np.save(tmp_path / "bad.npy", bad)
    with pytest.raises(ValueError, match=r"support of column 1 is 'positive', but 1 value\(s\)"):
        RealNVP(support={1: "positive"}, **SMALL).fit(np.load(tmp_path / "bad.npy", mmap_mode="r"))


def test_a_fit_on_disk_that_was_cut_goes_on(rows, on_disk, tmp_path):
    class CutError(Exception):
        pass

    def stop(state):
        if state.step > 100:
            raise CutError

    settings = {**SMALL, "max_steps": 200, "checkpoint_dir": str(tmp_path)}
    with pytest.raises(CutError):
        RealNVP(callbacks=(stop,), **settings).fit(on_disk)
    with pytest.raises(ValueError, match="other rows of X"):
        RealNVP(**settings).fit(on_disk[1:])
    resumed = RealNVP(**settings).fit(on_disk)
    settings["checkpoint_dir"] = None
    assert torch.equal(weights(resumed), weights(RealNVP(**settings).fit(on_disk)))


@pytest.mark.parametrize("dtype", ["i2", "u8", "?"])
def test_integers_and_kinds_of_a_map_are_read_in_pieces(dtype, tmp_path):
    X = np.random.default_rng(0).poisson(1, (2 * PIECE + 77, 2)).astype(dtype)
    np.save(tmp_path / "rows.npy", X)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    kinds = {1: "categorical"}
    assert RowsOnDisk.of(mapped) is not None
    disk, memory = (RealNVP(kinds=kinds, **SMALL).fit(rows) for rows in (mapped, X))
    assert disk.schema_.columns == memory.schema_.columns
    assert torch.equal(weights(disk), weights(memory))


MEASURE = """
import resource, sys
import numpy as np
from densekit import RealNVP

path, megabytes = sys.argv[1], int(sys.argv[2])
D = 64
rows = np.lib.format.open_memmap(path, "w+", np.float32, (megabytes * 2**20 // (4 * D), D))
del rows
rng = np.random.default_rng(0)
with open(path, "r+b") as file:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    for _ in range(megabytes // 8):
        file.write(rng.normal(3, 2, (2**21,)).astype(np.float32).tobytes())
settings = dict(hidden_sizes=(32,), n_transforms=2, device="cpu", random_state=0)
RealNVP(max_steps=10, **settings).fit(rng.normal(size=(2000, D)))
X = np.load(path, mmap_mode="r")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
est = RealNVP(max_steps=200, **settings).fit(X)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
assert abs(est.schema_.columns[5].loc - 3) < 0.02, est.schema_.columns[5]
"""


@pytest.mark.parametrize(
    ("megabytes", "allowed"),
    [(256, 100), pytest.param(2048, 400, marks=pytest.mark.slow)],
)
def test_peak_memory_of_a_fit_on_disk(megabytes, allowed, tmp_path):
    """The greatest resident size, pages of the file included, in MiB above that of a fit of 2,000
    rows: what is in memory is 16 bytes a row of order, and a piece or a batch."""
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "rows.npy"), str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert (after - before) / 1024 < allowed
