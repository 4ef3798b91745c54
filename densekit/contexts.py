"""Kinds of context: what an estimator conditions on, one class for each kind.

An estimator names its kind in ``Capabilities(context=...)`` and asks :func:`context_of` for the object.
A new kind is a subclass of :class:`Context`; nothing else branches on kinds. The object is made for a
call and holds no state of its own: what ``fit`` learned of the context are the attributes
``context_codec_`` and ``context_names_`` of the estimator.
"""

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from densekit import codecs
from densekit.codecs.context import (
    ContextCodec,
    n_draws,
    names_columns,
    split_columns,
    texts_of,
)
from densekit.containers import in_memory


class Context(ABC):
    """One kind of context, for one estimator. Abstract: a kind overrides what differs.

    Parameters
    ----------
    estimator : DensityEstimator
        Fitted or about to be.
    """

    kind: ClassVar[str]
    codec_class: ClassVar[Any] = None
    """Class of ``context_codec_`` where ``fit`` was given a context."""
    is_text: ClassVar[bool] = False
    """Whether a row of context is a string."""
    optional: ClassVar[bool] = False
    """Whether a model may be used with a context and without one, however it was fitted."""

    def __init__(self, estimator: Any):
        self.estimator = estimator

    @property
    def codec(self) -> Any:
        """What ``fit`` learned of its context; None where it was given none."""
        return self.estimator.context_codec_

    @property
    def owner(self) -> str:
        """The name of the estimator's class, for errors."""
        return type(self.estimator).__name__

    # Rows of context as users give them.

    def take(self, context: Any) -> Any:
        """A context in memory, checked for its type; a TypeError or ValueError names what is wrong."""
        return in_memory(context)

    def split(self, X: Any, context: Any, fitting: bool) -> tuple[Any, Any, tuple[str, ...]]:
        """X and the context apart, and the names of those columns of X that are the context."""
        if not fitting:
            self._check_presence(context)
        return X, context, ()

    def join(self, X: Any, context: Any, n: int) -> Any:
        """``n`` rows X with their context put back, where ``fit`` found it among the columns of X."""
        return X

    def check_for_draws(self, context: Any) -> Any:
        """The context of draws, after :meth:`take`; a ValueError where it is missing or not wanted."""
        fitted = self.codec is not None
        if not self.optional and fitted and context is None:
            raise ValueError(f"this {self.owner} models p(x given context): give it context=")
        if not self.optional and not fitted and context is not None:
            raise ValueError(
                f"this {self.owner} was fitted without a context: pass context= to fit "
                "(a y is ignored)"
            )
        return context

    def _check_presence(self, context: Any) -> None:
        fitted = self.codec is not None
        if not self.optional and fitted != (context is not None):
            have, need = ("without", "with") if fitted else ("with", "without")
            raise ValueError(
                f"this {self.owner} was fitted {need} a context and is used {have} one; "
                "pass context= to fit and to every later call, or to none"
            )

    # What the network conditions on.

    def options(self, context: Any) -> dict[str, Any]:
        """Further arguments of ``codec_.fit``."""
        return {}

    def learn(self, context: Any, n: int, weights: np.ndarray | None) -> Any:
        """The codec of the context of ``n`` rows, learned from it."""
        raise NotImplementedError

    def encode(self, context: Any) -> Tensor:
        """Rows of context as the module takes them: one for each, or one for all."""
        encoded: Tensor = self.codec.encode(context)[0]
        return encoded

    def decode(self, typed: Tensor) -> Any:
        """Rows of context, as users give them, from typed events of ``context_codec_.schema``."""
        return self.codec.decode(typed)


class NoContext(Context):
    """The model is p(x) alone."""

    kind = "none"

    def take(self, context: Any) -> Any:
        if context is not None:
            raise ValueError(
                f"{self.owner} models p(x) only and takes no context; "
                f"{self.estimator._instead_of_context}"
            )
        return None

    def split(self, X: Any, context: Any, fitting: bool) -> tuple[Any, Any, tuple[str, ...]]:
        return X, context, ()


