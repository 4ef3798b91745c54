"""Text data sets, with a list of strings for each part.

A model must predict the end of each string, and metrics count the end as one character. Files are
split into rows at line feeds, so the end of a row stands for its line feed and a part has as many
symbols as its file has characters. Scores per character are therefore comparable to those of the
whole file, except that published results usually condition on the text before a row.
"""

import itertools
from collections.abc import Callable

from densekit.datasets import fetch
from densekit.datasets.base import Dataset
from densekit.datasets.catalog import dataset

_BLOCK = 1000
_TEXT8_BLOCK = 256


def tinyshakespeare() -> Dataset:
    r"""Plays of Shakespeare in blocks of whole lines with up to 1,000 characters.

    The test part is the last tenth of the 1,115,394 characters, as in nanoGPT, and the validation
    part is the twentieth before it. Both start at the beginning of a line. Karpathy (2015),
    https://karpathy.github.io/2015/05/21/rnn-effectiveness, public domain.
    """
    text = fetch.text("tinyshakespeare/input.txt.gz").decode()
    first, second = (text.rindex("\n", 0, len(text) * share // 20) + 1 for share in (17, 18))
    parts = text[:first], text[first:second], text[second:]
    return dataset("tinyshakespeare", map(blocks, parts))


def ptb() -> Dataset:
    """Penn Treebank with Mikolov's preprocessing: one sentence per row, words separated by spaces.

    There are 929,589, 73,760 and 82,430 words including one end per row, as in papers. Words outside the
    10,000 most frequent are ``<unk>``, and numbers are ``N``.
    """
    return dataset("ptb", ([" ".join(line.split()) for line in part] for part in _ptb()))


def ptb_characters() -> Dataset:
    """Penn Treebank for models of characters: :func:`ptb` with underscores between words.

    There are 5,017,482, 393,042 and 442,423 characters including one end per row.
    """
    return dataset(
        "ptb_characters", (["_".join(line.split()) for line in part] for part in _ptb())
    )


def text8() -> Dataset:
    """text8: 100 million letters a to z and spaces from Wikipedia, in blocks of 256 characters.

    The first 90 million characters are the training part, the next 5 million the validation part and the
    last 5 million the test part. Blocks split words, as in papers on discrete diffusion. The end of a
    block is not a character of the file, but ``bits_per_character`` counts it: multiply by 257 / 256 to
    compare with published results. Mahoney (2006), http://mattmahoney.net/dc/textdata.
    """
    letters = fetch.members("text8/text8.zip", "text8$")["text8"].decode()
    million = len(letters) // 100  # A hundredth, so that tests can use a smaller file.
    cuts = [0, 90 * million, 95 * million, len(letters)]
    parts = (letters[a:b] for a, b in itertools.pairwise(cuts))
    return dataset(
        "text8",
        ([p[i : i + _TEXT8_BLOCK] for i in range(0, len(p), _TEXT8_BLOCK)] for p in parts),
    )


def wikitext2() -> Dataset:
    """WikiText-2: one line of the file per row, a paragraph, a heading or an empty string.

    There are 2,088,628, 217,646 and 245,569 words including one end per row. Rows may have several
    thousand characters. Merity et al. (2017), https://arxiv.org/abs/1609.07843.
    """
    files = fetch.members("wikitext-2/wikitext-2-v1.zip", r"(train|valid|test)(?=\.tokens)")
    parts = (lines(files[part].decode()) for part in ("train", "valid", "test"))
    return dataset("wikitext2", parts, max_length=None)


def wikitext2_partial() -> Dataset:
    """The validation and test parts of WikiText-2 only; scores are not comparable to published ones.

    The training part is the first nine tenths of the lines of the published validation part, and the
    validation part is the rest.
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
    r"""The lines of a text, without line feeds and surrounding spaces.

    >>> lines(" = A = \n \n b\n")
    ['= A =', '', 'b']
    """
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


def blocks(text: str, size: int = _BLOCK) -> list[str]:
    r"""Group whole lines into blocks of at most ``size`` characters; a longer line is a block.

    Blocks do not include their last line feed: ``"\n".join(blocks) + "\n"`` is the text.

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
