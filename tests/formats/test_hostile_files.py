"""Files with false claims, files that decompress to enormous sizes, and unusual but valid files.

Invalid files raise a ValueError that names the file, the location and the remedy, before memory is
allocated for a claim. Valid files are read.
"""

import gzip
import io
import json
import os
import resource
import struct
import threading
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from densekit.formats import limits, read, write
from densekit.formats.thrift import read_struct

MEGABYTES = 2**20


@pytest.fixture
def little_memory():
    """A process that can allocate only 400 MB more, so that an unchecked allocation fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = psutil.Process().memory_info().vms + 400 * MEGABYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def lower_limit(monkeypatch):
    """Lower the limit to 100 times the compressed size plus 1 MB, so that test files can be small."""
    monkeypatch.setattr(limits, "EXTRA_BYTES", 10**6)


def refuses(path, *words):
    with pytest.raises(ValueError) as caught:
        read(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert len(str(caught.value)) < 800
    return str(caught.value)


# Arrays.


def npy(shape, descr="<f8", data=b"", version=1):
    held = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    getattr(np.lib.format, f"write_array_header_{version}_0")(held, header)
    return held.getvalue() + data


def zipped(name, data, method=zipfile.ZIP_DEFLATED):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        archive.writestr(name, data)
    return held.getvalue()


def patched(data, before, at, value):
    """The archive with bytes of its directory (``at`` after ``before``) replaced."""
    data = bytearray(data)
    place = data.rindex(before) + at
    data[place : place + len(value)] = value
    return bytes(data)


DIRECTORY = b"PK\x01\x02"
ARCHIVE = zipped("X.npy", npy((2,), data=bytes(16)))
EIGHT_TIB = npy((2**40,), data=bytes(80))
ARRAYS = {
    "8 TiB in 208 bytes": ("t.npy", EIGHT_TIB, ["8,796,093,022,208 bytes, but 80 follow"]),
    "8 TiB in an archive": ("t.npz", zipped("X.npy", EIGHT_TIB), ["8,796,093,022,208 bytes"]),
    "8 TiB by a header of version 2": ("t.npy", npy((2**40,), version=2), ["8,796,093,022,208"]),
    "more entries than there are integers": ("t.npy", npy((2**40, 2**40)), ["but 0 follow"]),
    "fewer rows than none": ("t.npy", npy((-1,), data=bytes(80)), ["shape (-1,)", "damaged"]),
    "strings of no length": ("t.npy", npy((2**40,), "<U0"), ["rows without values", "<U0"]),
    "rows of no columns": ("t.npy", npy((2**40, 0)), ["rows without values"]),
    "one number": ("t.npy", npy((), data=bytes(8)), ["a single number", "an array"]),
    "a wide entry": ("t.npy", npy((1,), "<U500000000"), ["2,000,000,000 bytes, but 0 follow"]),
    "a member that is text": ("t.npz", zipped("X.txt", b"hello"), ["'X.txt' is not an array"]),
    "a member that says it is 8 TiB": (
        "t.npz",
        # Both sizes in the directory as large as 32 bits can say: packed it cannot be.
        patched(ARCHIVE, DIRECTORY, 20, struct.pack("<II", 2**32 - 2, 2**32 - 2)),
        ["decompresses to more than 100,0", "100 times its size"],
    ),
    "a password": ("t.npz", patched(ARCHIVE, DIRECTORY, 8, b"\x01\x00"), ["is encrypted"]),
    "no such compression": ("t.npz", patched(ARCHIVE, DIRECTORY, 10, b"\x63"), ["compression"]),
    "damaged compression": (
        "t.npz",
        zipped("X.npy", EIGHT_TIB, zipfile.ZIP_LZMA)[:60]
        + bytes(30)
        + zipped("X.npy", EIGHT_TIB, zipfile.ZIP_LZMA)[90:],
        ["damaged"],
    ),
    "a million arrays": (
        "t.npz",
        (lambda held: [np.savez(held, **{f"a{i}": np.ones(1) for i in range(300)}), held][1])(
            io.BytesIO()
        ).getvalue(),
        ["has several arrays", "a9, ... (300 in all)"],
    ),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_an_array_is_no_more_than_its_file(tmp_path, little_memory, case):
    name, data, words = ARRAYS[case]
    (tmp_path / name).write_bytes(data)
    refuses(tmp_path / name, *words)


def test_an_archive_that_unpacks_to_more_than_data_do_is_refused(tmp_path, lower_limit):
    (tmp_path / "t.npz").write_bytes(zipped("X.npy", npy((10**6,), data=bytes(8 * 10**6))))
    refuses(tmp_path / "t.npz", "decompresses to more than 1,", "100 times its size", "unzip")


@pytest.mark.parametrize("version", [1, 2])
def test_arrays_of_every_version_of_the_header_are_read(tmp_path, version):
    x = np.arange(6.0).reshape(3, 2)
    (tmp_path / "t.npy").write_bytes(npy((3, 2), data=x.tobytes(), version=version))
    np.testing.assert_array_equal(read(tmp_path / "t.npy"), x)
    fields = np.zeros(2, [("größe", "<f8")])  # a name that is no Latin-1 needs version 3
    fields.dtype.names = ("Größe \u4e2d",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        np.save(tmp_path / "f.npy", fields)
    assert read(tmp_path / "f.npy").dtype.names == ("Größe \u4e2d",)
    np.save(tmp_path / "order.npy", np.asfortranarray(x))
    np.testing.assert_array_equal(read(tmp_path / "order.npy"), x)


# Text.

WIDE = 1_000_000
TEXTS = {
    "half a surrogate pair": ("t.jsonl", b'{"a": "x"}\n{"a": "\\ud800"}\n', ["line 2", "surrogate"]),
    "half a pair as a string": ("t.jsonl", b'"x"\n\n"\\uDFFF y"\n', ["line 3", "unpaired surrogate"]),
    "half a pair as a key": ("t.jsonl", b'{"\\ud800": 1}\n', ["line 1", "surrogate", "both halves"]),
    "a record in a record": ("t.jsonl", b'{"a": {"b": 1}}\n', ["line 1: 'a' is a record", "own key"]),
    "a list in a record": ("t.jsonl", b'{"a": 1}\n{"a": [1]}\n', ["line 2: 'a' is a list"]),
    "a key twice": ("t.jsonl", b'{"a": 1, "b": 2, "a": 3}\n', ["line 1", "key 'a' twice", "rename"]),
    "an integer of 97 bits": ("t.jsonl", b'{"a": 1%029d}\n' % 0, ["line 1: 'a' is 1000", "quote it"]),
    "integers of 65 bits together": (
        "t.jsonl",
        b'{"a": -1}\n{"a": 18446744073709551615}\n',
        ["'a' has integers from -1 to 18446744073709551615", "quote them"],
    ),
    "records without keys": ("t.jsonl", b"{}\n{}\n", ["line 1: no columns"]),
    "a million keys": (
        "t.jsonl",
        json.dumps(dict.fromkeys(map(str, range(100_000)), 1)).encode(),
        ["line 1: 100,000 columns", "20,000", ".npy"],
    ),
    "a million columns": (
        "t.csv",
        b",".join(b"c%d" % j for j in range(WIDE)) + b"\n" + b",".join([b"1"] * WIDE) + b"\n",
        ["line 1: 1,000,000 columns", "at most 20,000", ".npy"],
    ),
    "a million columns by old line ends": ("t.csv", b"a," * WIDE + b"a\r1\r", ["1,000,001 columns"]),
    "a name twice": ("t.csv", b"a,b,a\n1,2,3\n", ["line 1: columns 1 and 3", "'a'", "rename"]),
    "an integer of 97 bits in a table": (
        "t.csv",
        b"a,b\n1,2\n123456789012345678901234567890,3\n",
        ["row 1: column 'a'", "1234567890123456789", "a letter before it"],
    ),
    "a quote left open for long": (
        "t.csv",
        b"a,b\n1,2\n3,x\"" + b"y" * 200_000 + b"\n",
        ["line 3", "131,072 characters", "close the quote"],
    ),
    "a name of a megabyte": ("t.csv", b"x;" * 500_000 + b"\n1\n", ["line 1"]),
    "Arrow by its name": ("t.arrow", b"ARROW1\0\0", ["Arrow files cannot be read", ".parquet"]),
    "Arrow by its contents": ("t.csv", b"ARROW1\0\0\x10\0", ["begins like Arrow data"]),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_a_text_that_no_table_holds_is_named_with_its_place(tmp_path, case):
    name, data, words = TEXTS[case]
    (tmp_path / name).write_bytes(data)
    refuses(tmp_path / name, *words)


def test_a_text_that_unpacks_to_more_than_data_do_is_refused(tmp_path, lower_limit):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a\n" + b"1\n" * 2_000_000))
    refuses(tmp_path / "t.csv.gz", "decompresses to more than 1,", "100 times its size", "gunzip")


def test_whole_surrogate_pairs_and_escaped_zeros_are_characters(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(b'{"a": "\\ud83d\\ude00"}\n{"a": "x\\u0000y"}\n')
    assert read(tmp_path / "t.jsonl")["a"].tolist() == ["\N{GRINNING FACE}", "x\0y"]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_integers_of_64_bits_are_exact(tmp_path, name):
    values = [2**64 - 1, 2**63 + 1, 0, 2**53 + 1]
    lines = ["id,x", *(f"{v},0.5" for v in values)]
    if name == "t.jsonl":
        lines = [json.dumps({"id": v, "x": 0.5}) for v in values]
    (tmp_path / name).write_text("\n".join(lines))
    back = read(tmp_path / name)
    assert back["id"].dtype == np.uint64
    assert back["id"].tolist() == values
    assert back["x"].tolist() == [0.5] * 4


def test_large_numbers_that_are_no_integers_stay_floats(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1e300,inf\n123456789012345678901234567890.5,1\n,2\n")
    back = read(tmp_path / "t.csv")
    assert back.dtypes.tolist() == [float, float]
    assert back["a"].tolist()[:2] == [1e300, 123456789012345678901234567890.5]


@pytest.mark.parametrize("name", ["t.txt", "t.csv", "t.jsonl", "t.parquet"])
def test_strings_that_are_no_text_are_not_written(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}: .*surrogate"):
        write(["x", "y\ud800"], tmp_path / name)
    if name in ("t.txt", "t.csv"):
        with pytest.raises(ValueError, match=f"{name}: .*zero byte.*jsonl"):
            write(["x", "y\0"], tmp_path / name)
    else:
        write(["x", "y\0"], tmp_path / name)
        assert read(tmp_path / name) == ["x", "y\0"]


def test_a_stream_is_read_as_a_file_is_and_no_further_than_memory(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "t.csv")
    feed = threading.Thread(target=(tmp_path / "t.csv").write_bytes, args=(b"a,b\n1,2\n",))
    feed.start()
    assert read(tmp_path / "t.csv").to_numpy().tolist() == [[1, 2]]
    feed.join()
    free = psutil.virtual_memory()._replace(available=8 * MEGABYTES)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with open("/dev/zero", "rb") as endless:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(endless.raw)))
        with pytest.raises(ValueError, match="standard input is longer than 2,097,152 bytes"):
            read("-", format="text")


# Parquet.


def parquet(path, columns, **options):
    pq.write_table(
        columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options
    )


def of_delta(column):
    return {"use_dictionary": False, "column_encoding": {column: "DELTA_BYTE_ARRAY"}}


def bombs(n):
    """Columns of n bytes that compress to a few bytes, and the options to write them."""
    text = pa.array(["x" * (n // 500)] * 500)
    packed, plain = {"compression": "zstd"}, {"use_dictionary": False}
    return {
        "equal numbers": ({"a": np.zeros(n // 8, np.int64)}, {}),
        "one string, by a dictionary": ({"a": text}, packed),
        "one string, by its prefix": ({"a": text}, packed | of_delta("a")),
        "one string, packed": ({"a": text}, packed | plain),
        "no values at all": ({"a": pa.nulls(n)}, {}),
    }


@pytest.mark.parametrize("case", bombs(500))
def test_a_small_parquet_file_must_not_fill_the_memory(tmp_path, lower_limit, case):
    columns, options = bombs(30_000_000)[case]
    path = tmp_path / "t.parquet"
    parquet(path, columns, **options)
    assert path.stat().st_size < 200_000
    refuses(path, "decompresses to more than", "100 times its size", "ParquetFile(path)")


@pytest.mark.slow
@pytest.mark.parametrize("case", bombs(500))
def test_bombs_of_640_megabytes_take_no_memory_to_speak_of(tmp_path, request, case):
    columns, options = bombs(640_000_000)[case]
    path = tmp_path / "t.parquet"
    parquet(path, columns, **options)
    del columns
    request.getfixturevalue("little_memory")
    refuses(path, "decompresses to more than", "100 times its size", "ParquetFile(path)")


def varint(n):
    """A number as the footer has it: zigzag, seven bits a byte."""
    n, out = n << 1, bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def lied(path, before, after, count=-1):
    """The file with a number of its footer replaced by another of the same length."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[-8:-4], "little")
    footer = raw[-8 - size : -8]
    assert varint(before) in footer
    assert len(varint(before)) == len(varint(after))
    changed = footer.replace(varint(before), varint(after), count)
    path.write_bytes(raw[: -8 - size] + changed + raw[-8:])
    return path


