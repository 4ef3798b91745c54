"""Pyro transforms, one idea a file; data and noise in rows, samples on the last axis inside."""
