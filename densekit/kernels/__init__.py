"""Compiled loops for the CPU, and what runs them: optional, and the same numbers as plain torch."""