def test_a_footer_that_makes_little_of_its_pages_is_not_believed(tmp_path, lower_limit):
    path = tmp_path / "t.parquet"
    columns, options = bombs(30_000_000)["one string, packed"]
    parquet(path, columns, **options)
    about = pq.read_metadata(path).row_group(0)
    lied(path, about.column(0).total_uncompressed_size, 2**22)
    refuses(path, "decompresses to more than")


@pytest.mark.parametrize(("count", "claimed"), [(1, 9_001), (-1, 16_383)])
def test_a_footer_with_a_wrong_number_of_rows_is_an_error(tmp_path, count, claimed):
    n, path = 10_003, tmp_path / "t.parquet"
    parquet(path, {"a": np.arange(n), "b": np.arange(n)}, compression="none")
    refuses(lied(path, n, claimed, count), "damaged")


def test_a_footer_that_claims_rows_without_end_costs_nothing(tmp_path, lower_limit):
    path = tmp_path / "t.parquet"
    parquet(path, {"a": np.zeros(10_003)})
    refuses(lied(path, 10_003, 2**20 - 1), "decompresses to more than")


def test_pages_that_are_none_are_named(tmp_path):
    path = tmp_path / "t.parquet"
    parquet(path, {"a": np.arange(300.0)}, compression="none", use_dictionary=False)
    raw = bytearray(path.read_bytes())
    raw[4:12] = b"\xff" * 8
    path.write_bytes(raw)
    refuses(path, "row group 0, column 'a', has no page at byte 4", "write it again")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            pa.table([[1], [2]], names=["a", "a"]),
            ["columns 1 and 2 are both called 'a'", "rename"],
        ),
        (pa.table({"a": [[1]]}), ["column 'a' is 'list<", "its own column"]),
        (pa.table({"a": [{"b": 1}]}), ["column 'a' is 'struct<b: int64>'"]),
        (pa.table({f"c{j}": [1] for j in range(101)}), ["101 columns", "at most 100", ".npy"]),
    ],
    ids=["twice", "lists", "records", "wide"],
)
def test_a_sound_file_of_what_is_no_table_is_not_called_damaged(
    tmp_path, monkeypatch, table, words
):
    monkeypatch.setattr(limits, "MAX_COLUMNS", 100)
    parquet(tmp_path / "t.parquet", table)
    assert "damaged" not in refuses(tmp_path / "t.parquet", *words)


