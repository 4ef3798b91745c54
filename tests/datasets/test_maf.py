"""The recipes of the MAF suite, each rule on raw rows of our own that need it."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile

import numpy as np
import pandas as pd
import pytest

from densekit import Gaussian, datasets
from densekit.datasets import catalog, fetch, maf


def numbered(n, d):
    """Rows with different values: x[i, j] = i plus a little noise."""
    rng = np.random.default_rng(d)
    return np.arange(n)[:, None] + 0.2 * rng.random((n, d))


def test_power_drops_reactive_power_and_intensity_and_shuffles():
    raw = numbered(1000, 8)
    raw[:, [1, 3]] = np.nan
    parts = maf.prepare_power(raw)
    assert [len(p) for p in parts] == [810, 90, 100]
    assert all(p.shape[1] == 6 and p.dtype == np.float32 for p in parts)
    every = np.vstack(parts)
    assert np.isfinite(every).all()
    order = every[:, 5].argsort()  # time has no noise: back in the order of the file
    assert np.abs(np.diff(order)).mean() > 100
    assert np.corrcoef(every[order].T).min() > 0.99
    shuffled = np.arange(1000)
    np.random.RandomState(42).shuffle(shuffled)
    assert np.array_equal(every[:, 5].argsort().argsort(), shuffled)


def test_power_blurs_each_column_by_its_resolution():
    raw = np.zeros((4000, 8))
    raw[:2000] = 1
    # Two values a column: their distance in units of the noise gives its width.
    every = np.vstack(maf.prepare_power(raw))
    for column, width in enumerate((0.001, 0.01, 1, 1, 1, 0)):
        x = np.sort(every[:, column].astype(float))
        low, high = x[:2000], x[2000:]
        step = high.mean() - low.mean()
        assert np.ptp(low) / step == pytest.approx(width, abs=0.05 * width + 1e-6)


def test_standardizing_knows_nothing_of_the_test_part():
    raw = numbered(1000, 8)
    parts = maf.prepare_power(raw)
    both = np.vstack(parts[:2]).astype(float)
    assert both.mean(0) == pytest.approx(np.zeros(6), abs=1e-6)
    assert both.std(0) == pytest.approx(np.ones(6), rel=1e-6)
    moved = numbered(1000, 8)
    n = np.arange(1000)
    np.random.RandomState(42).shuffle(n)
    moved[n[-100:]] += 1e6
    assert np.array_equal(maf.prepare_power(moved)[0], parts[0])


def test_power_file_is_read_with_times_and_without_missing_rows():
    header, row = b"Date;Time;A;R;V;I;S1;S2;S3\n", b"1/2/2007;01:30:30;1;2;3;4;5;6;7\n"
    text = header + row + b"1/2/2007;00:00:00;?;?;?;?;?;?;\n"
    assert maf.read_power(text).tolist() == [[1, 2, 3, 4, 5, 6, 7, 90.5]]


def test_gas_drops_the_first_of_correlated_sensors_until_none_is_left():
    rng = np.random.default_rng(0)
    n = 2000
    a, b, c = rng.normal(size=(3, n))
    near = 0.1
    columns = {
        "Time": np.arange(n), "Meth": a, "Eth": b,
        "s1": a, "s2": b, "s3": a + near * c, "s4": c, "s5": b + near * c, "s6": -a,
    }  # fmt: skip
    train, valid, test = maf.prepare_gas(pd.DataFrame(columns))
    assert [len(p) for p in (train, valid, test)] == [1620, 180, 200]
    every = np.vstack([train, valid, test]).astype(float)
    raw = np.column_stack([columns[s] for s in ("s3", "s4", "s5", "s6")])
    # Not shuffled, standardized by all rows, and a correlation of -1 is no reason.
    assert every == pytest.approx((raw - raw.mean(0)) / raw.std(0, ddof=1), abs=1e-5)


def test_gas_keeps_the_last_of_a_group():
    rng = np.random.default_rng(0)
    a = rng.normal(size=500)
    group = {f"s{i}": a + 0.01 * rng.normal(size=500) for i in range(4)}
    frame = pd.DataFrame({"Time": a, "Meth": a, "Eth": a, **group})
    every = np.vstack(maf.prepare_gas(frame)).astype(float)
    last = group["s3"]
    assert every[:, 0] == pytest.approx((last - last.mean()) / last.std(ddof=1), abs=1e-5)
    assert every.shape[1] == 1


def collisions(n, seed, foreign):
    """A file of HEPMASS: label, three columns (one with a repeated minimum), perhaps a fourth."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    x[:, 1] = np.maximum(x[:, 1], -0.5)  # the smallest value many times: dropped
    x[:, 2] = np.minimum(x[:, 2], 0.5)  # the largest many times: kept, as the program does
    frame = pd.DataFrame(x, columns=["f0", "f1", "f2"])
    frame.insert(0, "label", (np.arange(n) % 2).astype(float))
    return frame.assign(mass=9.0) if foreign else frame


