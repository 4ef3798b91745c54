"""Rows of Parquet files: read by row groups, with the result of the same rows in memory."""

import os
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch

from densekit import VAE, Gaussian, RealNVP, TransformerLanguageModel, formats
from densekit.codecs import TableCodec, ondisk
from densekit.containers import PIECE, ParquetRows, in_memory

SMALL = {"max_steps": 20, "device": "cpu", "random_state": 3, "hidden_sizes": (8,)}
N = 2 * PIECE + 77


@pytest.fixture(scope="module")
def table():
    """A column of each kind; rare values occur only in the last rows."""
    rng = np.random.default_rng(0)
    late = np.arange(N) > N - 9
    frame = pd.DataFrame(
        {
            "number": 1000 + rng.normal(size=N).astype(np.float32),
            "length": np.exp(rng.normal(size=N)),
            "count": 2**60 + rng.poisson(9, N),
            "far": np.where(late, 2**64 - 2, 2**64 - 9).astype(np.uint64),
            "flag": rng.integers(4, 6, N),
            "no flag": np.where(late, 2, rng.integers(0, 2, N)),
            "truth": rng.random(N) < 0.2,
            "word": np.where(late, "aardvark", rng.choice(["u", "v", "日"], N)),
            "sort": pd.Categorical(rng.choice(["u", "v"], N), categories=["v", "never", "u"]),
            "instant": pd.Timestamp("2020")
            + pd.to_timedelta(rng.integers(0, 10**9, N), unit="ms"),
            "zone": pd.date_range("2020", periods=N, freq="min", tz="Europe/Berlin"),
            "always": "x",
            "nullable": pd.array(rng.poisson(3, N), dtype="Int16"),
        }
    )
    days = pa.array(rng.integers(0, 900, N).astype("datetime64[D]"))
    return pa.Table.from_pandas(frame).append_column("day", days)


@pytest.fixture(scope="module")
def path(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "rows.parquet"
    pq.write_table(table, path, row_group_size=7001)
    return path


@pytest.fixture(scope="module")
def frame(path):
    return formats.read(path)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The temporary folder, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def written(folder, table, **options):
    path = folder / "table.parquet"
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)
    return path


def weights(estimator):
    return torch.cat([v.double().flatten() for v in estimator.module_.state_dict().values()])


def same_codec(one, other):
    assert one.schema.columns == other.schema.columns
    assert np.array_equal(one.schema.edges, other.schema.edges)
    assert (one.container, one.dtype, one.labels) == (other.container, other.dtype, other.labels)


# ------------------------------------------------------------------------------- as in memory


def as_one_file(table, folder):
    return pq.ParquetFile(written(folder, table, row_group_size=7001))


def as_one_group(table, folder):
    return pq.ParquetFile(written(folder, table), buffer_size=2**16, pre_buffer=False)


def as_two_files(table, folder):
    for start, name in ((0, "a"), (10_001, "b")):
        stop = 10_001 if not start else N
        pq.write_table(table.slice(start, stop - start), folder / f"{name}.parquet")
    return ds.dataset(folder)


@pytest.mark.parametrize("given", [as_one_file, as_one_group, as_two_files])
def test_a_codec_learns_from_row_groups_what_it_learns_from_the_frame(
    given, table, frame, tmp_path
):
    kinds = {"count": "real", "no flag": "categorical", "flag": "integer"}
    support = {"length": "positive", "nullable": ("interval", 0, 99)}
    rows = ParquetRows.of(given(table, tmp_path))
    for options in ({}, {"kinds": kinds, "support": support}):
        same_codec(TableCodec(**options).fit(rows), TableCodec(**options).fit(frame))


def test_row_groups_give_the_frame_in_pieces(path, frame):
    with pq.ParquetFile(path) as file:
        pieces = list(ParquetRows.of(file).pieces())
        pd.testing.assert_frame_equal(ParquetRows.of(file).read(), frame)
    assert [len(piece) for piece in pieces] == [PIECE, PIECE, 77]
    pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), frame)


