"""Imported once by the server that runs are forked from, so that no run pays for it.

Nothing here may compute with tensors: threads do not survive a fork.
"""

import pandas as pd  # noqa: F401
import sklearn.ensemble  # noqa: F401
import torch._dynamo  # noqa: F401  # the first optimiser would import it

import densekit
import densekit.bench.worker

densekit.all_estimators()
