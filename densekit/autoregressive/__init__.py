"""Autoregressive models: the chain rule, one factor at a time."""