@pytest.mark.parametrize(
    "options",
    [
        {},
        of_delta("text"),
        {"use_dictionary": False, "compression": "none"},
        {"data_page_version": "2.0", "compression": "zstd", "row_group_size": 700},
        {"store_schema": False, "data_page_size": 2000, "dictionary_pagesize_limit": 5000},
    ],
    ids=["default", "delta", "plain", "pages 2", "small pages"],
)
def test_columns_are_read_as_pyarrow_reads_them(tmp_path, options):
    rng, n = np.random.default_rng(0), 2500
    some = rng.random(n) < 0.2
    table = pa.table(
        {
            "text": pa.array([f"user{i % 999}" for i in range(n)], mask=some),
            "large": pa.array(["a" * (i % 50) for i in range(n)], pa.large_string()),
            "bytes": pa.array([b"\0" * (i % 5) for i in range(n)]),
            "level": pa.array(rng.choice(["S", "M"], n)).dictionary_encode(),
            "x": pa.array(rng.normal(size=n), mask=some),
            "flag": rng.random(n) < 0.5,
            "day": pa.array(rng.integers(0, 9999, n).astype(np.int32)).cast(pa.date32()),
            "price": pa.array(rng.integers(0, 99, n)).cast(pa.decimal128(30, 2)),
        }
    )
    parquet(tmp_path / "t.parquet", table, **options)
    expected = pq.read_table(tmp_path / "t.parquet").to_pandas(date_as_object=False)
    pd.testing.assert_frame_equal(read(tmp_path / "t.parquet"), expected, check_exact=True)


