"""Estimators whose hyper-parameters are dataclass fields, and that remember what ``fit`` used.

After ``fit`` a user may set any parameter. Those of drawing and scoring act at the next call; all
others wait for the next ``fit``, and until then the estimator warns and uses the values of the last one.
"""

import dataclasses
import sys
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from densekit.docstrings import document
from densekit.params import same


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
@dataclass(kw_only=True, eq=False, repr=False)
class HyperParameters(BaseEstimator):
    """A scikit-learn estimator whose parameters are the fields of a dataclass. Abstract: every
    subclass becomes a dataclass of keyword-only fields, with a composed docstring."""

    if TYPE_CHECKING:
        # Set by fit. Declared for type checkers only, so that the constructor does not take it.
        built_with_: dict[str, Any] = field(init=False)

    _defaults_of_older_files: ClassVar[dict[str, Any]] = {}
    """Values of parameters that a file may lack, where the model was fitted with another value than
    today's default."""
    _at_once: ClassVar[tuple[str, ...]] = ()
    """Parameters of drawing and scoring, which act at the next call after they are set. A class names
    its own; all others need a new fit."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        written = cls.__dict__.get("__doc__")
        dataclass(kw_only=True, eq=False, repr=False)(cls)
        document(cls, written)

    @classmethod
    def _names(cls) -> set[str]:
        """Names of all hyper-parameters."""
        return {f.name for f in dataclasses.fields(cls)}

    @classmethod
    def _names_of_fit(cls) -> set[str]:
        """Parameters that say how ``fit`` runs, and nothing about what it builds."""
        return {"random_state", "verbose"}

    @classmethod
    def _update_old_parameters(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        """Parameters of a file, translated to what they meant when the file was written."""
        return parameters

    def _copy_with(self, *, without: Collection[str] = (), **attributes: Any) -> Self:
        """A light copy for one call: it shares the fitted attributes of this estimator, except those
        that are given here and those named in ``without``.

        Raises
        ------
        TypeError
            An attribute that estimators of this class do not have.
        """
        unknown = sorted(n for n in attributes if n not in vars(self) and not hasattr(self, n))
        if unknown:
            raise TypeError(f"{type(self).__name__} has no attributes {unknown}")
        other = object.__new__(type(self))
        kept = {name: value for name, value in vars(self).items() if name not in without}
        other.__dict__.update(kept, **attributes)
        return other

    def _record_parameters(self) -> None:
        names = sorted(self._names() - self._names_of_fit())
        values = {name: getattr(self, name) for name in names}
        self.built_with_ = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}

    def _changed_since_fit(self) -> dict[str, Any]:
        """Parameters that were set since ``fit`` and need another one, with their values in ``fit``."""
        now = {name for base in type(self).__mro__ for name in vars(base).get("_at_once", ())}
        built = vars(self).get("built_with_", {})
        names = sorted(set(built) & self._names() - now)
        return {name: built[name] for name in names if not same(built[name], getattr(self, name))}

    def _as_fitted(self) -> Self:
        """This estimator with the parameters that it was built with: itself, or a light copy."""
        changed = self._changed_since_fit()
        return self._copy_with(**changed) if changed else self

    def _check_fitted(self) -> None:
        """Raise NotFittedError, or warn of parameters that wait for a new fit."""
        check_is_fitted(self)
        changed = self._changed_since_fit()
        if changed:
            new = ", ".join(f"{name}={getattr(self, name)!r}" for name in changed)
            old = ", ".join(f"{name}={value!r}" for name, value in changed.items())
            warnings.warn(
                f"{new} was set after fit, and what is used is the model that was fitted with {old}: "
                f"call fit again, or set {'it' if len(changed) == 1 else 'them'} back",
                UserWarning,
                stacklevel=3,
            )

    @property
    def _is_verbose(self) -> bool:
        verbose = getattr(self, "verbose", False)
        return sys.stderr.isatty() if verbose == "auto" else bool(verbose)


document(HyperParameters, HyperParameters.__doc__)
