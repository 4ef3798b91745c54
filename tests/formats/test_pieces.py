"""Rows in pieces are written as if they had come at once, and refused where they cannot fit."""

import itertools
import os
import shutil
import sys
import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from densekit.formats import check_space, read, space, write, write_pieces

N = 1000
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "a": RNG.normal(size=N),
        "b": RNG.integers(0, 9, N),
        "c": pd.Categorical(RNG.choice(["x", "y"], N), ["x", "y", "z"]),
        "d": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(N), "h"),
    }
)
IMAGES = RNG.integers(0, 256, (23, 4, 3)).astype(np.uint8)
CUTS = [0, 1, 400, 999, N]


def cut(rows, at=CUTS):
    take = (lambda a, b: rows.iloc[a:b]) if hasattr(rows, "iloc") else (lambda a, b: rows[a:b])
    return (take(a, b) for a, b in itertools.pairwise(at))


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.jsonl", "t.jsonl.gz"])
def test_text_is_the_same_bytes(tmp_path, name):
    # A datetime is written with its time where its piece has another than midnight.
    for i, frame in enumerate((FRAME.drop(columns="d"), FRAME)):
        (tmp_path / f"whole{i}").mkdir()
        write(frame, tmp_path / f"whole{i}" / name)
        write_pieces(cut(frame), N, tmp_path / name)
        pieces, whole = tmp_path / name, tmp_path / f"whole{i}" / name
        if not (i or name.endswith(".gz")):
            assert pieces.read_bytes() == whole.read_bytes()
        pd.testing.assert_frame_equal(read(pieces), read(whole))


def test_a_piece_of_parquet_is_a_row_group(tmp_path):
    write_pieces(cut(FRAME), N, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read(tmp_path / "t.parquet"), FRAME)
    groups = pyarrow.parquet.ParquetFile(tmp_path / "t.parquet").metadata
    assert [groups.row_group(i).num_rows for i in range(4)] == [1, 399, 599, 1]


@pytest.mark.parametrize("make", [pl.from_pandas, pa.Table.from_pandas], ids=["polars", "pyarrow"])
def test_other_frames_come_in_pieces_too(tmp_path, make):
    pieces = (make(rows) for rows in cut(FRAME[["a", "b"]].assign(t="x")))
    write_pieces(pieces, N, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet")["a"].tolist() == FRAME["a"].tolist()


@pytest.mark.parametrize("name", ["t.npy", "t.npz", "t.npz:rows"])
@pytest.mark.parametrize(
    "array",
    [
        FRAME[["a", "b"]].to_numpy(),
        RNG.random((N, 2, 3)).astype(np.float32),
        FRAME["d"].to_numpy().reshape(-1, 1),
        np.asfortranarray(RNG.integers(0, 9, (N, 2))),
    ],
    ids=["float64", "float32", "datetimes", "Fortran"],
)
def test_arrays(tmp_path, name, array):
    write_pieces(cut(array), N, f"{tmp_path}/{name}")
    back = read(f"{tmp_path}/{name}")
    assert back.dtype == array.dtype
    assert (back == array).all()


def test_strings_and_images(tmp_path):
    lines = [f"line {i}" for i in range(N)]
    write_pieces(cut(lines), N, tmp_path / "t.txt")
    assert read(tmp_path / "t.txt") == lines
    write_pieces(cut(IMAGES, [0, 9, 10, 23]), 23, tmp_path / "pictures")
    assert (read(tmp_path / "pictures") == IMAGES).all()
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir())[9] == "09.png"


@pytest.mark.parametrize("format", ["csv", "jsonl", "npy", "npz", "parquet"])
def test_pieces_go_through_a_pipe(format, capfdbinary, tmp_path):
    numbers = FRAME[["a", "b"]]
    write_pieces(cut(numbers), N, "-", format=format)
    (tmp_path / "out").write_bytes(capfdbinary.readouterr().out)
    back = read(tmp_path / "out", format=format)
    assert (np.asarray(back) == numbers.to_numpy()).all()


def test_a_piece_is_written_to_a_stream_before_the_next_is_made(capfdbinary):
    def pieces():
        yield ["one"]
        assert capfdbinary.readouterr().out == b"one\n"
        yield ["two"]

    write_pieces(pieces(), 2, "-", format="text")
    assert capfdbinary.readouterr().out == b"two\n"


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.npy", "pictures"])
def test_an_error_between_pieces_leaves_what_was_there(tmp_path, name):
    def pieces():
        yield IMAGES if name == "pictures" else FRAME[["a"]]
        raise KeyboardInterrupt

    if name != "pictures":
        (tmp_path / name).write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_pieces(pieces(), 2 * N, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ([] if name == "pictures" else [name])


def test_another_number_of_rows_is_an_error_and_no_file(tmp_path):
    with pytest.raises(ValueError, match="expected 2000 rows to write, but the pieces have 1000"):
        write_pieces(cut(FRAME), 2000, tmp_path / "t.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.npy", "t.npz"])