class Features(Context):
    """Columns of a table, in X or apart from it: numbers standardized, categories one-hot."""

    kind = "features"
    codec_class = ContextCodec

    def take(self, context: Any) -> Any:
        context = in_memory(context)
        if isinstance(context, Mapping):
            _check_values(context)
        return context

    def split(self, X: Any, context: Any, fitting: bool) -> tuple[Any, Any, tuple[str, ...]]:
        names = context if fitting else (self.estimator.context_names_ or None)
        if names_columns(X, names):
            listed = (names,) if isinstance(names, str) else tuple(names or ())
            return *split_columns(X, names), listed
        return super().split(X, context, fitting)

    def join(self, X: Any, context: Any, n: int) -> Any:
        names = self.estimator.context_names_
        if context is None or not names:
            return X
        have = list(getattr(X, "columns", getattr(X, "column_names", ())))
        twice = [c for c in names if c in have]
        if twice:
            raise ValueError(
                f"the context columns {twice} are in X and in context=: leave them out of one"
            )
        return self.codec.join(X, context, n, list(self.estimator.feature_names_in_))

    def learn(self, context: Any, n: int, weights: np.ndarray | None) -> Any:
        return ContextCodec(self.estimator.context_names_).fit(context, n, weights)

    def encode(self, context: Any) -> Tensor:
        features: Tensor = self.codec.encode(context)
        return features

    def decode(self, typed: Tensor) -> Any:
        return self.codec.table.decode(typed)


class Source(Context):
    """Strings of their own vocabulary, which the rows are written from."""

    kind = "text"
    codec_class = codecs.TextCodec
    is_text = True

    def take(self, context: Any) -> Any:
        context = in_memory(context)
        return None if context is None else texts_of(context)

    def learn(self, context: Any, n: int, weights: np.ndarray | None) -> Any:
        return self.estimator._new_codec(codecs.TextCodec).fit(context, "context")

    def encode(self, context: Any) -> Tensor:
        tokens: Tensor = self.codec.encode(context, "context")[0]
        return tokens


class Prompt(Context):
    """Beginnings of the rows themselves: they share the codec of X, and may come at any call."""

    kind = "prompt"
    codec_class = codecs.TextCodec
    is_text = True
    optional = True

    def take(self, context: Any) -> Any:
        context = in_memory(context)
        return None if context is None else texts_of(context)

    def options(self, context: Any) -> dict[str, Any]:
        return {} if context is None else {"prompts": context}

    def learn(self, context: Any, n: int, weights: np.ndarray | None) -> Any:
        return self.estimator.codec_

    def encode(self, context: Any) -> Tensor:
        tokens: Tensor = self.estimator.codec_.prompts(context)
        return tokens


def context_of(estimator: Any) -> Context:
    """The context of an estimator, of the kind that its capabilities name.

    Raises
    ------
    ValueError
        The capabilities name a kind that no subclass of :class:`Context` has.
    """
    kinds = {kind.kind: kind for kind in _subclasses(Context)}
    name = estimator._capabilities.context
    if name not in kinds:
        raise ValueError(
            f"{type(estimator).__name__} has Capabilities(context={name!r}); the kinds of context are "
            f"{', '.join(map(repr, sorted(kinds)))}"
        )
    return kinds[name](estimator)


def one_per_draw(encoded: Tensor, n_samples: int) -> Tensor:
    """Encoded contexts, one for each draw, from one for all draws or one for each.

    With ``n_samples=1`` the number of contexts is the number of draws.

    Raises
    ------
    ValueError
        There are neither one context nor ``n_samples`` contexts.
    """
    return encoded.expand(n_draws(len(encoded), n_samples), *encoded.shape[1:])


def _subclasses(kind: type[Context]) -> list[type[Context]]:
    return [c for sub in kind.__subclasses__() for c in (sub, *_subclasses(sub))]


def _check_values(context: Mapping[Any, Any]) -> None:
    """Raise ValueError where a mapping gives a column anything but one value."""
    for column, value in context.items():
        if isinstance(value, tuple):
            raise ValueError(
                f"context[{column!r}]={value!r} is an interval, and this model conditions on values: "
                "give one, or take TabularAutoregressive, which draws under intervals"
            )
        if not isinstance(value, str | bytes) and np.ndim(value) == 1 and len(value) != 1:
            raise ValueError(
                f"context[{column!r}] is a set of {len(value)} values, and this model conditions on "
                "one: a context of one row for each row of X or each draw is a DataFrame"
            )