@pytest.mark.parametrize("note", [b"no JSON", b"{}", b'{"columns": 7, "index_columns": [[]]}'])
def test_what_pandas_noted_may_be_wrong_where_the_table_is_sound(tmp_path, note):
    table = pa.table({"a": [1, 2]}).replace_schema_metadata({b"pandas": note})
    parquet(tmp_path / "t.parquet", table)
    assert read(tmp_path / "t.parquet")["a"].tolist() == [1, 2]


def test_structs_of_footers_are_read_as_the_protocol_says():
    # By hand: field 1 i32 = -3; field 2 true; field 20 binary "ab"; field 21 list of structs {1: 7}.
    data = bytes([0x15, 5, 0x11, 0x08, 40, 2, 0x61, 0x62, 0x19, 0x1C, 0x15, 14, 0, 0])
    assert read_struct(data) == ({1: -3, 2: True, 20: b"ab", 21: [{1: 7}]}, len(data))
    assert read_struct(b"\x16" + b"\xff" * 9 + b"\x01\x00")[0] == {1: -(2**63)}
    for cut in range(len(data)):
        with pytest.raises(IndexError):
            read_struct(data[:cut])
    with pytest.raises(ValueError, match="64 bits"):
        read_struct(b"\x16" + b"\xff" * 99)
    with pytest.raises(ValueError, match="type 15"):
        read_struct(b"\x1f\x00")


