"""Constants shared by torch code and compiled loops."""

import math

MIN_BIN = 1e-3
"""Smallest width and height of a spline's bin, as a fraction of the box."""
MIN_SLOPE = 1e-3
"""Smallest slope at a knot of a spline."""
UNIT_SLOPE = math.log(math.expm1(1 - MIN_SLOPE))
"""Raw parameter for which the slope is 1."""
