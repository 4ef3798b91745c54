"""Reading and writing of rows in data files.

=========  =============================  ========================================================
format     names                          rows
=========  =============================  ========================================================
csv        ``.csv``, ``.tsv``             DataFrame; the first line has the names of the columns
parquet    ``.parquet``, ``.pq``          DataFrame with all dtypes preserved
npy        ``.npy``                       array
npz        ``.npz``, ``file.npz:key``     array: the only array of the file, or the one with that key
jsonl      ``.jsonl``, ``.ndjson``        DataFrame if lines are records, list of str if strings
text       ``.txt``                       list of str, one per line
images     a folder of PNG or JPEG        array of uint8 (n, height, width) or (n, height, width, 3)
=========  =============================  ========================================================

The separator of a CSV file is detected among ``, ; |`` and the tab unless ``sep`` is given. Numbers with
decimal commas need ``decimal=","``; a warning points this out.

Text formats may be compressed (``.csv.gz``). The path ``-`` means standard input or output, as CSV
unless ``format`` is given. A table whose only column is called ``text`` is a list of strings.

Parquet preserves everything. CSV and JSON lines preserve integers, floats, booleans, strings, dates and
times (ISO 8601), but categories become strings and float32 becomes float64. In CSV, a string of digits
becomes a number. An array that is written as a table has columns ``x0``, ``x1``, ... A folder of images
stores booleans as one bit and rounds floats in [0, 1] to 256 levels.

No code in a file is executed: pickles raise an error.

The size that a file claims is checked before memory is allocated. A file beyond the following limits
raises a ValueError with the name of the file, the line or column, and a remedy.

============  =======================================================================================
format        limits
============  =======================================================================================
tables        at most 20,000 columns with different names; values are numbers, strings, booleans, dates
              or times, not lists or records
csv, jsonl    signed or unsigned 64-bit integers
csv, text     UTF-8 without zero bytes
jsonl         no duplicate key in a record, no unpaired surrogate
``.gz``       decompresses to at most 100 times its size plus 100 MB
parquet       the same, both for its pages and for their decoded values
npz           the same, for the array that is read, which must not be encrypted
npy, npz      the header claims no more bytes than follow it; no Python objects
images        grayscale or RGB with 8 bits; in total at most 100 times the size of their files plus
              100 MB; at most 178,956,970 pixels per image
Arrow         cannot be read (``.arrow``, ``.feather``), because the size of its buffers is not bounded
streams       ``-`` and pipes: at most a quarter of the free memory
============  =======================================================================================
"""

from densekit.extras import require

require("files", "psutil", "pyarrow", "PIL")

from densekit.formats.locations import FORMATS, SUFFIXES
from densekit.formats.reading import read
from densekit.formats.space import check_space
from densekit.formats.writing import check_target, write, write_pieces

__all__ = ["FORMATS", "SUFFIXES", "check_space", "check_target", "read", "write", "write_pieces"]