def test_hepmass_takes_class_one_and_columns_without_a_repeated_minimum():
    raw, raw_test = collisions(2000, 0, False), collisions(600, 1, True)
    train, valid, test = maf.prepare_hepmass(raw, raw_test)
    assert [p.shape for p in (train, valid, test)] == [(900, 2), (100, 2), (300, 2)]
    signal = raw[raw["label"] == 1]
    mean, scale = (getattr(signal[["f0", "f2"]], f)().to_numpy() for f in ("mean", "std"))
    both = np.vstack([train, valid])
    assert both == pytest.approx((signal[["f0", "f2"]].to_numpy() - mean) / scale, abs=1e-5)
    signal = raw_test[raw_test["label"] == 1]
    assert test == pytest.approx((signal[["f0", "f2"]].to_numpy() - mean) / scale, abs=1e-5)


@pytest.mark.parametrize(("repeats", "n_columns"), [(5, 2), (6, 1)])
def test_a_minimum_may_occur_five_times(repeats, n_columns):
    raw = np.random.default_rng(0).normal(size=(500, 2))
    raw[:repeats, 1] = -9
    assert maf.prepare_miniboone(raw)[0].shape[1] == n_columns


def test_miniboone_drops_rows_below_minus_100_and_does_not_shuffle():
    raw = numbered(1011, 3)
    raw[::92, 0] = -999
    good = raw[raw[:, 0] >= -100]
    assert len(good) == 1000
    train, valid, test = maf.prepare_miniboone(raw)
    assert [len(p) for p in (train, valid, test)] == [810, 90, 100]
    fit = good[:900]
    expected = (good - fit.mean(0)) / fit.std(0)
    assert np.vstack([train, valid, test]) == pytest.approx(expected, abs=1e-5)
    again = maf.prepare_miniboone(good)
    assert all(map(np.array_equal, again, (train, valid, test)))


