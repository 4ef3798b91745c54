"""Variational autoencoders: latent variables, a bound on the likelihood."""
