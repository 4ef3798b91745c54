"""Imported once by the server that runs are forked from, so that no run pays for it.

Nothing here may compute with tensors: threads do not survive a fork.
"""

import narwhals
import pandas as pd
import sklearn.datasets
import sklearn.ensemble  # noqa: F401

# Imported late by whoever needs them; every neural run does.
import torch._dynamo  # noqa: F401

import densekit
import densekit.bench.worker

densekit.all_estimators()
# narwhals imports its side of pandas with the first frame it meets.
narwhals.from_native(pd.DataFrame({"x": [0.0]}))