@pytest.mark.parametrize("kind", [RealNVP, VAE])
def test_a_fit_by_row_groups_is_the_fit_in_memory_bit_for_bit(kind, path, frame):
    memory = kind(**SMALL).fit(frame)
    with pq.ParquetFile(path) as file:
        disk = kind(**SMALL).fit(file)
        assert torch.equal(weights(disk), weights(memory))
        assert disk.history_["valid_loss"] == memory.history_["valid_loss"]
        scores, errors = disk.score_samples(file, return_std=True)
        assert disk.score(file) == memory.score(frame)
    there = memory.score_samples(frame, return_std=True)
    assert scores.dtype == there[0].dtype
    assert np.array_equal(scores, there[0])
    assert np.array_equal(errors, there[1])
    drawn = disk.sample(50, random_state=0)
    pd.testing.assert_frame_equal(drawn, memory.sample(50, random_state=0))
    assert drawn.dtypes.equals(frame.dtypes)


def test_location_and_scale_of_row_groups_are_those_of_all_rows(path, frame):
    """Against NumPy and Python's integers, on the whole."""
    with pq.ParquetFile(path) as file:
        columns = {c.name: c for c in TableCodec().fit(ParquetRows.of(file)).schema.columns}
    assert columns["length"].loc == pytest.approx(frame["length"].mean(), rel=1e-13)
    assert columns["length"].scale == pytest.approx(frame["length"].std(ddof=0), rel=1e-12)
    whole = [int(v) - 2**60 for v in frame["count"]]
    assert columns["count"].origin == 2**60 + round(sum(whole) / N)
    assert columns["count"].scale == pytest.approx(np.std(whole), rel=1e-12)
    seconds = (frame["instant"] - pd.Timestamp("2020")).dt.total_seconds()
    assert columns["instant"].scale == pytest.approx(seconds.std(ddof=0), rel=1e-9)
    assert columns["always"].kind == "constant"
    assert columns["no flag"].kind == "integer"
    assert columns["flag"].levels == (4, 5)
    assert columns["word"].levels == ("aardvark", "u", "v", "日")
    assert columns["sort"].levels == ("v", "never", "u")


def test_dictionaries_that_differ_by_row_group_are_one_list_of_levels(tmp_path):
    groups = [["b", "a", "b"], ["c", "a", "c"], ["b", "b", "d"]]
    schema = pa.schema([("c", pa.dictionary(pa.int32(), pa.string())), ("x", pa.float64())])
    with pq.ParquetWriter(tmp_path / "t.parquet", schema) as writer:
        for i, words in enumerate(groups):
            x = np.arange(3.0) + i
            columns = {"c": pa.array(words).dictionary_encode(), "x": x}
            writer.write_table(pa.table(columns, schema=schema))
    with pq.ParquetFile(tmp_path / "t.parquet") as file:
        # One row at a time, since otherwise the first piece would hold all groups.
        rows = ParquetRows.of(file)
        rows.pieces = lambda: (rows.read().iloc[i : i + 3] for i in (0, 3, 6))
        codec = TableCodec().fit(rows)
        tables = [file.read_row_group(i).to_pandas() for i in range(3)]
        rows.pieces = lambda: iter(tables)
        unlike = TableCodec().fit(rows)
    assert codec.schema.columns[0].levels == unlike.schema.columns[0].levels == tuple("bacd")
    # Shares with one imagined row each: b 4 + 1, a 2 + 1, c 2 + 1, d 1 + 1.
    assert unlike.schema.edges[0].tolist() == pytest.approx([0, 5 / 13, 8 / 13, 11 / 13, 1])


def test_a_float16_column_and_an_index_are_read_as_pandas_reads_them(tmp_path):
    X = pd.DataFrame({"h": np.arange(9, dtype=np.float16), "x": np.arange(9.0) ** 2})
    X.index = [f"row {i}" for i in range(9)]
    with pq.ParquetFile(written(tmp_path, pa.Table.from_pandas(X))) as file:
        pd.testing.assert_frame_equal(ParquetRows.of(file).read(), X)
        assert RealNVP(**SMALL).fit(file).feature_names_in_.tolist() == ["h", "x"]


def test_folders_that_say_a_column(tmp_path):
    for year in (2019, 2020):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(pa.table({"x": [1.0, 2, 4]}), tmp_path / f"year={year}" / "t.parquet")
    X = in_memory(ds.dataset(tmp_path, partitioning="hive"))
    assert X["year"].tolist() == [2019] * 3 + [2020] * 3
    assert X["x"].tolist() == [1, 2, 4] * 2


