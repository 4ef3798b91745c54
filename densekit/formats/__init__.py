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
"""

from densekit.formats.places import FORMATS, SUFFIXES
from densekit.formats.reading import read
from densekit.formats.room import check_room
from densekit.formats.writing import check_target, write, write_pieces

__all__ = ["FORMATS", "SUFFIXES", "check_room", "check_target", "read", "write", "write_pieces"]
