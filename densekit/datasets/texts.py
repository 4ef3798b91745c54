"""Texts: a list of strings for each part.

The end of a string is a symbol that has to be predicted, and it is counted as one character. Rows
are cut so that it stands for the line feed at which they were cut: then a part has as many symbols
as characters in its file, and a score per character is one of the file. What no cut can keep is
the context across rows, which the published figures use unless they say otherwise.
"""

import itertools
from collections.abc import Callable

from densekit.datasets import fetch
from densekit.datasets.base import Dataset
from densekit.datasets.catalog import dataset

_BLOCK = 1000
_TEXT8_BLOCK = 256


def tinyshakespeare() -> Dataset:
    r"""The plays in blocks: as many whole lines as fit into 1,000 characters, line feeds between.

    test is the last tenth of the 1,115,394 characters, on which nanoGPT reports, and valid the
    twentieth before it; both from the beginning of a line. Karpathy 2015; public domain.
    """
    text = fetch.text("tinyshakespeare/input.txt.gz").decode()
    first, second = (text.rindex("\n", 0, len(text) * share // 20) + 1 for share in (17, 18))
    parts = text[:first], text[first:second], text[second:]
    return dataset("tinyshakespeare", map(blocks, parts))


def ptb() -> Dataset:
    """Penn Treebank as Mikolov et al. 2011 prepared it: a sentence a row, words by single spaces.

    With one end for each row there are 929,589, 73,760 and 82,430 words, as papers have it; words
    that are not among the 10,000 most frequent are ``<unk>``, numbers are ``N``.
    """
    return dataset("ptb", ([" ".join(line.split()) for line in part] for part in _ptb()))


def ptb_characters() -> Dataset:
    """:func:`ptb` for models of characters: words are parted by underscores.

    With one end for each row there are 5,017,482, 393,042 and 442,423 characters.
    """
    return dataset(
        "ptb_characters", (["_".join(line.split()) for line in part] for part in _ptb())
    )


def text8() -> Dataset:
    """100 million letters a to z and spaces of Wikipedia, in blocks of 256 characters.

    The first 90 million are train, 5 million valid, 5 million test. Blocks break words, as in the
    papers on discrete diffusion, and their ends stand for nothing: ``bits_per_character`` counts 257
    symbols a row, so it is to be multiplied by 257 / 256 beside the published figures. Mahoney 2006.
    """
    letters = fetch.members("text8/text8.zip", "text8$")["text8"].decode()
    million = len(letters) // 100  # the file's own, or a smaller one's hundredth
    cuts = [0, 90 * million, 95 * million, len(letters)]
    parts = (letters[a:b] for a, b in itertools.pairwise(cuts))
    return dataset(
        "text8",
        ([p[i : i + _TEXT8_BLOCK] for i in range(0, len(p), _TEXT8_BLOCK)] for p in parts),
    )


def wikitext2() -> Dataset:
    """WikiText-2: a line of the file a row, which is a paragraph, a heading or empty.

    With one end for each row there are 2,088,628, 217,646 and 245,569 words. A row may have some
    thousand characters. Merity et al. 2017.
    """
    found = fetch.members("wikitext-2/wikitext-2-v1.zip", r"(train|valid|test)(?=\.tokens)")
    parts = (lines(found[part].decode()) for part in ("train", "valid", "test"))
    return dataset("wikitext2", parts, max_length=None)


def wikitext2_partial() -> Dataset:
    """Validation and test part of WikiText-2 only: nothing here compares with the literature.

    train is the first nine tenths of the lines of the published validation part, valid the rest.
    """
    valid, test = (
        lines(fetch.text(f"wikitext-2-partial/{part}.txt.gz").decode())
        for part in ("valid", "test")
    )
    cut = len(valid) * 9 // 10
    return dataset("wikitext2_partial", (valid[:cut], valid[cut:], test), max_length=None)


LOADERS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader
    for loader in (tinyshakespeare, ptb, ptb_characters, text8, wikitext2, wikitext2_partial)
}


def lines(text: str) -> list[str]:
    r"""The lines of a text, without their line feeds and the spaces around them.

    >>> lines(" = A = \n \n b\n")
    ['= A =', '', 'b']
    """
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


def blocks(text: str, size: int = _BLOCK) -> list[str]:
    r"""Whole lines of a text in blocks of at most ``size`` characters; longer lines stand alone.

    Each block lacks its last line feed: ``"\n".join(blocks) + "\n"`` is the text.

    >>> blocks("a\nbb\n\nccc\n", 4)
    ['a\nbb', '\nccc']
    """
    out: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        if out and len(out[-1]) + 1 + len(line) <= size:
            out[-1] += "\n" + line
        else:
            out.append(line)
    return out


def _ptb() -> list[list[str]]:
    files = (fetch.text(f"ptb/ptb.{part}.txt.gz") for part in ("train", "valid", "test"))
    return [lines(text.decode()) for text in files]
