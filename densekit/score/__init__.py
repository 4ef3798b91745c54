"""Score models: the gradient of the log-density, learnt by denoising."""
