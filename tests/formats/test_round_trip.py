"""What is written comes back: values always, dtypes where the format has them."""

import gzip
import io
import os
import sys
import time
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from densekit.formats import read, write

FRAME = pd.DataFrame(
    {
        "age": [31, -4, 7],
        "income": [0.1 + 0.2, 1e-300, 3.0],
        "member": [True, False, True],
        "city": ["Bern, CH", 'the "old" one\nof two', "NA"],
        "since": pd.to_datetime(["2020-01-31", "1969-12-31", "2024-02-29"]),
        "seen": pd.to_datetime(
            ["2020-01-31 23:59:59.25", "2000-01-01", "2024-02-29 12:00"], format="ISO8601"
        ),
    }
)
LINES = ["the cat", "", "  spaces ", "ﬀ ünïcode \u2028 \x0c line"]
TABLES = ["t.csv", "t.tsv", "t.csv.gz", "t.parquet", "t.pq", "t.jsonl", "t.ndjson.gz"]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_comes_back(tmp_path, name):
    write(FRAME, tmp_path / name)
    back = read(tmp_path / name)
    times = {"since": "datetime64[us]", "seen": "datetime64[us]"}
    pd.testing.assert_frame_equal(back.astype(times), FRAME.astype(times), check_exact=True)


def test_parquet_keeps_every_dtype(tmp_path):
    frame = FRAME.assign(
        size=pd.Categorical(["S", "L", "S"], ["S", "M", "L"], ordered=True),
        small=np.array([1, 2, 3], np.int8),
        single=np.array([0.1, 2, 3], np.float32),
        zoned=FRAME["seen"].dt.tz_localize("Europe/Zurich"),
    )
    write(frame, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read(tmp_path / "t.parquet"), frame, check_exact=True)


def test_single_precision_is_exact_in_text(tmp_path):
    values = np.random.default_rng(0).normal(size=50).astype(np.float32)
    for name in ("t.csv", "t.jsonl"):
        write(pd.DataFrame({"v": values}), tmp_path / name)
        assert (read(tmp_path / name)["v"].astype(np.float32) == values).all()


@pytest.mark.parametrize("make", [pl.from_pandas, pa.Table.from_pandas], ids=["polars", "pyarrow"])
@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl"])
def test_other_frames_are_written_alike(tmp_path, make, name):
    write(make(FRAME), tmp_path / name)
    back = read(tmp_path / name)
    assert list(back.columns) == list(FRAME.columns)
    assert back["city"].tolist() == FRAME["city"].tolist()
    assert back["income"].tolist() == FRAME["income"].tolist()
    assert back["since"].dt.day.tolist() == [31, 31, 29]


def test_missing_values_stay_missing(tmp_path):
    frame = pd.DataFrame({"a": [1.5, np.nan], "b": ["x", None]})
    for name in ("t.csv", "t.parquet", "t.jsonl"):
        write(frame, tmp_path / name)
        assert read(tmp_path / name).isna().to_numpy().tolist() == [[False, False], [True, True]]


def test_scores_of_minus_infinity_survive(tmp_path):
    frame = pd.DataFrame({"score": [-np.inf, -1.5]})
    for name in ("t.csv", "t.parquet", "t.jsonl"):
        write(frame, tmp_path / name)
        assert read(tmp_path / name)["score"].tolist() == [-np.inf, -1.5]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(3, 2).astype(np.float32),
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.array([[True, False]] * 2),
    ],
    ids=["float32", "uint8", "bool"],
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.npz:images"])
def test_an_array_comes_back(tmp_path, array, name):
    write(array, f"{tmp_path}/{name}")
    back = read(f"{tmp_path}/{name}")
    assert back.dtype == array.dtype
    assert (back == array).all()


def test_an_archive_holds_one_array_and_nothing_else(tmp_path, monkeypatch):
    save = np.savez_compressed

    def savez_of_numpy_2_0(file, *args, **kwds):  # whose every keyword is an array
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in kwds.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.save(member, array)

    for write_it in (save, savez_of_numpy_2_0):
        monkeypatch.setattr(np, "savez_compressed", write_it)
        write(np.ones((3, 2)), tmp_path / "a.npz")
        with np.load(tmp_path / "a.npz") as archive:
            assert archive.files == ["X"]
    with pytest.raises(ValueError, match="not an array of numbers"):
        write(np.array([[{}]]), tmp_path / "b.npz")


