"""Makes the modules of broken estimators importable for tests and for pickle."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
