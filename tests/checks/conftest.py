"""Puts the broken estimators beside the tests within reach of their imports, and of pickle's."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
