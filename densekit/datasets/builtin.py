"""Real data that is on every machine with scikit-learn and Python: nothing is downloaded."""

import hashlib
import re
from collections.abc import Callable, Iterator

import numpy as np

from densekit.datasets.base import Dataset, split
from densekit.datasets.catalog import dataset
from densekit.datasets.tables import take


def breast_cancer() -> Dataset:
    """569 rows of 30 real columns, a DataFrame: cell nuclei measured in images of breast masses.

    The diagnosis is left out. Street, Wolberg and Mangasarian 1993; UCI, CC BY 4.0.
    """
    from sklearn.datasets import load_breast_cancer

    X = load_breast_cancer(as_frame=True).data
    return dataset("breast_cancer", take(X, split(len(X), seed=569)))


def digits() -> Dataset:
    """1797 gray images of handwritten digits, uint8 (n, 8, 8), in their own levels 0 to 16.

    The levels are not stretched to 255. As a bijection that would change no mass, but it leaves 15
    impossible levels between every two possible ones, and a model that is smooth in the level
    would be charged up to log 16 nats a pixel for gaps that the pictures do not have.
    Alpaydin and Kaynak 1998; UCI, CC BY 4.0.
    """
    from sklearn.datasets import load_digits

    X = load_digits().images.astype(np.uint8)
    parts = take(X, split(len(X), seed=1797))
    return dataset("digits", parts, support=("interval", 0, 16))


def pydoc() -> Dataset:
    """English sentences of 20 to 200 characters from the standard library's ``pydoc_data.topics``.

    Code, grammars and tables are left out, duplicates too. Each sentence goes by its own SHA-256
    to train, valid or test, so that a sentence found in two versions of Python lies in the same
    part in both; which sentences there are depends on the version (see :attr:`Dataset.digest`).
    Python Software Foundation License.
    """
    from pydoc_data.topics import topics

    sentences = sorted({s for topic in sorted(topics) for s in _sentences(topics[topic])})
    # By hash too: neighbors of the alphabet would otherwise share a batch.
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
# Rare signs stay out, so that no character of the test part is unknown to the train part.
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
