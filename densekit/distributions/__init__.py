"""Pyro distributions that are more than a base and a list of transforms."""