def test_memory_is_that_of_a_piece(tmp_path, name):
    piece = RNG.random((2000, 4))

    def peak(n):
        tracemalloc.start()
        write_pieces(itertools.repeat(piece, n), n * 2000, tmp_path / name)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few = peak(2)
    # Forty pieces are 2.6 MB as numbers, and more as text.
    assert peak(40) < few + 300_000


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet"])
def test_the_estimate_is_what_a_file_then_takes(tmp_path, name):
    many = pd.concat([FRAME.assign(a=RNG.normal(size=N)) for _ in range(60)], ignore_index=True)
    write_pieces(cut(many, [0, 20_000, 60_000]), 60_000, tmp_path / name)
    location = space.check_target(tmp_path / name)
    size = (tmp_path / name).stat().st_size
    # The compression ratio improves with more rows, for which check_space has a margin.
    most = 1.03 if name in ("t.csv", "t.jsonl") else space._COMPRESSION_MARGIN
    assert 0.97 < space._estimated_size(location, FRAME, 60_000) / size < most


@pytest.mark.parametrize("free", [0.9, 1.1])
@pytest.mark.parametrize("name", ["t.csv", "t.npy", "t.jsonl"])
def test_rows_that_cannot_fit_are_refused_with_the_estimate(tmp_path, monkeypatch, name, free):
    rows = FRAME[["a", "b"]]
    write(rows, tmp_path / name)
    n = 50 * N
    size = 50 * (tmp_path / name).stat().st_size
    disk = shutil.disk_usage(tmp_path)._replace(free=int(free * size))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    if free > 1:
        check_space(rows, n, tmp_path / name)
        return
    with pytest.raises(ValueError, match=rf"{name}: 50,000 rows would take about .*B in .* free"):
        check_space(rows, n, tmp_path / name)


def test_more_images_than_a_disk_takes_files_are_refused(tmp_path, monkeypatch):
    free_bytes = {"f_bavail": 10**9, "f_bfree": 10**9, "f_blocks": 10**9, "f_frsize": 4096}
    disk = type("Disk", (), free_bytes | {"f_favail": 100})
    monkeypatch.setattr(space.os, "statvfs", lambda _: disk)
    check_space(IMAGES, 100, tmp_path / "pictures")
    with pytest.raises(
        ValueError, match=r"101 images are as many files, .* space for 100; .*\.npy"
    ):
        check_space(IMAGES, 101, tmp_path / "pictures")


def test_a_device_never_fills_up_and_a_redirected_stream_may(capfdbinary):
    check_space(FRAME, 10**15, "/dev/null", format="csv")
    # What stands for standard output here is a file, as behind the shell's >.
    with pytest.raises(ValueError, match=r"standard output: .* 48 PB .* its disk has"):
        check_space(FRAME, 10**15, "-")


def test_a_pipe_never_fills_up(monkeypatch):
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        check_space(FRAME, 10**15, "-")


SUFFIXES = {
    "x.pkl": (None, ["'.pkl' is no known format", ".csv"]),
    "x.csv": ("jsonl", ["x.csv would be a jsonl file", ".jsonl or .ndjson", "not in .csv"]),
    "x.pickle": ("csv", ["x.pickle would be a csv file", "must end in .csv or .csv.gz"]),
    "x.CSV.gz": ("tsv", ["would be a tsv file", ".tsv"]),
    "x.npz": ("npy", ["would be a npy file", ".npy"]),
    "x.json": ("text", ["would be a text file", ".txt"]),
    "results.v2": ("parquet", ["would be a parquet file", ".parquet or .pq"]),
}


@pytest.mark.parametrize("name", SUFFIXES)
def test_a_name_with_the_suffix_of_another_format_is_an_error(tmp_path, name):
    format, words = SUFFIXES[name]
    with pytest.raises(ValueError) as caught:
        write(FRAME, tmp_path / name, format=format)
    for word in words:
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "format"), [("x", "csv"), ("x.CSV", "csv"), ("x.pq", "parquet")])
def test_a_name_that_says_nothing_else_is_taken(tmp_path, name, format):
    write(FRAME, tmp_path / name, format=format)
    assert len(read(tmp_path / name, format=format)) == N
