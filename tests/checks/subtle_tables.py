"""densekit's own models of mixed rows and of text, subtly broken: measures, masses of atoms, supports,
ordinals, dates and ends of strings.

Each class says what is wrong with it. They are built on closed forms.
"""

import numpy as np
import torch
from own_mutants import scored
from zoo_tables import Bigram, BigramStrings, NormalColumn, Product, ZeroInflatedTable

from densekit import Gaussian
from densekit.codecs.measure import ColumnMeasure, Measure

Table = ZeroInflatedTable


# What a score claims to be.


class ClaimsCounting(Table):
    """Says that numbers have masses, and scores densities."""

    @property
    def measure_(self):
        columns = super().measure_.columns
        return Measure(tuple(ColumnMeasure(c.name, counting=True) for c in columns))


class ClaimsLebesgue(Table):
    """Says that integers and categories have densities, and scores masses."""

    @property
    def measure_(self):
        columns = super().measure_.columns
        return Measure(tuple(ColumnMeasure(c.name, c.unit or "1") for c in columns))


class AtomsNotInTheMeasure(Table):
    """Says nothing of the atoms, which have masses."""

    @property
    def measure_(self):
        columns = super().measure_.columns
        return Measure(
            tuple(ColumnMeasure(c.name, c.unit, c.counting and not c.unit) for c in columns)
        )


class BoundCalledExact(Gaussian):
    """Calls the bound of dequantized integers exact."""

    def _kind_of_scores(self, schema):
        return "exact"


# Mixed rows.


class AtomsTooLight(Table):
    """An atom has nine tenths of its mass, and nothing has the rest."""

    def _distribution(self, context):
        law = super()._distribution(context)
        for indicator, _, _ in law.parts:
            if indicator is not None:
                indicator[1].log_p[1:] += np.log(0.9)
        return law


class AtomsAsDensities(Table):
    """A row on an atom is scored as if the rest of the law had it too."""

    def _distribution(self, context):
        law = super()._distribution(context)
        parts = []
        for indicator, place, part in law.parts:
            if indicator is not None and isinstance(part, NormalColumn):
                part = _ScoredAtZero(part)
            parts.append((indicator, place, part))
        return _AtomsCountTwice(parts, law.event_shape[0])


class _ScoredAtZero(NormalColumn):
    def __init__(self, part):
        self.law = part.law


class _AtomsCountTwice(Product):
    def log_prob(self, value):
        total = super().log_prob(value)
        for indicator, place, law in self.parts:
            if indicator is not None and isinstance(law, NormalColumn):
                on = value[..., indicator[0]] > 0
                slab = law.log_prob(value[..., place].double()).exp()
                total = torch.where(on, total + torch.log1p(slab), total)
        return total


class FewerAtomsInDraws(Table):
    """One draw of an atom in ten is of the rest of the law."""

    def _distribution(self, context):
        law = super()._distribution(context)
        return _SlabForAtoms(law.parts, law.event_shape[0])


class _SlabForAtoms(Product):
    def sample(self, sample_shape=()):
        x = super().sample(sample_shape)
        for indicator, place, law in self.parts:
            if indicator is not None:
                shape = x.shape[:-1]
                slab = law.sample(max(shape.numel(), 1))[: shape.numel()].reshape(shape)
                moved = (x[..., indicator[0]] > 0) & (torch.rand(shape) < 0.1)
                x[..., place] = torch.where(moved, slab, x[..., place])
                x[..., indicator[0]] = torch.where(moved, 0.0, x[..., indicator[0]])
        return x


class CodesBeyondTheData(Table):
    """Three draws of an integer in ten are one too large."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(n_samples, context=context, random_state=random_state)
        rng = np.random.default_rng(random_state)
        more = rng.random(len(X)) < 0.3
        if hasattr(X, "columns"):
            for name in X:
                if X[name].dtype.kind in "iu":
                    X[name] = X[name] + more.astype(X[name].dtype)
        elif X.dtype.kind in "iu":
            X = X + more[:, None]
        return X


class CategoriesInAnotherOrder(Table):
    """Draws of a category of three levels or more take the last for the first and the first for the
    last."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(n_samples, context=context, random_state=random_state)
        for name in getattr(X, "columns", ()):
            levels = getattr(getattr(X[name], "cat", None), "categories", ())
            if len(levels) > 2:
                turned = dict(zip(levels, levels[::-1], strict=True))
                X[name] = X[name].map(turned).astype(X[name].dtype)
        return X