# Images.


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *more, data=b""):
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *more, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(width, height):
    held = io.BytesIO()
    Image.new("L", (16, 16)).save(held, "JPEG")
    data = bytearray(held.getvalue())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


LARGE_TEXT = zlib.compress(bytes(10**8))
PICTURES = {
    "100,000 x 100,000 pixels": ("a.png", png(10**5, 10**5), ["10000000000 pixels", "resize"]),
    "65,000 x 65,000 pixels": ("a.jpg", jpeg(65_000, 65_000), ["pixels", "resize"]),
    "12,000 x 12,000 pixels": ("a.png", png(12_000, 12_000), ["decompresses to more than 100,0"]),
    "11,000 x 11,000 pixels": ("a.jpg", jpeg(11_000, 11_000), ["decompresses to more than 100,0"]),
    "a text of 100 MB": ("a.png", png(9, 9, chunk(b"zTXt", b"k\0\0" + LARGE_TEXT)), ["too large"]),
    "a profile of 100 MB": ("a.png", png(9, 9, chunk(b"iCCP", b"k\0\0" + LARGE_TEXT)), ["too large"]),
    "no pixels": ("a.png", png(0, 0), ["a.png"]),
}  # fmt: skip


@pytest.mark.parametrize("case", PICTURES)
def test_an_image_is_no_more_than_its_file(tmp_path, little_memory, case):
    name, data, words = PICTURES[case]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / name).write_bytes(data)
    refuses(tmp_path / "pictures", name, *words)


def test_images_are_counted_together(tmp_path, lower_limit):
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        data = png(900, 900, data=bytes(901 * 900))
        (tmp_path / "pictures" / f"{i}.png").write_bytes(data)
    refuses(tmp_path / "pictures", "0.png, in a folder of 12 decompresses to more than")
    for i in range(1, 12):
        (tmp_path / "pictures" / f"{i}.png").unlink()
    assert read(tmp_path / "pictures").shape == (1, 900, 900)


def test_a_pipe_among_images_is_not_waited_for(tmp_path):
    (tmp_path / "pictures").mkdir()
    os.mkfifo(tmp_path / "pictures" / "a.png")
    refuses(tmp_path / "pictures", "a.png has the name of an image but is not a file", "move it")


# All of them.