# ------------------------------------------------------------------------------- contexts


def test_context_columns_of_the_file(path, frame):
    names = ["word", "number"]
    memory = RealNVP(**SMALL).fit(frame, context=names)
    with pq.ParquetFile(path) as file:
        disk = RealNVP(**SMALL).fit(file, context=names)
        assert torch.equal(weights(disk), weights(memory))
        assert np.array_equal(disk.score_samples(file), memory.score_samples(frame))
        rest, given = frame.drop(columns=names), frame[names]
        with pytest.raises(ValueError, match="context names the columns 'wrod'"):
            RealNVP(**SMALL).fit(file, context=["wrod"])
    drawn = disk.sample(4, context={"word": "u", "number": 1000.0}, random_state=0)
    assert list(drawn.columns) == list(frame.columns)
    apart = disk.score_samples(rest[:9], context=given[:9])
    assert np.array_equal(apart, memory.score_samples(frame[:9]))


def test_a_context_that_is_not_in_the_file(tmp_path):
    rng = np.random.default_rng(0)
    C = rng.normal(size=(N, 1))
    X = pa.table({"x": C[:, 0] + rng.normal(size=N), "y": rng.normal(size=N)})
    other = tmp_path / "context.parquet"
    pq.write_table(pa.table({"c": C[:, 0]}), other)
    memory = RealNVP(**SMALL).fit(X.to_pandas(), context=C)
    with pq.ParquetFile(written(tmp_path, X)) as file:
        disk = RealNVP(**SMALL).fit(file, context=C)
        assert torch.equal(weights(disk), weights(memory))
        for context in (C, C.tolist(), [[0.5]]):
            there = memory.score_samples(X.to_pandas(), context=context)
            assert np.array_equal(disk.score_samples(file, context=context), there)
        with pq.ParquetFile(other) as contexts:
            there = memory.score_samples(X.to_pandas(), context=C)
            assert np.array_equal(disk.score_samples(file, context=contexts), there)
        for use in (disk.fit, disk.score_samples):
            with pytest.raises(ValueError, match=rf"context has 5 rows and X has {N}"):
                use(file, context=C[:5])
        with pytest.raises(ValueError, match="fitted with a context and is used without one"):
            disk.score_samples(file)


# ------------------------------------------------------------------------------- read whole


def test_models_that_do_not_learn_in_batches_read_the_file(tmp_path):
    X = np.random.default_rng(0).normal(size=(300, 2))
    settings = {"device": "cpu", "random_state": 0}
    path = written(tmp_path, {"a": X[:, 0], "b": X[:, 1]}, row_group_size=70)
    with pq.ParquetFile(path) as file:
        est = Gaussian(**settings).fit(file)
        there = Gaussian(**settings).fit(pd.DataFrame(X, columns=["a", "b"]))
        assert np.array_equal(est.score_samples(file), there.score_samples(ds.dataset(path)))


def test_further_fits_read_the_file(tmp_path):
    X = np.random.default_rng(0).normal(size=(300, 2))
    with pq.ParquetFile(written(tmp_path, {"a": X[:, 0], "b": X[:, 1]})) as file:
        ends = []
        for rows in (file, file.read().to_pandas()):
            est = RealNVP(**SMALL, warm_start=True).fit(rows).fit(rows)
            ends.append(weights(est.partial_fit(rows)))
    assert torch.equal(*ends)


# ------------------------------------------------------------------------------- the spool


class Stop(BaseException):
    """As an interrupt is."""


def test_the_encoded_rows_lie_in_the_temporary_folder_while_the_fit_lasts(
    path, temporary, monkeypatch
):
    seen = []

    def look(state):
        seen.extend(f.stat().st_size for f in temporary.rglob("*") if f.is_file())
        return True

    with pq.ParquetFile(path) as file:
        est = RealNVP(callbacks=(look,), **SMALL).fit(file)
    assert seen == [N * est.schema_.n_dims * 4]
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_of_a_fit_that_fails(error, path, temporary):
    def fail(state):
        assert list(temporary.iterdir())
        raise error

    est = RealNVP(callbacks=(fail,), **SMALL)
    with pq.ParquetFile(path) as file, pytest.raises(error):
        est.fit(file)
    assert not list(temporary.iterdir())
    assert not est.__sklearn_is_fitted__()
    assert "dtype_" not in vars(est)