class OrdinalsRoundUp(Table):
    """One draw of an ordinal in four is a level too high."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(n_samples, context=context, random_state=random_state)
        rng = np.random.default_rng(random_state)
        up = rng.random(len(X)) < 0.25
        for name in getattr(X, "columns", ()):
            if getattr(getattr(X[name], "cat", None), "ordered", False):
                codes = X[name].cat.codes.to_numpy()
                codes = np.minimum(codes + up, codes.max())
                X[name] = type(X[name].array).from_codes(codes, dtype=X[name].dtype)
        return X


class DatesADayEarly(Table):
    """Draws of dates and instants come a day early."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(n_samples, context=context, random_state=random_state)
        if isinstance(X, np.ndarray):
            return X - np.timedelta64(1, "D") if X.dtype.kind == "M" else X
        for name in X:
            if X[name].dtype.kind == "M":
                X[name] = X[name] - np.timedelta64(1, "D")
        return X


def _per_day(self, X, scores):
    n = sum(c.kind == "datetime" for c in self.schema_.columns)
    return scores + n * np.log(86400.0)


class InstantsPerDay(Table):
    """The density of instants is per day, and the measure says per second."""

    score_samples = scored(_per_day)


# Supports.


def _form(self):
    support = self.support
    return support[0] if isinstance(support, tuple) else support


def _ends(self):
    return list(self.support[1:]) if isinstance(self.support, tuple) else [0.0]


class AtLeastWithoutJacobian(Table):
    """Of a support that is bounded below the slope of the logarithm is left out."""

    score_samples = scored(
        lambda self, X, scores: (
            scores + np.log(np.asarray(X, dtype=float) - _ends(self)[0]).sum(1)
            if _form(self) in ("at_least", "nonnegative")
            else scores
        )
    )


class AtMostLeaks(Table):
    """Above its upper end a column has scores."""

    score_samples = scored(
        lambda self, X, scores: np.maximum(scores, -60.0) if _form(self) == "at_most" else scores
    )


class IntervalTooWide(Table):
    """The density on an interval is that of one twice as long."""

    score_samples = scored(
        lambda self, X, scores: scores - np.log(2.0) if _form(self) == "interval" else scores
    )


class DrawsOnTheEnds(Table):
    """Draws of the outer twentieths of an interval are put on its ends."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(n_samples, context=context, random_state=random_state)
        if _form(self) != "interval" or hasattr(X, "columns"):
            return X
        low, high = _ends(self)
        at = (X - low) / (high - low)
        return np.where(at < 0.05, low, np.where(at > 0.95, high, X))


class CircleNotClosed(Table):
    """Draws of a circle leave its last tenth out."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(n_samples, context=context, random_state=random_state)
        if _form(self) != "circle" or hasattr(X, "columns"):
            return X
        low, high = _ends(self)
        return np.where((X - low) / (high - low) > 0.9, low + (high - X), X)


# Text.


class EndCountsTwice(Bigram):
    """The end of a string that is not the longest is scored twice."""

    def _distribution(self, context):
        law = super()._distribution(context)
        return _EndTwice(law.log_p, law.max_length)


class _EndTwice(BigramStrings):
    def log_prob(self, value):
        x = value.long()
        shorter = (x[..., -1] != 1) & (x == 1).any(-1)
        before = torch.nn.functional.pad(x[..., :-1], (1, 0), value=1)
        ends = torch.where(x == 1, self.log_p[before, torch.ones_like(x)], 0.0).sum(-1)
        return super().log_prob(value) + torch.where(shorter, ends, 0.0)


class LongestMayGoOn(Bigram):
    """A string of full length pays for an end that is certain."""

    def _distribution(self, context):
        law = super()._distribution(context)
        return _LastPays(law.log_p, law.max_length)


class _LastPays(BigramStrings):
    def log_prob(self, value):
        x = value.long()
        full = x[..., -1] == 1
        pays = self.log_p[x[..., -2], 1] if x.shape[-1] > 1 else 0.0
        return super().log_prob(value) + torch.where(full, pays, 0.0)


class ShortStringsDropped(Bigram):
    """A third of the draws of one character is drawn again."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(2 * n_samples + 40, context=context, random_state=random_state)
        words = [word for i, word in enumerate(X) if len(word) != 1 or i % 3][:n_samples]
        return words if len(words) == n_samples else X[:n_samples]


class ShortStringsCutOff(Bigram):
    """Draws of full length lose their last character."""

    def sample(self, n_samples=1, *, context=None, random_state=None):
        X = super().sample(n_samples, context=context, random_state=random_state)
        return [w[:-1] if len(w) >= self.max_length else w for w in X]
