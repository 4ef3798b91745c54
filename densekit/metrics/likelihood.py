r"""Held-out likelihood: mean over rows, standard error, and the usual units.

All functions take log-densities in nats, one per row, as ``score_samples(X, return_std=True)`` returns
them. The standard error of a mean of n scores :math:`l_i` with Monte Carlo errors :math:`e_i` is

.. math::  \sqrt{s^2 / n + \bar e^2}, \qquad s^2 = \frac{1}{n-1} \sum_i (l_i - \bar l)^2.

The first term is the sampling error of the test rows. The second term does not fall with n: all rows
share one bank of noise, so their Monte Carlo errors are treated as fully dependent.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its standard error and unit."""

    value: float
    standard_error: float
    """In the unit of ``value``; NaN where it is unknown."""
    unit: str


def held_out_nats(scores: ArrayLike, errors: ArrayLike | None = None) -> Estimate:
    """Mean log-density per row in nats.

    Parameters
    ----------
    scores : array of shape (n,)
        Log-densities; -inf is allowed and makes the mean -inf.
    errors : array of shape (n,), optional
        Monte Carlo standard errors of the scores.

    Returns
    -------
    estimate : Estimate
        In nats per row; larger is better.

    Raises
    ------
    ValueError
        There are no scores, a score is NaN, or errors have another shape than scores.

    Examples
    --------
    >>> held_out_nats([-1.0, -3.0])
    Estimate(value=-2.0, standard_error=1.0, unit='nats per row')
    """
    logp, e = _validated(scores, errors)
    return Estimate(float(logp.mean()), _standard_error(logp, e), "nats per row")


def bits_per_dim(scores: ArrayLike, n_dims: int, errors: ArrayLike | None = None) -> Estimate:
    r"""Mean code length :math:`-\bar l / (D \log 2)` of rows with D entries, in bits per entry.

    It is a code length only if the scores are log-probabilities (counting measure), like those of
    8-bit images.

    Parameters
    ----------
    scores : array of shape (n,)
        Log-densities in nats.
    n_dims : int
        Number D of entries of a row.
    errors : array of shape (n,), optional
        Monte Carlo standard errors of the scores.

    Returns
    -------
    estimate : Estimate
        In bits per dimension; smaller is better.

    Raises
    ------
    ValueError
        As in :func:`held_out_nats`; also if ``n_dims`` is less than 1.

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
    r"""Code length per character of texts, :math:`-\sum_i l_i / \sum_i c_i`, in nats.

    The end of a text must be predicted too and counts as one character, like the line feed in a file
    with one text per line: :math:`c_i` is ``len(text) + 1``. The standard error is that of a ratio
    estimator.

    Parameters
    ----------
    scores : array of shape (n,)
        Log-probabilities of the texts in nats.
    texts : sequence of str
        The n texts.
    errors : array of shape (n,), optional
        Monte Carlo standard errors of the scores.

    Returns
    -------
    estimate : Estimate
        In nats per character; smaller is better.

    Raises
    ------
    ValueError
        As in :func:`held_out_nats`; also if there is not one text per score.

    Examples
    --------
    >>> nats_per_character([-4.0, -8.0], ["abc", "abcdefg"])
    Estimate(value=1.0, standard_error=0.0, unit='nats per character')
    """
    return _rate(scores, [len(text) + 1 for text in texts], errors, "nats per character")


def bits_per_character(
    scores: ArrayLike, texts: Sequence[str], errors: ArrayLike | None = None
) -> Estimate:
    """Code length per character of texts in bits; otherwise as :func:`nats_per_character`.

    Examples
    --------
    >>> bits_per_character([-8 * math.log(2)], ["abc"]).value
    2.0
    """
    return _bits(nats_per_character(scores, texts, errors), "bits per character")


def bits_per_byte(
    scores: ArrayLike, texts: Sequence[str], errors: ArrayLike | None = None
) -> Estimate:
    """Code length per byte of texts in UTF-8, in bits; each text has one more byte, its end.

    It compares models of characters, bytes and tokens with each other. Parameters and errors are those
    of :func:`nats_per_character`.

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
    r"""Code length per token of texts, :math:`-\sum_i l_i / \sum_i t_i`, in nats.

    It compares only models that use the same tokens; :func:`bits_per_byte` compares any two models.

    Parameters
    ----------
    scores : array of shape (n,)
        Log-probabilities of the texts in nats.
    n_tokens : array of shape (n,)
        Number of tokens of each text, including its end: a language model's ``n_tokens(texts)``.
    errors : array of shape (n,), optional
        Monte Carlo standard errors of the scores.

    Returns
    -------
    estimate : Estimate
        In nats per token; smaller is better.

    Raises
    ------
    ValueError
        As in :func:`held_out_nats`; also if ``n_tokens`` is not one number of at least 1 per score.

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
    r"""Perplexity of texts per token, :math:`\exp(-\sum_i l_i / \sum_i t_i)`.

    A model that chooses uniformly among k tokens has perplexity k. The standard error uses the delta
    method: it is that of the nats per token times the perplexity.

    Parameters
    ----------
    scores : array of shape (n,)
        Log-probabilities of the texts in nats.
    n_tokens : array of shape (n,)
        Number of tokens (or words) of each text, at least 1. The end of a text must be predicted too
        and is one of them.
    errors : array of shape (n,), optional
        Monte Carlo standard errors of the scores.

    Returns
    -------
    estimate : Estimate
        Perplexity per token; smaller is better.

    Raises
    ------
    ValueError
        As in :func:`nats_per_token`.

    Examples
    --------
    A model that gives ten words and the end the same probability everywhere:

    >>> round(perplexity([-4 * math.log(11), -2 * math.log(11)], [4, 2]).value, 9)
    11.0
    """
    nats = nats_per_token(scores, n_tokens, errors)
    with np.errstate(over="ignore"):  # The perplexity of very low scores is infinite.
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
    """Held-out likelihood in the units that papers use for a kind of data.

    Parameters
    ----------
    scores, errors : arrays of shape (n,)
        As in :func:`held_out_nats`.
    modality : {"table", "image", "text"}
        Images over counting measure have ``bits_per_dim``, texts have ``bits_per_character``, and
        tables have no further unit.
    base_measure : str
        The measure that the scores are densities over.
    n_dims : int, optional
        Number of entries of an image.
    texts : list of str, optional
        The rows, if they are texts.
    units : collection of str
        Units of published results. "nats per character" and "perplexity per word" add
        ``nats_per_character`` and ``perplexity``; the end of a text counts as a word.

    Returns
    -------
    estimates : dict of str to Estimate
        The held-out likelihood by the name of its unit.

    Raises
    ------
    ValueError
        As in :func:`held_out_nats`; also for images without ``n_dims`` or texts without ``texts``.

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
    """Total code length of all texts divided by their total length."""
    logp, e = _validated(scores, errors)
    length = np.asarray(lengths, float)
    if length.shape != logp.shape:
        raise ValueError(f"{len(logp)} scores for {length.size} texts: there must be one per text")
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


def _validated(scores: ArrayLike, errors: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    logp = np.asarray(scores, float)
    e = np.zeros_like(logp) if errors is None else np.asarray(errors, float)
    if logp.ndim != 1 or len(logp) == 0:
        raise ValueError(
            f"scores has shape {logp.shape}: must be one log-density per row, (n,), n >= 1"
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
    """Standard error of the mean score; NaN for a single row or a score of -inf."""
    if len(logp) < 2 or not np.isfinite(logp).all():
        return math.nan
    return math.hypot(float(logp.std(ddof=1)) / math.sqrt(len(logp)), float(e.mean()))
