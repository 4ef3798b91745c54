"""Files that are missing, empty, truncated or of another format: each error names the file, the line
and the remedy; a failed write leaves an existing file unchanged."""

import gzip
import io
import os
import resource
import zipfile

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from PIL import Image

from densekit.formats import limits, read, write

FRAME = pd.DataFrame({"a": range(400), "b": np.arange(400) / 7})
IMAGES = np.zeros((3, 4, 5), np.uint8)


def npz(**arrays):
    held = io.BytesIO()
    np.savez(held, **arrays)
    return held.getvalue()


def deflated(**arrays):
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)
    return held.getvalue()


def binary(name, rows, tmp_path):
    write(rows, tmp_path / name)
    return (tmp_path / name).read_bytes()


TEXTS = {
    "too few values": (
        "t.csv",
        b"a,b\n1,2\n3\n5,6\n",
        ["line 3: 1 values for 2 columns", "quote"],
    ),
    "too many values": ("t.csv", b"a,b\n1,2\n3,4,5\n5,6\n", ["line 3: 3 values for 2 columns"]),
    "more values than names": (
        "t.csv",
        b"a,b\n1,2,3\n4,5,6\n",
        ["line 2: 3 values for 2 columns"],
    ),
    "lines are counted as they are in the file": (
        "t.csv",
        b'a,b\n"x\ny",2\n\n3\n5,6\n',
        ["line 5: 1 values"],
    ),
    "cut short in a row": ("t.csv", b"a,b\n1,2\n3", ["line 3", "last line", "truncated"]),
    "cut short in a quote": ("t.csv", b'a,b\n1,"x', ["line 2", "truncated"]),
    "a header and nothing else": ("t.csv", b"a,b\n", ["no rows"]),
    "no header": ("t.csv", b"0.5,1.5\n0.25,3\n", ["line 1", "0.5, 1.5", "line with names"]),
    "an index": ("t.csv", b",a\n0,5\n", ["column 1 has no name", "index=False"]),
    "Latin-1": ("t.csv", "a\nZürich\n".encode("latin1"), ["line 2: byte 0xfc", "UTF-8", "iconv"]),
    "text in Latin-1": ("t.txt", "a\n\nZürich\n".encode("latin1"), ["line 3: byte 0xfc"]),
    "UTF-16": ("t.csv", "a\n1\n".encode("utf-16"), ["UTF-16"]),
    "a page instead of data": ("t.csv", b"\n<!DOCTYPE html><html>", ["begins like HTML"]),
    "zeros": ("t.csv", b"a,b\n1,\0\0\n", ["line 2", "zero byte"]),
    "no JSON": ("t.jsonl", b'{"a": 1}\n{"a": 2\n', ["line 2 is not JSON"]),
    "records that differ": (
        "t.jsonl",
        b'{"a": 1, "b": 2}\n\n{"a": 2}\n',
        ["line 3", "in 'b'", "same keys"],
    ),
    "JSON without end": (
        "t.jsonl",
        b'{"a": 1}\n{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n",
        ["line 2 is nested too deeply"],
    ),
    "a number without end": ("t.jsonl", b'{"a": ' + b"1" * 5000 + b"}\n", ["line 1", "digits"]),
    "an archive called CSV": ("t.csv", npz(X=np.ones(2)), ["begins like ZIP"]),
    "a data base called CSV": ("t.csv", b"SQLite format 3\0\x10\0", ["begins like SQLite"]),
    "a text called NPZ": ("t.npz", b"PKI is public", ["npz", "begins with b'PKI is p'"]),
    "numbers as records": ("t.jsonl", b"[1, 2]\n", ["line 1 is a list", "record"]),
    "records and strings": ("t.jsonl", b'"x"\n{"a": 1}\n', ["line 2", "both records and strings"]),
    "a CSV called Parquet": ("t.parquet", b"a,b\n1,2\n", ["parquet", r"begins with b'a,b"]),
    "a CSV called NPY": ("t.npy", b"a,b\n1,2\n", ["npy", r"begins with b'a,b"]),
    "gzip without its suffix": ("t.csv", gzip.compress(b"a\n1\n"), ["begins like gzip"]),
    "a suffix without gzip": ("t.csv.gz", b"a\n1\n", ["not gzip", ".gz"]),
    "gzip cut short": ("t.csv.gz", gzip.compress(b"a\n1\n" * 999)[:-20], ["truncated"]),
    "many arrays": (
        "t.npz",
        npz(X=np.ones(2), y=np.ones(2)),
        ["several arrays", "X, y", "npz:KEY"],
    ),
    "no such array": ("t.npz:z", npz(X=np.ones(2)), ["no array is called 'z'", "has X"]),
    "pickled objects": ("t.npz", npz(X=np.array([{}, 1])), ["Python objects", "never loaded"]),
    "an image called CSV": ("t.csv", b"\x89PNG\r\n\x1a\n....", ["begins like PNG"]),
    "an unknown suffix": ("t.xls", b"a", ["'.xls' is no known format", ".parquet"]),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_bad_file_is_named_with_its_line(tmp_path, case):
    name, content, words = TEXTS[case]
    (tmp_path / name.partition(":")[0]).write_bytes(content)
    refuses(lambda: read(f"{tmp_path}/{name}"), name.partition(":")[0], *words)


def refuses(act, *words):
    with pytest.raises(ValueError) as caught:
        act()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("word", ["PK", "PKI", "PAR1", "%PDF", "SQLite", "SQLite format 3"])
def test_a_text_may_begin_with_any_word(tmp_path, word):
    (tmp_path / "t.csv").write_text(f"{word},age\n1,2\n")
    assert list(read(tmp_path / "t.csv").columns) == [word, "age"]
    (tmp_path / "t.txt").write_text(f"{word} is how it begins\n")
    assert read(tmp_path / "t.txt") == [f"{word} is how it begins"]


def test_a_parquet_file_called_csv_is_named(tmp_path):
    (tmp_path / "t.csv").write_bytes(binary("t.parquet", FRAME, tmp_path))
    refuses(lambda: read(tmp_path / "t.csv"), "t.csv", "begins like Parquet")


BOMBS = {
    "t.csv.gz": gzip.compress(b"a,b\n" + b"1,2\n" * 500_000),
    "t.npz": deflated(X=np.zeros(250_000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_must_not_fill_the_memory(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(BOMBS[name])
    assert len(read(tmp_path / name)) in (500_000, 250_000)  # two megabytes are allowed
    monkeypatch.setattr(limits, "EXTRA_BYTES", 10_000)
    most = 100 * len(BOMBS[name]) + 10_000
    if name.endswith("npz"):
        with zipfile.ZipFile(tmp_path / name) as archive:
            most = 100 * archive.infolist()[0].compress_size + 10_000
    words = [
        name,
        f"decompresses to more than {most:,} bytes, the limit of 100 times its size",
        "decompress it first",
    ]
    refuses(lambda: read(tmp_path / name), *words)
    (tmp_path / name).unlink()
    write(FRAME if name == "t.csv.gz" else np.ones((400, 2)), tmp_path / name)
    assert len(read(tmp_path / name)) == 400  # ordinary data do not shrink like that


SUFFIXES = ["csv", "tsv", "parquet", "npy", "npz", "jsonl", "txt"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_and_empty_files(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    with pytest.raises(FileNotFoundError, match=f"t.{suffix}: no such file"):
        read(path)
    path.touch()
    refuses(lambda: read(path), f"t.{suffix} is empty")


@pytest.mark.parametrize("suffix", ["parquet", "npy", "npz"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_file_cut_short_anywhere_is_no_data(tmp_path, suffix, share):
    whole = binary(f"t.{suffix}", FRAME, tmp_path)
    (tmp_path / f"t.{suffix}").write_bytes(whole[: int(share * len(whole))])
    refuses(lambda: read(tmp_path / f"t.{suffix}"), f"t.{suffix} is truncated")


@pytest.mark.parametrize("suffix", ["parquet", "npz", "csv.gz"])
def test_a_damaged_file_is_no_data(tmp_path, suffix):
    whole = bytearray(binary(f"t.{suffix}", FRAME, tmp_path))
    whole[len(whole) // 2 :: 7] = bytes(len(whole[len(whole) // 2 :: 7]))
    if suffix == "parquet":
        whole[-4:] = b"PAR1"
    (tmp_path / f"t.{suffix}").write_bytes(whole)
    refuses(lambda: read(tmp_path / f"t.{suffix}"), f"t.{suffix}", "damaged")


def test_a_pickle_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    np.save(tmp_path / "t.npy", np.array([Bomb(), 1], object))
    refuses(lambda: read(tmp_path / "t.npy"), "t.npy", "Python objects", "parquet")
    assert not (tmp_path / "ran").exists()


def test_a_parquet_file_without_rows(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"a": pyarrow.array([], "int8")}), tmp_path / "t.pq")
    refuses(lambda: read(tmp_path / "t.pq"), "t.pq has no rows")


PICTURES = {
    "another size": (lambda p: Image.new("L", (5, 5)).save(p), ["(5, 5)", "0.png (4, 5)"]),
    "another mode": (
        lambda p: Image.new("RGB", (5, 4)).save(p),
        ["(4, 5, 3)", "one size and mode"],
    ),
    "alpha": (lambda p: Image.new("RGBA", (5, 4)).save(p), ["mode RGBA", "alpha off"]),
    "sixteen bits": (lambda p: Image.new("I;16", (5, 4)).save(p), ["mode I;16", "8 bits"]),
    "no image": (lambda p: p.write_text("a,b"), ["neither PNG nor JPEG"]),
    "no bytes": (lambda p: p.touch(), ["neither PNG nor JPEG"]),
}


@pytest.mark.parametrize("case", PICTURES)
def test_a_bad_image_is_named(tmp_path, case):
    write(IMAGES, tmp_path / "pictures")
    spoil, words = PICTURES[case]
    spoil(tmp_path / "pictures" / "7.png")
    refuses(lambda: read(tmp_path / "pictures"), "7.png", *words)


def test_an_image_cut_short_is_named(tmp_path):
    write(np.random.default_rng(0).integers(0, 255, (2, 40, 40)), tmp_path / "pictures")
    path = tmp_path / "pictures" / "1.png"
    path.write_bytes(path.read_bytes()[:-600])
    refuses(lambda: read(tmp_path / "pictures"), "1.png is truncated or damaged")


def test_folders_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="pictures: no such file or folder"):
        read(tmp_path / "pictures")
    refuses(lambda: read(tmp_path), "without images")
    (tmp_path / "file").write_text("x")
    refuses(lambda: read(tmp_path / "file"), "without a suffix", "give its format")
    refuses(lambda: read("-", format="images"), "cannot be read from a stream")
    refuses(lambda: read("t.csv", format="excel"), "format='excel'", "csv, tsv, parquet")


WRITES = {
    "images to a table": (IMAGES, "t.csv", ["shape (3, 4, 5)", "folder"]),
    "a table to a folder": (FRAME, "t", ["DataFrame", ".csv"]),
    "an array to a folder": (np.ones((3, 2)), "t", ["shape (3, 2)", "only images"]),
    "strings to a folder": (["a"], "t", ["only images"]),
    "a line break to text": (["a", "b\nc"], "t.txt", ["string 1", "line break", ".jsonl"]),
    "a carriage return to text": (["a\r"], "t.txt", ["string 0", "line break"]),
    "a table to text": (FRAME, "t.txt", ["strings only", ".csv"]),
    "strings to an array": (["a"], "t.npy", ["not an array of numbers", ".jsonl"]),
    "mixed columns to an array": (FRAME.assign(c="x"), "t.npy", ["not an array of numbers"]),
    "levels above 255": (IMAGES.astype(int) + 256, "t", ["from 256 to 256", "0..255"]),
    "compressed arrays": (np.ones(3), "t.npy.gz", ["only text formats", ".gz"]),
}


@pytest.mark.parametrize("case", WRITES)
def test_rows_that_a_format_cannot_hold(tmp_path, case):
    rows, name, words = WRITES[case]
    refuses(lambda: write(rows, tmp_path / name), name, *words)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_where_it_cannot_be(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.png").touch()
    (tmp_path / "t").touch()
    with pytest.raises(FileNotFoundError, match=r"no folder .*none; create it first"):
        write(FRAME, tmp_path / "none" / "t.csv")
    with pytest.raises(FileExistsError, match="full is not empty"):
        write(IMAGES, tmp_path / "full")
    with pytest.raises(FileExistsError, match="t is a file"):
        write(IMAGES, tmp_path / "t")
    with pytest.raises(IsADirectoryError, match="full is a folder"):
        write(FRAME, tmp_path / "full", format="csv")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["precious.png"]


@pytest.fixture
def small_disk():
    """Limit files to two kilobytes, which simulates a full disk; Python ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.npy", "t.npz", "t.jsonl"])
def test_a_full_disk_leaves_what_was_there(tmp_path, small_disk, name):
    (tmp_path / name).write_bytes(b"old")
    noise = pd.DataFrame(np.random.default_rng(0).normal(size=(800, 2)), columns=["a", "b"])
    with pytest.raises(OSError, match="not written") as caught:
        write(noise, tmp_path / name)
    assert caught.value.filename == str(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"


def test_a_full_disk_leaves_no_images(tmp_path, small_disk):
    noise = np.random.default_rng(0).integers(0, 256, (2, 60, 60))
    with pytest.raises(OSError, match="File too large"):
        write(noise, tmp_path / "pictures")
    assert not list(tmp_path.iterdir())


def test_json_lines_read_as_a_table_say_so(tmp_path):
    path = tmp_path / "rows.csv"
    write(FRAME, tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").rename(path)
    refuses(lambda: read(path), "rows.csv, line 1, looks like JSON lines", "--format jsonl")
