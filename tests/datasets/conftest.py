"""Real data sets, where they are on this machine."""

import pytest

from densekit import datasets
from densekit.datasets import maf


@pytest.fixture(scope="session")
def local():
    """Load a set by name, or skip the test that asks for one whose files are not here."""
    loaded = {}

    def load(name):
        known = datasets.info(name)
        if known.needs_download:
            missing = next(f.path for f in known.files if not all(p.exists() for p in f.locations))
            pytest.skip(f"{missing} is not here: name a folder that has it by DENSEKIT_DATA")
        if name == "bsds300":
            return maf.bsds300((2000, 200, 500))
        if name not in loaded:
            loaded[name] = datasets.load(name)
        return loaded[name]

    return load