def test_an_array_becomes_a_table_with_named_columns(tmp_path):
    write(np.array([[1.5, 2], [3, 4]]), tmp_path / "t.csv")
    back = read(tmp_path / "t.csv")
    assert list(back.columns) == ["x0", "x1"]
    assert back.dtypes.tolist() == [float, float]
    write(np.array([["a", 1], ["b", 2]], object), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet")["x1"].tolist() == [1, 2]


def test_a_key_chooses_among_arrays(tmp_path):
    np.savez(tmp_path / "two.npz", X=np.zeros((2, 1)), y=np.ones(3))
    assert read(f"{tmp_path}/two.npz:y").tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz", "t.jsonl", "t.csv", "t.parquet"])
def test_strings_come_back(tmp_path, name):
    write(LINES, tmp_path / name)
    assert read(tmp_path / name) == LINES


def test_strings_with_line_breaks_come_back_where_the_format_has_them(tmp_path):
    for name in ("t.jsonl", "t.csv"):
        write(["a\nb", "c\r"], tmp_path / name)
        assert read(tmp_path / name) == ["a\nb", "c\r"]


def test_a_quoted_line_break_may_lie_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr("densekit.formats.reading._BLOCK", 50)
    frame = pd.DataFrame(
        {"a": range(40), "b": ["one\ntwo\nthree\n" + "x" * (i % 9) for i in range(40)]}
    )
    write(frame, tmp_path / "t.csv")
    assert read(tmp_path / "t.csv").to_dict("list") == frame.to_dict("list")


def test_json_lines_of_strings(tmp_path):
    (tmp_path / "t.jsonl").write_text('"one"\n\n"two\\n"\n')
    assert read(tmp_path / "t.jsonl") == ["one", "two\n"]


def test_lines_end_as_on_windows_too(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,x\r\n")
    assert read(tmp_path / "t.txt") == ["one", "two"]
    assert read(tmp_path / "t.csv").to_dict("list") == {"a": [1], "b": ["x"]}


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 5, 4, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "images",
    [IMAGES, IMAGES[..., 0], IMAGES[..., 0] > 99],
    ids=["color", "gray", "one bit"],
)
def test_a_folder_of_images_comes_back_in_order(tmp_path, images):
    write(images, tmp_path / "pictures")
    back = read(tmp_path / "pictures")
    assert back.dtype == images.dtype
    assert (back == images).all()


def test_floats_in_the_unit_interval_become_levels(tmp_path):
    write(np.maximum(IMAGES - 0.4, 0) / 255, f"{tmp_path}/pictures/")
    assert (read(tmp_path / "pictures") == IMAGES).all()


def test_palettes_and_jpegs_are_read(tmp_path):
    for kind in ("png", "jpg"):
        (tmp_path / kind).mkdir()
    Image.fromarray(IMAGES[0]).convert("P").save(tmp_path / "png" / "a.png")
    Image.new("RGB", (4, 5), (200, 30, 60)).save(tmp_path / "jpg" / "a.JPEG")
    (tmp_path / "jpg" / "notes.md").write_text("not an image")
    assert read(tmp_path / "png").shape == (1, 5, 4, 3)
    assert np.abs(read(tmp_path / "jpg").astype(int) - [200, 30, 60]).max() < 8


def test_streams_are_csv_unless_named_otherwise(tmp_path, monkeypatch, capfdbinary):
    for format in (None, "parquet", "npy", "jsonl"):
        write(FRAME[["age", "income"]], "-", format=format)
        data = capfdbinary.readouterr().out
        assert data.startswith(b'"age","income"\n') == (format is None)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert np.asarray(read("-", format=format))[:, 0].tolist() == [31, -4, 7]


def test_a_format_overrules_a_strange_name(tmp_path):
    (tmp_path / "people.dat").write_text("a\n1\n")
    assert read(tmp_path / "people.dat", format="csv")["a"].tolist() == [1]


def test_equal_rows_give_equal_compressed_files(tmp_path, monkeypatch):
    for hour, name in enumerate(("a.csv.gz", "b.csv.gz")):
        monkeypatch.setattr(time, "time", lambda hour=hour: 3600.0 * hour)
        write(FRAME, tmp_path / name)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()).startswith(b'"age","income"')


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "old.txt").write_text("old\n")
    (tmp_path / "link.txt").symlink_to(tmp_path / "old.txt")
    write(["new"], tmp_path / "link.txt")
    assert (tmp_path / "link.txt").is_symlink()
    assert read(tmp_path / "old.txt") == ["new"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    write(["one"], tmp_path / "pipe", format="text")
    assert os.read(reader, 100) == b"one\n"
    assert (tmp_path / "pipe").is_fifo()
    os.close(reader)
