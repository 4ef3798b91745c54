"""Generative adversarial networks: samples, no density."""
