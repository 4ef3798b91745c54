"""Text: strings to token ids, and back."""

import functools
import itertools
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from densekit.codecs.base import Codec
from densekit.codecs.schema import Modality, Schema
from densekit.containers.strings import build_strings, read_strings, series_of

PADDING, END, UNKNOWN = 0, 1, 2
"""Ids with a meaning of their own; symbols begin at 3."""
_SPECIAL = 3
_SCALARS = 0x110000 - 0x800
"""Number of Unicode characters: all code points but the surrogates."""
_BPE_SIZE = 1024


class TextCodec(Codec):
    r"""Strings to token ids (n, L): tokens, ``END`` = 1, then ``PADDING`` = 0.

    L is one more than the tokens of the longest string *of the call*, at most ``max_length + 1``.

    The score is a mass over all strings. At ``"character"`` level a character that ``fit`` did not
    see has id 2, and its log-mass is that of the id minus :math:`\log(1\,112\,064 - V)`: what the
    model gives to unknown symbols is shared equally among all Unicode characters that are not
    among its V known ones, so the masses of all strings sum to one. At ``"byte"`` level (UTF-8)
    nothing is unknown; sequences that are no UTF-8 take a little mass that no string has.
    ``"bpe"`` (byte pairs, Sennrich et al. 2016, over bytes) scores the one tokenization that the
    tokenizer makes of a string, a lower bound of the string's mass. ``"word"`` is what stands between
    single spaces; the mass of the unknown word is shared among all words that ``fit`` did not see,
    a word w with the share of :math:`2^{-|w| - 1} / 1\,112\,063^{|w|}`, and one empty word, which
    no string is, takes a little mass.

    Parameters
    ----------
    tokens : {"character", "byte", "bpe", "word"}
    vocab_size : int, optional
        Number of token ids, the three special ones included: for ``"bpe"`` (1024 unless given, at
        least 259), and for ``"character"`` and ``"word"`` where only the most frequent are to be kept.
    max_length : int, optional
        Most tokens of a string, its prompt included; None takes twice the longest in ``fit``.

    Examples
    --------
    >>> codec = TextCodec(max_length=4).fit(["ab", "b"])
    >>> codec.encode(["b", "ba", ""])[0].tolist()
    [[4, 1, 0], [4, 3, 1], [1, 0, 0]]
    >>> codec.decode(torch.tensor([[4, 3, 1, 0], [2, 4, 4, 1]]))
    ['ba', '\ufffdbb']
    """

    modality: ClassVar[Modality] = "text"
    options: ClassVar[tuple[str, ...]] = ("tokens", "vocab_size", "max_length")

    def __init__(
        self,
        tokens: Literal["character", "byte", "bpe", "word"] = "character",
        vocab_size: int | None = None,
        max_length: int | None = 1024,
    ) -> None:
        self.tokens = tokens
        self.vocab_size = vocab_size
        self.max_length = max_length

    def fit(
        self,
        X: Any,
        what: str = "X",
        prompts: Any = None,
        weights: np.ndarray | None = None,
    ) -> "TextCodec":
        """Learn the symbols of the strings and of their prompts, one for all or one for each; ``what``
        is the name that errors give to X.

        Where there is no room for all symbols, those of a string of weight w (n,) count w times; byte
        pairs are counted by whole numbers, w rounded and one at least.

        Raises
        ------
        TypeError
            An item of X is not a string.
        ValueError
            X is empty, an item is not valid Unicode or longer than ``max_length``, or a
            hyper-parameter is out of range.
        ImportError
            ``tokens="bpe"`` without the ``tokenizers`` library.
        """
        texts = read_strings(X, what)
        before = [] if prompts is None else read_strings(prompts, "context")
        every = [*before, *texts]
        times = None
        if weights is not None:
            times = [*(weights if len(before) == len(texts) else np.ones(len(before))), *weights]
        self._check()
        self.container, self.dtype, self.name = series_of(X)
        self.symbols, self.tokenizer = "", ""
        if self.tokens == "character":
            self.symbols = "".join(_most_frequent(every, times, self.vocab_size))
            size = _SPECIAL + len(self.symbols)
        elif self.tokens == "word":
            words = list(map(_words, every))
            self.symbols = " ".join(_most_frequent(words, times, self.vocab_size))
            size = _SPECIAL + len(_words(self.symbols))
        elif self.tokens == "byte":
            size = _SPECIAL + 256
        else:
            if times is not None:
                repeats = [max(1, round(float(w))) for w in times]
                every = [t for t, k in zip(every, repeats, strict=True) for _ in range(k)]
            self.tokenizer = _train_bpe(every, (self.vocab_size or _BPE_SIZE) - _SPECIAL)
            size = _SPECIAL + _bpe(self.tokenizer).get_vocab_size()
        lengths = self._ids(texts)[1]
        if len(before) in (1, len(texts)):  # another number is refused when they are encoded
            lengths = lengths + self._ids(before)[1]
            what = f"with its prompt, {what}"
        self.longest = self.max_length
        if self.longest is None:
            self.longest = 2 * max(1, int(lengths.max()))
        self._check_lengths(lengths, texts, what)
        self.schema = Schema(
            modality="text",
            event_shape=(self.longest + 1,),
            vocab_size=size,
            exact=self.tokens != "bpe",
        )
        return self

    def encode(self, X: Any, what: str = "X") -> tuple[Tensor, Tensor]:
        """Encode strings as ids, int64 (n, L), with the log-masses of their unknown symbols, (n,).

        Raises
        ------
        TypeError, ValueError
            As :meth:`fit`.
        """
        texts = read_strings(X, what)
        ids, lengths = self._ids(texts)
        self._check_lengths(lengths, texts, what, scored=what == "X")
        out = _pad(ids, lengths, int(lengths.max()) + 1)
        out[np.arange(len(out)), lengths] = END
        return torch.from_numpy(out), torch.from_numpy(self._spelling(ids, lengths, texts))

    def documents(self, X: Any) -> tuple[list[Tensor], Tensor]:
        """As :meth:`encode`, for strings of any length: the ids of each, END last, unpadded."""
        texts = read_strings(X)
        ids, lengths = self._ids(texts)
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        rows = [torch.from_numpy(np.append(part, END)) for part in parts]
        return rows, torch.from_numpy(self._spelling(ids, lengths, texts))

    def prompts(self, X: Any) -> Tensor:
        """Encode prompts as ids without ``END``, int64 (n, L), padded with 0."""
        texts = read_strings(X, "context")
        row = next((i for i, t in enumerate(texts) if t.endswith(" ")), None)
        if row is not None and self.tokens in ("word", "bpe"):
            warnings.warn(
                f"context[{row}] ends in a space, after which tokens={self.tokens!r} have an empty "
                "word: end the prompt without one"
                + (" and begin what follows with it" if self.tokens == "bpe" else ""),
                UserWarning,
                stacklevel=2,
            )
        ids, lengths = self._ids(texts)
        self._check_lengths(lengths, texts, "context")
        return torch.from_numpy(_pad(ids, lengths, int(lengths.max())))

    def decode(self, typed: Tensor) -> Any:
        """Ids (n, L) to strings, each up to its first ``END``, in the container that ``fit`` saw.

        Unknown symbols and bytes that are no UTF-8 become U+FFFD.
        """
        ids = typed.detach().cpu().numpy().astype(np.int64)
        live = np.cumsum(ids == END, 1) == 0
        live &= ids != PADDING
        if self.tokens == "character":
            table = np.array([0, 0, 0xFFFD, *map(ord, self.symbols)], dtype="<u4")
            joined = table[ids[live]].tobytes().decode("utf-32-le")
            ends = np.cumsum(live.sum(1)).tolist()
            texts = [joined[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        elif self.tokens == "word":
            words = np.array(["", "", "\ufffd", *_words(self.symbols)], dtype=object)
            texts = [" ".join(words[row[keep]]) for row, keep in zip(ids, live, strict=True)]
        elif self.tokens == "byte":
            texts = [_from_bytes(row[keep]) for row, keep in zip(ids, live, strict=True)]
        else:
            texts = [
                self._from_bpe(row[keep].tolist()) for row, keep in zip(ids, live, strict=True)
            ]
        return build_strings(texts, self.container, self.dtype, self.name)

    # Small things.

    def _check(self) -> None:
        if self.tokens not in ("character", "byte", "bpe", "word"):
            raise ValueError(
                f"tokens={self.tokens!r}; choose 'character', 'byte', 'bpe' or 'word'."
            )
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length={self.max_length!r} must be at least 1.")
        size = self.vocab_size
        least = {"character": 4, "byte": 259, "bpe": 259, "word": 4}[self.tokens]
        if size is not None and (size < least or (self.tokens == "byte" and size != least)):
            relation = "is always" if self.tokens == "byte" else "must be at least"
            raise ValueError(
                f"vocab_size={size!r} {relation} {least} for tokens={self.tokens!r} (three ids "
                "are special): change it or leave it out."
            )

    def _check_lengths(
        self, lengths: np.ndarray, texts: list[str], what: str, scored: bool = False
    ) -> None:
        if lengths.max() > (self.longest or 0):
            row = int((lengths > (self.longest or 0)).argmax())
            windows = ", or (a language model) score it with score_documents" if scored else ""
            raise ValueError(
                f"{what}[{row}] has {int(lengths[row])} tokens ({texts[row][:20]!r}...); max_length "
                f"is {self.longest}: cut the string into pieces, or fit with a larger max_length"
                f"{windows}."
            )

    def _ids(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of all strings, one after the other, and how many each has."""
        if self.tokens == "character":
            codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
            known = np.array([ord(c) for c in self.symbols], dtype="<u4")
            place = np.searchsorted(known, codes)
            found = known[place.clip(max=len(known) - 1)] == codes if len(known) else place < 0
            ids = np.where(found, place + _SPECIAL, UNKNOWN)
            return ids.astype(np.int64), np.array([len(t) for t in texts])
        if self.tokens == "byte":
            parts = [t.encode() for t in texts]
            ids = np.frombuffer(b"".join(parts), dtype=np.uint8).astype(np.int64) + _SPECIAL
            return ids, np.array([len(p) for p in parts])
        if self.tokens == "word":
            index = {word: i for i, word in enumerate(_words(self.symbols), _SPECIAL)}
            found = [[index.get(word, UNKNOWN) for word in _words(t)] for t in texts]
            flat = np.array([i for row in found for i in row], dtype=np.int64)
            return flat, np.array([len(row) for row in found])
        encoded = [e.ids for e in _bpe(self.tokenizer).encode_batch(texts)]
        flat = np.array([i for row in encoded for i in row], dtype=np.int64) + _SPECIAL
        return flat, np.array([len(row) for row in encoded])

    def _spelling(self, ids: np.ndarray, lengths: np.ndarray, texts: list[str]) -> np.ndarray:
        """Log-mass of the unknown symbols of each string given that they are unknown, (n,)."""
        unknown = ids == UNKNOWN
        out = np.zeros(len(texts))
        if self.tokens == "character" and unknown.any():
            count = np.bincount(
                np.repeat(np.arange(len(texts)), lengths)[unknown], minlength=len(out)
            )
            out -= count * math.log(_SCALARS - len(self.symbols))
        if self.tokens == "word" and unknown.any():
            known = set(_words(self.symbols))
            free = math.log1p(-sum(math.exp(_log_spelling(word)) for word in known))
            of_row = np.split(unknown, np.cumsum(lengths)[:-1])
            for row in np.flatnonzero([part.any() for part in of_row]):
                new = [word for word in _words(texts[row]) if word not in known]
                out[row] = sum(_log_spelling(word) - free for word in new)
        return out

    def _from_bpe(self, ids: list[int]) -> str:
        pieces: list[list[int]] = [[]]
        for i in ids:
            if i == UNKNOWN:
                pieces.append([])
            else:
                pieces[-1].append(i - _SPECIAL)
        return "\ufffd".join(_bpe(self.tokenizer).decode(p) for p in pieces)


def _words(text: str) -> list[str]:
    """What stands between single spaces; no word in an empty string."""
    return text.split(" ") if text else []


def _log_spelling(word: str) -> float:
    """Log-mass of a word among all words: lengths are geometric, characters alike."""
    return -(len(word) + 1) * math.log(2) - len(word) * math.log(_SCALARS - 1)


def _most_frequent(
    texts: Sequence[str | list[str]], weights: Sequence[float] | None, vocab_size: int | None
) -> list[str]:
    """All different symbols of texts, or as many as there is room for; sorted."""
    counts: Counter[str] = Counter(itertools.chain.from_iterable(texts))
    kept = list(counts)
    if vocab_size is not None and len(kept) > vocab_size - _SPECIAL:
        if weights is not None:
            heavy: dict[str, float] = dict.fromkeys(counts, 0.0)
            for text, weight in zip(texts, weights, strict=True):
                for symbol, times in Counter(text).items():
                    heavy[symbol] += times * float(weight)
            return sorted(sorted(kept, key=lambda c: (-heavy[c], c))[: vocab_size - _SPECIAL])
        kept = sorted(kept, key=lambda c: (-counts[c], c))[: vocab_size - _SPECIAL]
    return sorted(kept)


def _pad(ids: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    out = np.full((len(lengths), width), PADDING, dtype=np.int64)
    out[np.arange(width) < lengths[:, None]] = ids
    return out


def _from_bytes(ids: np.ndarray) -> str:
    pieces = np.split(ids, np.flatnonzero(ids == UNKNOWN))
    kept = [p[p != UNKNOWN] - _SPECIAL for p in pieces]
    return "\ufffd".join(p.astype(np.uint8).tobytes().decode(errors="replace") for p in kept)


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            "tokens='bpe' needs the tokenizers library: pip install 'densekit[text]'."
        ) from None
    return tokenizers


def _train_bpe(texts: Sequence[str], size: int) -> str:
    lib = _tokenizers()
    tokenizer = lib.Tokenizer(lib.models.BPE())
    tokenizer.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = lib.decoders.ByteLevel()
    trainer = lib.trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(lib.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


@functools.lru_cache(maxsize=8)
def _bpe(state: str) -> Any:
    return _tokenizers().Tokenizer.from_str(state)