def test_a_temporary_folder_that_is_too_small_is_named(path, temporary, monkeypatch):
    usage = type("usage", (), {"free": 10**6})
    monkeypatch.setattr(ondisk.shutil, "disk_usage", lambda folder: usage)
    with (
        pq.ParquetFile(path) as file,
        pytest.raises(
            OSError, match=r"take [\d,]+ bytes .* there are 1,000,000 bytes left.* TMPDIR"
        ),
    ):
        RealNVP(**SMALL).fit(file)
    assert not list(temporary.iterdir())


def test_a_disk_that_fills_up_meanwhile_is_named(path, temporary):
    code = """
import resource, sys, pyarrow.parquet as pq
from densekit import RealNVP
resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
RealNVP(device="cpu").fit(pq.ParquetFile(sys.argv[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert "OSError" in done.stderr
    assert "set TMPDIR" in done.stderr
    assert not list(temporary.iterdir())


def test_rows_that_change_between_learning_and_encoding_are_refused(tmp_path, temporary):
    codec = TableCodec().fit(pd.DataFrame({"c": ["u", "v"] * 50}))
    with (
        pq.ParquetFile(written(tmp_path, {"c": ["u"] * 70 + ["w"] * 30})) as file,
        pytest.warns(UserWarning, match="'w'"),
        pytest.raises(ValueError, match="row 70 of X is not what it was"),
        ondisk.spooled(ParquetRows.of(file), codec, torch.float32),
    ):
        pass
    assert not list(temporary.iterdir())


def test_a_fit_that_was_cut_goes_on(path, tmp_path):
    def stop(state):
        if state.step > 100:
            raise Stop

    settings = {**SMALL, "max_steps": 200, "checkpoint_dir": str(tmp_path)}
    with pq.ParquetFile(path) as file:
        with pytest.raises(Stop):
            RealNVP(callbacks=(stop,), **settings).fit(file)
        resumed = RealNVP(**settings).fit(file)
        settings["checkpoint_dir"] = None
        assert torch.equal(weights(resumed), weights(RealNVP(**settings).fit(file)))


def test_two_processes_read_one_spool(tmp_path, temporary):
    # So many that no noise is added to them, of which each process would draw its own.
    X = np.random.default_rng(0).normal(size=(2000, 2))
    with pq.ParquetFile(written(tmp_path, {"a": X[:, 0], "b": X[:, 1]})) as file:
        one, two = (RealNVP(devices=n, **SMALL).fit(file) for n in (1, 2))
        torch.testing.assert_close(weights(one), weights(two), rtol=1e-3, atol=1e-4)
    assert not list(temporary.glob("densekit-*"))


# ------------------------------------------------------------------------------- bad files


def refuses(X, match, error=ValueError, **settings):
    est = RealNVP(**{**SMALL, **settings})
    with pytest.raises(error, match=match):
        est.fit(X)
    assert not est.__sklearn_is_fitted__()


def changed(values, row, value):
    return [value if i == row else v for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (pa.array(changed(range(N), N - 2, None)), "a missing value"),
        (pa.array(changed(["u", "v"] * N, N - 2, None)[:N]), "a missing value"),
        (pa.array(changed(["u", "v"] * N, N - 2, None)[:N]).dictionary_encode(), "missing value"),
        (pa.array(changed([True, False] * N, N - 2, None)[:N]), "a missing value"),
        (changed(np.arange(N) / 7, N - 2, np.nan), "contains NaN: a missing value"),
        (changed(np.arange(N) / 7, N - 2, -np.inf), "contains infinity"),
        (pa.array(changed(np.arange(9).tolist() * N, N - 2, None)[:N], pa.date32()), "missing"),
    ],
    ids=["integer", "string", "dictionary", "boolean", "nan", "infinity", "date"],
)
def test_a_bad_value_in_the_last_rows_is_named_by_column_and_row(values, match, tmp_path):
    path = written(tmp_path, {"good": np.arange(N), "bad": values}, row_group_size=7001)
    with pq.ParquetFile(path) as file:
        refuses(file, rf"the Parquet file, row {N - 2}: column 'bad' .*{match}.*drop these rows")
    refuses(ds.dataset(path), rf"table.parquet, row {N - 2}: column 'bad'")
    est = RealNVP(**SMALL).fit(pd.DataFrame({"good": np.arange(99), "bad": values[:99]}))
    with pytest.raises(ValueError, match=rf"table.parquet, row {N - 2}: column 'bad'"):
        est.score_samples(ds.dataset(path))


def test_a_value_outside_the_support_in_the_last_rows_is_found(tmp_path):
    path = written(tmp_path, {"x": changed(np.arange(1.0, N + 1), N - 2, -1.0)})
    with pq.ParquetFile(path) as file:
        refuses(file, r"support of column 'x' is 'positive', but 1 value", support="positive")


def test_a_constant_outside_the_support_until_the_last_row_counts(tmp_path):
    with pq.ParquetFile(written(tmp_path, {"x": [-1.0] * (2 * PIECE) + [2.0]})) as file:
        rows = ParquetRows.of(file)
        with pytest.raises(ValueError, match=r"support of column 'x'.* for example -1\.0"):
            TableCodec(support="positive").fit(rows)


NESTED = {
    "list": ([[1, 2], [3]] * 5, TypeError, "Column 'c' holds ndarray"),
    "struct": ([{"a": 1}, {"a": 2}] * 5, TypeError, "Column 'c' holds dict"),
    "binary": ([b"a", b"b"] * 5, TypeError, "Column 'c' holds bytes"),
    "duration": (pa.array(range(10), pa.duration("s")), ValueError, "durations: to seconds"),
    "time": (pa.array(range(10), pa.time32("s")), TypeError, "Column 'c' holds time"),
    "null": (pa.nulls(10), ValueError, "row 0: column 'c' contains NaN: a missing value"),
}


@pytest.mark.parametrize("name", NESTED)
def test_columns_that_no_table_takes_are_named(name, tmp_path, temporary):
    values, error, match = NESTED[name]
    with pq.ParquetFile(written(tmp_path, {"x": np.arange(10.0), "c": values})) as file:
        refuses(file, match, error)
    assert not list(temporary.glob("densekit-*"))


def test_files_without_enough_rows(tmp_path):
    schema = pa.schema([("x", pa.float64())])
    pq.ParquetWriter(tmp_path / "none.parquet", schema).close()
    with pq.ParquetFile(tmp_path / "none.parquet") as file:
        assert file.num_row_groups == 0
        refuses(file, "X is empty: it has 0 rows")
    with pq.ParquetFile(written(tmp_path, {"x": pa.array([], pa.float64())})) as file:
        refuses(file, "X is empty: it has 0 rows")
        est = RealNVP(**SMALL).fit(pd.DataFrame({"x": np.arange(99.0)}))
        assert est.score_samples(file).shape == (0,)  # as of a frame without rows
    with pq.ParquetFile(written(tmp_path, {"x": [1.0]})) as file:
        refuses(file, "n_samples=1: a density needs at least 2 rows")
    with pq.ParquetFile(written(tmp_path, {"x": [1.0, 1.0]})) as file:
        refuses(file, "Every column of X is constant")
    with pq.ParquetWriter(tmp_path / "gap.parquet", schema) as writer:
        for values in ([1.0, 2.0], [], [4.0]):
            writer.write_table(pa.table({"x": values}, schema=schema))
    with pq.ParquetFile(tmp_path / "gap.parquet") as file:
        assert ParquetRows.of(file).read()["x"].tolist() == [1, 2, 4]


def test_a_file_that_is_cut_meanwhile_is_named(table, tmp_path, temporary):
    path = written(tmp_path, table, row_group_size=7001)
    with pq.ParquetFile(path, pre_buffer=False) as file:
        dataset = ds.dataset(path)
        [part.row_groups for part in dataset.get_fragments()]
        os.truncate(path, os.path.getsize(path) // 2)
        refuses(file, rf"the Parquet file cannot be read after row \d+ of {N} .*leave it alone")
    refuses(dataset, r"table\.parquet")
    path.unlink()
    refuses(dataset, r"table\.parquet", (ValueError, FileNotFoundError))
    assert not list(temporary.glob("densekit-*"))


def test_a_damaged_file_is_named(table, tmp_path):
    path = written(tmp_path, table, row_group_size=7001)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 5000] = b"\xff" * 5000
    path.write_bytes(content)
    refuses(ds.dataset(path), rf"table\.parquet cannot be read after row \d+ of {N}")


def test_files_of_a_dataset_that_differ_are_named(tmp_path):
    pq.write_table(pa.table({"x": [1, 2, 3], "y": [1.0, 2, 3]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.0, 2, 5], "y": [1, 2, 3]}), tmp_path / "b.parquet")
    assert in_memory(ds.dataset(tmp_path))["x"].tolist() == [1, 2, 3, 1, 2, 5]
    pq.write_table(pa.table({"x": [1.5, 2, 5], "y": [1, 2, 3]}), tmp_path / "b.parquet")
    refuses(ds.dataset(tmp_path), r"b\.parquet: column 'x' is double.*int64 of the dataset")
    pq.write_table(pa.table({"y": [1, 2, 3]}), tmp_path / "b.parquet")
    refuses(ds.dataset(tmp_path), r"b\.parquet has no column 'x'")


def test_what_is_not_read_in_pieces_is_refused_with_the_way_to_go(path, tmp_path):
    with pq.ParquetFile(path) as file, pytest.raises(TypeError, match=r"a ParquetFile.*a table"):
        TableCodec().fit(file)
    refuses(file, "ParquetFile that is closed: open it again")
    dataset = ds.dataset(path)
    refuses(dataset.filter(ds.field("count") > 0), "filter")
    ds.write_dataset(pa.table({"x": [1.0, 2.0]}), tmp_path / "csv", format="csv")
    refuses(ds.dataset(tmp_path / "csv", format="csv"), "dataset of csv files; only Parquet")
    refuses(dataset.scanner(), r"X is a Scanner.*pass a table", TypeError)
    refuses(pq.ParquetDataset(path), r"X is a ParquetDataset.*pass a table", TypeError)
    twice = pa.table([pa.array([1.0, 2.0])] * 2, names=["a", "a"])
    with pq.ParquetFile(written(tmp_path, twice)) as file:
        refuses(file, "Duplicate column name 'a'")
    with (
        pq.ParquetFile(written(tmp_path, {"text": ["ab", "ba"]})) as file,
        pytest.raises(ValueError, match=r"takes text.*X looks like table data"),
    ):
        TransformerLanguageModel().fit(file)


# ------------------------------------------------------------------------------- memory

MEASURE = """
import io, resource, subprocess, sys
import numpy as np, pyarrow as pa, pyarrow.dataset as ds, pyarrow.parquet as pq
from densekit import RealNVP

