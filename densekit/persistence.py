"""Load an estimator that was saved: the class by name, filled with plain values and arrays.

No code, no pickle, no import of anything that the file names outside densekit's own estimators and
codecs; :mod:`densekit.files` has the format.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from densekit import files

if TYPE_CHECKING:
    from densekit.base import DensityEstimator


def load(path: str | Path, device: str = "auto") -> "DensityEstimator":
    """Read an estimator that :meth:`~densekit.DensityEstimator.save` wrote.

    Parameters
    ----------
    path : str or Path
    device : str
        Where the model will run, whatever it was fitted on.

    Raises
    ------
    ValueError
        Not a densekit file, a damaged one, or one of a newer format.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from densekit import Gaussian, load
    >>> est = Gaussian().fit(np.random.default_rng(0).normal(size=(50, 2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     est.save(folder + "/gaussian.densekit")
    ...     again = load(folder + "/gaussian.densekit")
    >>> bool(again.score(np.zeros((1, 2))) == est.score(np.zeros((1, 2))))
    True
    """
    from densekit.discovery import all_estimators
    from densekit.runtime import resolve_device

    target = resolve_device(device)
    content = files.read(path)
    classes = all_estimators()
    if content["class"] not in classes:
        raise ValueError(
            f"{path}: holds a {content['class']!r}, which is no estimator of densekit's"
        )
    try:
        estimator = classes[content["class"]](**content["parameters"])
        state = {**vars(estimator), **content["fitted"], "device_": str(target)}
        estimator.__setstate__(state)
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise files.damaged(path, error) from error
    return estimator
