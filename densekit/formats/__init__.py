"""Data files: rows read from them and written to them.

=========  =============================  ========================================================
format     names                          rows
=========  =============================  ========================================================
csv        ``.csv``, ``.tsv``             DataFrame; the first line names the columns
parquet    ``.parquet``, ``.pq``          DataFrame, every dtype kept
npy        ``.npy``                       array
npz        ``.npz``, ``file.npz:key``     array: the only one of the file, or the one of that key
jsonl      ``.jsonl``, ``.ndjson``        a line is a record (DataFrame) or a string (list of str)
text       ``.txt``                       list of str, one per line
images     a folder of PNG or JPEG        array of uint8 (n, height, width) or (n, height, width, 3)
=========  =============================  ========================================================

What separates the values of a CSV file is found out, of ``, ; |`` and the tab, unless ``sep`` says it;
numbers whose decimals come behind a comma want ``decimal=","``, which a warning says.

Text formats may be compressed (``.csv.gz``). ``-`` is standard input or output: CSV, unless
``format`` names another. A table whose only column is called ``text`` is a list of strings.

What a format keeps: Parquet everything. CSV and JSON lines keep integers, floats, booleans, strings,
dates and times (ISO 8601), but categories come back as strings, float32 as float64, and in CSV a
string of digits as a number. An array written to a table has columns ``x0``, ``x1``, ... A folder of
images keeps pixels: booleans as one bit, floats in [0, 1] rounded to 256 levels.

Nothing that a file holds is executed: pickles are refused.

What a file says of itself is compared with its size before memory is taken for it, and a file beyond
these limits is a ValueError that names the file, the line or column, and the remedy.

============  =======================================================================================
format        limits
============  =======================================================================================
tables        at most 20,000 columns, whose names differ; values are numbers, strings, booleans, dates
              or times, and not lists or records
csv, jsonl    integers of 64 bits, with or without a sign
csv, text     UTF-8 without zero bytes
jsonl         no key twice in a record, no half of a surrogate pair
``.gz``       unpacks to at most 100 times its size and 100 MB more
parquet       the same, both for its pages and for the values that they stand for
npz           the same, for the array that is read, which is not encrypted
npy, npz      the header tells of as many bytes as follow it; no Python objects
images        gray or RGB with 8 bits; all together at most 100 times the size of their files and 100 MB
              more; no image of more than 178,956,970 pixels
Arrow         not read from files (``.arrow``, ``.feather``): nothing bounds what their buffers unpack to
streams       ``-`` and pipes: a quarter of the memory that is free
============  =======================================================================================
"""

from densekit.formats.places import FORMATS, SUFFIXES
from densekit.formats.reading import read
from densekit.formats.room import check_room
from densekit.formats.writing import check_target, write, write_pieces

__all__ = ["FORMATS", "SUFFIXES", "check_room", "check_target", "read", "write", "write_pieces"]
