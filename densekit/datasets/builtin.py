"""Real data sets that come with scikit-learn and Python, without a download."""

import hashlib
import re
from collections.abc import Callable, Iterator

import numpy as np

from densekit.datasets.base import Dataset, split
from densekit.datasets.catalog import dataset
from densekit.datasets.tables import take


def breast_cancer() -> Dataset:
    """Wisconsin breast cancer: 569 rows of 30 real columns, as a DataFrame.

    The columns are measurements of cell nuclei in images of breast masses. The diagnosis is dropped.
    Street, Wolberg and Mangasarian (1993), https://doi.org/10.24432/C5DW2B, CC BY 4.0.
    """
    from sklearn.datasets import load_breast_cancer

    X = load_breast_cancer(as_frame=True).data
    return dataset("breast_cancer", take(X, split(len(X), seed=569)))


def digits() -> Dataset:
    """1797 grayscale images of handwritten digits, uint8 (n, 8, 8), with levels 0 to 16.

    The levels are not stretched to 0..255. Stretching would leave 15 impossible levels between any two
    possible ones, for which a model that is smooth in the level would lose up to log 16 nats per pixel.
    Alpaydin and Kaynak (1998), https://doi.org/10.24432/C50P49, CC BY 4.0.
    """
    from sklearn.datasets import load_digits

    X = load_digits().images.astype(np.uint8)
    parts = take(X, split(len(X), seed=1797))
    return dataset("digits", parts, support=("interval", 0, 16))


def pydoc() -> Dataset:
    """English sentences of 20 to 200 characters from the standard library's ``pydoc_data.topics``.

    Code, grammars, tables and duplicates are dropped. The sentences depend on the version of
    Python (see :attr:`Dataset.digest`). The SHA-256 of a sentence decides its part, so a sentence
    that occurs in two versions is in the same part in both. Python Software Foundation License.
    """
    from pydoc_data.topics import topics

    sentences = sorted({s for topic in sorted(topics) for s in _sentences(topics[topic])})
    # Sorted by hash, because alphabetical neighbors would otherwise be in the same batch.
    keyed = sorted((hashlib.sha256(s.encode()).digest(), s) for s in sentences)
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for key, sentence in keyed:
        share = int.from_bytes(key[-4:], "big") / 2**32
        parts[0 if share < 0.72 else 1 if share < 0.8 else 2].append(sentence)
    return dataset("pydoc", parts)


LOADERS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader for loader in (breast_cancer, digits, pydoc)
}


_NOT_PROSE = re.compile(r">>>|::=|===|\*\*\*|\||\+--")
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\"'*][.!?])\s+(?=[\"A-Z*])")
# Rare characters are excluded: every character of the test part must occur in the training part.
_SENTENCE = re.compile(r"[A-Z\"][\w \"'()*,./:;?!\[\]-]{18,198}[.!?]", re.ASCII)


def _sentences(text: str) -> Iterator[str]:
    """Sentences of the paragraphs that are prose."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.strip("\n").split("\n")
        joined = re.sub(r"^(\*|\d+\.|\[\d+\]) +", "", " ".join(map(str.strip, lines)))
        # Hyphenated words were broken at line ends: "two- dimensional".
        joined = re.sub(r"(?<=[a-z])- (?=[a-z])", "-", joined)
        if not _NOT_PROSE.search(joined):
            yield from filter(_SENTENCE.fullmatch, _SENTENCE_END.split(joined))
