"""What plain torch and compiled loops agree on."""

import math

MIN_BIN = 1e-3
"""Least width and height of a bin of a spline, as a share of the whole."""
MIN_SLOPE = 1e-3
"""Least slope at a knot of a spline."""
UNIT_SLOPE = math.log(math.expm1(1 - MIN_SLOPE))
"""Raw number at which the slope is 1."""