@pytest.fixture
def archive(monkeypatch, tmp_path):
    """The archive of the suite with small files in it, in a folder as DENSEKIT_DATA has it."""
    rng = np.random.default_rng(0)
    sensors = pd.DataFrame(rng.normal(size=(500, 5)), columns=["Time", "Meth", "Eth", "s1", "s2"])
    members = {
        "power/data.npy": npy(numbered(1000, 8)),
        "gas/ethylene_CO.pickle": pickled(sensors),
        "hepmass/1000_train.csv": collisions(2000, 0, False).to_csv(index=False).encode(),
        "hepmass/1000_test.csv": collisions(600, 1, True).to_csv(index=False).encode(),
        "miniboone/data.npy": npy(numbered(500, 4)),
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(f"data/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    packed = gzip.compress(stream.getvalue())
    (tmp_path / "maf_suite").mkdir()
    (tmp_path / "maf_suite/data.tar.gz").write_bytes(packed)
    monkeypatch.setenv("DENSEKIT_DATA", str(tmp_path))
    known = catalog._catalog()
    entry = known["files"]["maf_suite/data.tar.gz"]
    md5 = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    files = {"maf_suite/data.tar.gz": {**entry, "hash": f"md5:{md5}"}}
    monkeypatch.setattr(catalog, "_catalog", lambda: {**known, "files": files})


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


class _AsInPandas019(pickle._Pickler):
    """Writes the classes below under the names that they had in 2017, and strings of Python 2."""

    def save_string(self, obj):
        data = obj.encode("latin1") if isinstance(obj, str) else obj
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(obj)

    dispatch = pickle._Pickler.dispatch | {bytes: save_string, str: save_string}

    def save_global(self, obj, name=None):
        if not hasattr(obj, "old"):
            return super().save_global(obj, name)
        module, name = obj.old
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        return self.memoize(obj)


class _Index:
    old = ("pandas.core.index", "_new_Index")

    def __init__(self, **data):
        self.data = data

    def __reduce__(self):
        return _Index, (_IndexClass, self.data)


class _IndexClass:
    old = ("pandas.core.index", "Index")


class _Manager:
    old = ("pandas.core.internals", "BlockManager")

    def __init__(self, frame):
        columns = np.array(list(frame.columns), object)
        axes = [_Index(data=columns, name=None), _Index(start=0, stop=len(frame), step=1)]
        # Two blocks of one table: every other column, and the rest as a list of places.
        rest = np.arange(1, len(columns), 2)
        places = [slice(0, len(columns), 2), rest]
        values = [np.ascontiguousarray(frame.to_numpy()[:, place].T) for place in places]
        blocks = [{"values": v, "mgr_locs": p} for v, p in zip(values, places, strict=True)]
        items = [_Index(data=columns[place], name=None) for place in places]
        self.state = axes, values, items, {"0.14.1": {"axes": axes, "blocks": blocks}}

    def __getstate__(self):
        return self.state


class _Frame:
    old = ("pandas.core.frame", "DataFrame")

    def __init__(self, frame):
        self.frame = frame

    def __getstate__(self):
        return {"_data": _Manager(self.frame), "_typ": "dataframe", "_metadata": []}


def pickled(frame):
    """A table as the authors' pandas pickled it."""
    stream = io.BytesIO()
    _AsInPandas019(stream, protocol=2).dump(_Frame(frame))
    return stream.getvalue()


def test_a_table_of_2017_is_read_without_pandas_own_unpickling():
    frame = pd.DataFrame(numbered(40, 5), columns=["Time", "Meth", "Eth", "R1", "R2"])
    data = pickled(frame)
    assert b"cpandas.core.index\n_new_Index\n" in data
    with pytest.raises(ImportError, match=r"pandas\.core\.index"):
        pickle.loads(data)
    pd.testing.assert_frame_equal(fetch.frame(data), frame)


def test_pickled_code_of_a_table_does_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    with pytest.raises(ValueError, match=r"contains posix\.mkdir, .*; the file was not loaded"):
        fetch.frame(pickle.dumps({"_data": Bomb()}))
    # Nor what pandas itself would run: eval, read_pickle.
    evil = b"cpandas\neval\n(S'1 + 1'\ntR."
    with pytest.raises(ValueError, match="not a pickled DataFrame"):
        fetch.frame(evil)
    assert fetch._FrameUnpickler(io.BytesIO(evil)).load().args == ("1 + 1",)
    for name in (b"builtins\neval", b"__builtin__\neval", b"os\nsystem", b"pandasos\nsystem"):
        with pytest.raises(ValueError, match="the file was not loaded"):
            fetch.frame(b"c" + name + b"\n(S'1'\ntR.")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize(
    ("name", "shape"),
    [("power", (810, 6)), ("gas", (405, 2)), ("hepmass", (900, 2)), ("miniboone", (405, 4))],
)
def test_each_set_is_read_from_the_archive(name, shape):
    data = datasets.load(name)
    assert data.train.shape == shape
    assert data.name == name
    assert len(data.reference) > 10
    assert np.isfinite(Gaussian().fit(data.train).score(data.test))


def striped(height, width, value):
    """An image whose gray level is the row and column of each pixel, and the image."""
    return (value + 2 * np.arange(height)[:, None] + 3 * np.arange(width)).astype(np.uint8)


def test_patches_come_from_all_places_of_all_images():
    images = [striped(9, 12, 0), striped(12, 9, 100)]
    x = maf.patches(images, 60_000, np.random.RandomState(0))  # more than a block
    assert x.shape == (60_000, 63)
    assert x.dtype == np.float32
    # Without noise a patch is the plane 2 r + 3 c less its mean: the noise is that of a pixel.
    row, column = np.divmod(np.arange(63), 8)
    plane = (2 * row + 3 * column + 0.5) / 256
    mean = (2 * 3.5 + 3 * 3.5 + 0.5) / 256
    noise = x - (plane - mean)
    assert noise.mean(0) == pytest.approx(np.zeros(63), abs=1e-4)
    assert noise.var() == pytest.approx(63 / 64 / 12 / 256**2, rel=0.01)
    assert np.abs(noise).max() < 1 / 256


def test_every_place_is_as_likely_as_another():
    image = np.zeros((9, 10), np.uint8)
    image[0, 0] = 255  # in the corner of one of the 2 x 3 places
    x = maf.patches([image], 6000, np.random.RandomState(0))
    assert (x[:, 0] > 0.5).mean() == pytest.approx(1 / 6, abs=0.02)


def test_two_days_of_the_power_file_go_through_the_recipe(local):
    data = local("power_partial")
    both = np.vstack([data.train, data.valid]).astype(float)
    assert both.mean(0) == pytest.approx(np.zeros(6), abs=1e-5)
    assert both.std(0) == pytest.approx(np.ones(6), rel=1e-5)
    minutes = np.vstack([both, data.test.for_scoring()])[:, 5]
    assert len(np.unique(minutes.round(4))) == 24 * 60


def test_redrawn_patches_score_as_the_paper_has_it(local):
    local("bsds300")
    data = maf.bsds300((40_000, 500, 20_000))
    score = Gaussian().fit(data.train).score(data.test)
    # 96.67 +- 0.25 there, from a million patches; patches of one image are alike, so a few
    # thousand of each are enough, but the images drawn weigh on the mean.
    assert score == pytest.approx(datasets.info("bsds300").published[0].value, abs=1.5)
    assert np.abs(data.train.mean(0)).max() < 0.01
