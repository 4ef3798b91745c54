r"""Held-out likelihood: the mean over rows, how far off it may be, and the usual units.

All take log-densities in nats, one per row, as ``score_samples(X, return_std=True)`` gives them.
The standard error of a mean of n scores :math:`l_i` with Monte Carlo errors :math:`e_i` is

.. math::  \sqrt{s^2 / n + \bar e^2}, \qquad s^2 = \frac{1}{n-1} \sum_i (l_i - \bar l)^2.

The first part is what other test rows would change. The second takes the Monte Carlo errors as
wholly dependent, because all rows share one bank of noise: they do not average out.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Estimate:
    """A number, its standard error and its unit."""

    value: float
    standard_error: float
    unit: str


def held_out_nats(scores: ArrayLike, errors: ArrayLike | None = None) -> Estimate:
    """Mean log-density per row in nats.

    Parameters
    ----------
    scores : array of shape (n,)
        Log-densities; -inf is allowed and makes the mean -inf.
    errors : array of shape (n,), optional
        Monte Carlo standard errors of the scores.

    Raises
    ------
    ValueError
        No scores, NaN among them, or errors of another length.

    Examples
    --------
    >>> held_out_nats([-1.0, -3.0])
    Estimate(value=-2.0, standard_error=1.0, unit='nats per row')
    """
    logp, e = _checked(scores, errors)
    return Estimate(float(logp.mean()), _standard_error(logp, e), "nats per row")


def bits_per_dim(scores: ArrayLike, n_dims: int, errors: ArrayLike | None = None) -> Estimate:
    r"""Mean code length :math:`-\bar l / (D \log 2)` of a row of D entries, in bits per entry.

    It is a code length only where the scores are over counting measure, as those of 8-bit images.

    Examples
    --------
    >>> round(bits_per_dim([-64 * math.log(17)], 64).value, 4), round(math.log2(17), 4)
    (4.0875, 4.0875)
    """
    if n_dims < 1:
        raise ValueError(f"n_dims={n_dims}: must be the number of entries of a row, at least 1")
    nats = held_out_nats(scores, errors)
    per_dim = n_dims * math.log(2)
    return Estimate(-nats.value / per_dim, nats.standard_error / per_dim, "bits per dim")


def nats_per_character(
    scores: ArrayLike, texts: Sequence[str], errors: ArrayLike | None = None
) -> Estimate:
    r"""Code length of all texts over the number of their characters, :math:`-\sum l_i / \sum c_i`.

    The end of a text has to be predicted too and counts as one character, as the line feed does in
    a file with a text on each line; so :math:`c_i` is ``len(text) + 1``. The standard error is
    that of a ratio estimator.

    Examples
    --------
    >>> nats_per_character([-4.0, -8.0], ["abc", "abcdefg"])
    Estimate(value=1.0, standard_error=0.0, unit='nats per character')
    """
    return _rate(scores, [len(text) + 1 for text in texts], errors, "nats per character")


def bits_per_character(
    scores: ArrayLike, texts: Sequence[str], errors: ArrayLike | None = None
) -> Estimate:
    """:func:`nats_per_character` in bits; the end of a text is a character here too."""
    return _bits(nats_per_character(scores, texts, errors), "bits per character")


def bits_per_byte(
    scores: ArrayLike, texts: Sequence[str], errors: ArrayLike | None = None
) -> Estimate:
    """:func:`bits_per_character` over the bytes of the texts in UTF-8, each with its line feed.

    It compares models whatever their symbols are: characters, bytes or tokens.

    Examples
    --------
    >>> round(bits_per_byte([-6 * math.log(2)], ["\u00e9"]).value, 9)
    2.0
    """
    sizes = [len(text.encode()) + 1 for text in texts]
    return _bits(_rate(scores, sizes, errors, "nats per byte"), "bits per byte")


def nats_per_token(
    scores: ArrayLike, n_tokens: ArrayLike, errors: ArrayLike | None = None
) -> Estimate:
    r"""Code length of all texts over the number of their tokens, :math:`-\sum l_i / \sum t_i`.

    It says how well a model does with its tokens, and compares only models whose tokens are the
    same; :func:`bits_per_byte` compares all.

    Parameters
    ----------
    scores : array of shape (n,)
        Log-probabilities of the texts.
    n_tokens : array of shape (n,)
        Tokens of each text, its end included: what a language model's ``n_tokens(texts)`` says.
    errors : array of shape (n,), optional
        Monte Carlo standard errors of the scores.

    Raises
    ------
    ValueError
        As :func:`held_out_nats`; counts that are no numbers or below 1, or not one for each score.

    Examples
    --------
    >>> nats_per_token([-4.0, -8.0], [2, 4])
    Estimate(value=2.0, standard_error=0.0, unit='nats per token')
    """
    if np.asarray(n_tokens).dtype.kind not in "iuf":
        raise ValueError(
            f"n_tokens must be numbers, got {type(n_tokens).__name__} of {np.asarray(n_tokens).dtype}: "
            "pass model.n_tokens(texts)"
        )
    return _rate(scores, n_tokens, errors, "nats per token")


def perplexity(
    scores: ArrayLike, n_tokens: ArrayLike, errors: ArrayLike | None = None
) -> Estimate:
    r"""Exponential of the nats per token, :math:`\exp(-\sum l_i / \sum t_i)`.

    It is the number of equally likely tokens among which the model would be as uncertain. The
    standard error is the delta method's: that of the nats per token times the perplexity.

    Parameters
    ----------
    scores : array of shape (n,)
        Log-probabilities of the texts.
    n_tokens : array of shape (n,)
        Tokens (words, say) of each text, at least 1; the end of a text has to be predicted too and
        is one of them.
    errors : array of shape (n,), optional
        Monte Carlo standard errors of the scores.

    Raises
    ------
    ValueError
        As :func:`held_out_nats`; counts below 1, or not one for each score.

    Examples
    --------
    A model that gives one of ten words, or the end, the same probability everywhere:

    >>> round(perplexity([-4 * math.log(11), -2 * math.log(11)], [4, 2]).value, 9)
    11.0
    """
    nats = nats_per_token(scores, n_tokens, errors)
    with np.errstate(over="ignore"):  # a score of -inf has infinite perplexity, as has exp(1000)
        value = float(np.exp(nats.value))
    return Estimate(value, value * nats.standard_error, "perplexity per token")


def likelihood_units(
    scores: ArrayLike,
    errors: ArrayLike | None = None,
    *,
    modality: str,
    base_measure: str,
    n_dims: int | None = None,
    texts: Sequence[str] | None = None,
    units: Collection[str] = (),
) -> dict[str, Estimate]:
    """A held-out score in the units that papers use for such rows; none for a table.

    Parameters
    ----------
    scores, errors : arrays of shape (n,)
        As for :func:`held_out_nats`.
    modality : {"table", "image", "text"}
        Images over counting measure have ``bits_per_dim``, texts ``bits_per_character``.
    base_measure : str
        What the scores are densities over.
    n_dims : int, optional
        Entries of an image.
    texts : list of str, optional
        The rows, where they are texts.
    units : collection of str
        Units in which others published results. "nats per character" and "perplexity per word"
        add ``nats_per_character`` and ``perplexity``; a text has its words and one end.

    Returns
    -------
    estimates : dict of str to Estimate

    Raises
    ------
    ValueError
        As :func:`held_out_nats`; images without ``n_dims``, or texts without ``texts``.

    Examples
    --------
    >>> found = likelihood_units(
    ...     [-3 * math.log(8)], modality="text", base_measure="counting", texts=["a cat"],
    ...     units={"perplexity per word"},
    ... )
    >>> {name: round(each.value, 9) for name, each in found.items()}
    {'bits_per_character': 1.5, 'perplexity': 8.0}
    """
    if modality == "image" and base_measure == "counting":
        if n_dims is None:
            raise ValueError("n_dims=None: the score of an image needs the number of its entries")
        return {"bits_per_dim": bits_per_dim(scores, n_dims, errors)}
    if modality != "text":
        return {}
    if texts is None:
        raise ValueError("texts=None: the score of texts needs the texts themselves")
    found = {"bits_per_character": bits_per_character(scores, texts, errors)}
    if "nats per character" in units:
        found["nats_per_character"] = nats_per_character(scores, texts, errors)
    if "perplexity per word" in units:
        words = perplexity(scores, [len(text.split()) + 1 for text in texts], errors)
        found["perplexity"] = replace(words, unit="perplexity per word")
    return found


def _rate(scores: ArrayLike, lengths: ArrayLike, errors: ArrayLike | None, unit: str) -> Estimate:
    """Code length of all rows over the length of all rows."""
    logp, e = _checked(scores, errors)
    length = np.asarray(lengths, float)
    if length.shape != logp.shape:
        raise ValueError(f"{len(logp)} scores for {length.size} texts: there must be one for each")
    if not (length >= 1).all():
        row = int(np.flatnonzero(~(length >= 1))[0])
        raise ValueError(
            f"n_tokens[{row}]={length[row]:g}: a text has at least one token, its end"
        )
    rate = float(-logp.sum() / length.sum())
    if not math.isfinite(rate):
        return Estimate(rate, math.nan, unit)
    return Estimate(rate, _standard_error(-logp - rate * length, e) / float(length.mean()), unit)


def _bits(nats: Estimate, unit: str) -> Estimate:
    return Estimate(nats.value / math.log(2), nats.standard_error / math.log(2), unit)


def _checked(scores: ArrayLike, errors: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    logp = np.asarray(scores, float)
    e = np.zeros_like(logp) if errors is None else np.asarray(errors, float)
    if logp.ndim != 1 or len(logp) == 0:
        raise ValueError(
            f"scores has shape {logp.shape}: must be one log-density a row, (n,), n >= 1"
        )
    if e.shape != logp.shape:
        raise ValueError(
            f"errors has shape {e.shape} and scores {logp.shape}: they must be the same"
        )
    if np.isnan(logp).any():
        row = int(np.flatnonzero(np.isnan(logp))[0])
        raise ValueError(f"scores[{row}] is NaN: a log-density is a number or -inf")
    return logp, e


def _standard_error(logp: np.ndarray, e: np.ndarray) -> float:
    """Of the mean; NaN where it cannot be known: one row, or a score of -inf."""
    if len(logp) < 2 or not np.isfinite(logp).all():
        return math.nan
    return math.hypot(float(logp.std(ddof=1)) / math.sqrt(len(logp)), float(e.mean()))