def test_the_limits_are_those_that_the_documentation_states():
    import densekit.formats

    security = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")
    for page in (densekit.formats.__doc__, security):
        words = " ".join(page.split())
        assert f"at most {limits.MAX_COLUMNS:,} columns" in words
        assert f"{limits.MAX_RATIO} times its size plus {limits.EXTRA_BYTES // 10**6} MB" in words
        assert f"{2 * Image.MAX_IMAGE_PIXELS:,} pixels" in words
        assert "a quarter of the free memory" in words


FRAME = pd.DataFrame(
    {
        "age": [31, -4, 7] * 20,
        "income": np.linspace(-1, 1, 60) / 7,
        "member": [True, False, True] * 20,
        "city": ["Bern, CH", 'the "old" one', "NA"] * 20,
        "since": pd.to_datetime(["2020-01-31", "1969-12-31", "2024-02-29"] * 20),
        "size": pd.Categorical(["S", "L", "S"] * 20),
    }
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A valid file of each format, by its name."""
    folder = tmp_path_factory.mktemp("originals")
    for name in ("t.csv", "t.tsv", "t.parquet", "t.jsonl", "t.csv.gz"):
        write(FRAME, folder / name)
    write(FRAME[["age", "income"]].to_numpy(), folder / "t.npy")
    write(FRAME[["age", "income"]].to_numpy(), folder / "t.npz")
    write(["one two", "three"] * 10, folder / "t.txt")
    small = {"a": ["x", "yy"] * 50, "b": range(100)}
    parquet(folder / "v.parquet", small, compression="none", row_group_size=30)
    parquet(folder / "d.parquet", small, data_page_version="2.0", **of_delta("a"))
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9)).astype(np.uint8)
    for name in ("i.png", "i.jpg"):
        Image.fromarray(pixels).save(folder / name)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def mutate(raw, rng):
    """The file with bits, bytes or a part of it changed, often where headers and footers are."""
    data, kind = bytearray(raw), rng.integers(6)
    if kind == 0:
        for _ in range(rng.integers(1, 9)):
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[rng.integers(len(data)) :]
    elif kind == 2:
        a, b, n = (int(v) for v in rng.integers(0, len(data), 3))
        data[a : a + n % 64] = data[b : b + n % 64]
    elif kind == 3:
        a, n = int(rng.integers(len(data))), int(rng.integers(1, 9))
        data[a : a + n] = bytes([rng.choice([0, 255, 127, 128, 1])]) * n
    else:
        for _ in range(rng.integers(1, 5)):
            place = int(rng.integers(1, min(len(data), 600)))
            data[-place if kind == 4 else place - 1] = int(rng.integers(256))
    return bytes(data)


def fuzz(originals, n, seed, folder):
    """Numbers of n mutants that raised ValueError and that were read; any other outcome fails."""
    process, names = psutil.Process(), sorted(originals)
    counts, before = {"refused": 0, "read": 0}, process.memory_info().rss
    (folder / "pictures").mkdir()
    for i in range(n):
        rng = np.random.default_rng((seed, i))
        name = names[rng.integers(len(names))]
        path = folder / "pictures" / name if name.startswith("i.") else folder / f"m{name}"
        path.write_bytes(mutate(originals[name], rng))
        outcome = "read"
        try:
            read(path.parent if name.startswith("i.") else path)
        except ValueError as error:
            outcome = "refused" if str(path) in str(error) else f"without a name: {error}"
        except BaseException as error:
            raise AssertionError(f"mutant {(seed, i)} of {name}: {error!r}") from error
        assert outcome in counts, f"mutant {(seed, i)} of {name}: {outcome}"
        counts[outcome] += 1
        path.unlink()
        grown = (process.memory_info().rss - before) / MEGABYTES
        assert grown < 300, f"mutant {(seed, i)} of {name}: {grown:.0f} MB"
    return counts


def test_five_hundred_mutants_are_refused_by_name_or_read(tmp_path, originals):
    counts = fuzz(originals, 500, 1, tmp_path)
    assert min(counts.values()) > 50


@pytest.mark.slow
def test_ten_thousand_mutants_are_refused_by_name_or_read(tmp_path, originals):
    assert sum(fuzz(originals, 10_000, 2, tmp_path).values()) == 10_000
