"""Score models: the gradient of the log-density, learned by denoising."""
