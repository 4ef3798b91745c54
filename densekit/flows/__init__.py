"""Normalizing flows: exact densities by a change of variables."""