path, megabytes = sys.argv[1], int(sys.argv[2])
D, GROUP = 64, 2**15
names = [f"x{j}" for j in range(D)]
WRITE = f'''
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
rng = np.random.default_rng(0)
with pq.ParquetWriter({path!r}, pa.schema([(x, pa.float32()) for x in {names}])) as writer:
    for _ in range({megabytes * 2**20 // (4 * D * GROUP)}):
        columns = rng.normal(3, 2, ({D}, {GROUP})).astype(np.float32)
        writer.write_table(pa.table(list(columns), names={names}))
'''
subprocess.run([sys.executable, "-c", WRITE], check=True)  # whose memory is not ours
settings = dict(hidden_sizes=(32,), n_transforms=2, device="cpu", random_state=0)
few = io.BytesIO()
rng = np.random.default_rng(0)
pq.write_table(pa.table(list(rng.normal(size=(D, 2000)).astype(np.float32)), names=names), few)
RealNVP(max_steps=10, **settings).fit(pq.ParquetFile(few)).score(pq.ParquetFile(few))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
est = RealNVP(max_steps=200, **settings).fit(pq.ParquetFile(path))
if megabytes < 1000:
    est.score(ds.dataset(path))
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
assert abs(est.schema_.columns[5].loc - 3) < 0.02, est.schema_.columns[5]
"""


@pytest.mark.parametrize(
    ("megabytes", "allowed"),
    [(256, 150), pytest.param(2048, 450, marks=pytest.mark.slow)],
)
def test_peak_memory_of_a_fit_by_row_groups(megabytes, allowed, tmp_path):
    """The greatest resident size in MiB above that of a fit of 2,000 rows: what is in memory is 16
    bytes a row of order, a row group and a piece, or a batch."""
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "rows.parquet"), str(megabytes)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert (after - before) / 1024 < allowed
