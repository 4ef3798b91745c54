"""Imports of the fork server, which runs inherit.

The module must not compute with tensors, because threads do not survive a fork.
"""

import narwhals
import pandas as pd
import sklearn.datasets
import sklearn.ensemble  # noqa: F401

# densekit imports this on first use, and every neural model uses it.
import torch._dynamo  # noqa: F401

import densekit
import densekit.bench.worker

densekit.all_estimators()
# narwhals imports its pandas support with the first DataFrame.
narwhals.from_native(pd.DataFrame({"x": [0.0]}))
