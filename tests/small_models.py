"""Hyper-parameters of small models, which still learn the data of the contract's checks."""

EXACT = {"max_steps": 100, "device": "cpu"}
NET = {**EXACT, "hidden_sizes": (32,)}
SMALL = {
    "Gaussian": {},
    "KernelDensity": {},
    "GaussianMixture": {},
    "MaskedAutoregressiveFlow": {**NET, "n_transforms": 2},
    "NeuralSplineFlow": {**NET, "n_transforms": 2},
    "PlanarFlow": {**NET, "n_transforms": 6},
    "RadialFlow": {**NET, "n_transforms": 6},
    "NeuralAutoregressiveFlow": {**NET, "n_transforms": 2},
    "GaussianizationFlow": {**NET, "n_transforms": 2, "n_components": 8},
    "RealNVP": {**NET, "n_transforms": 4},
    "TransformFlow": EXACT,
    "SylvesterFlow": {**NET, "n_transforms": 4},
    "TarFlow": {**EXACT, "n_transforms": 2, "width": 16},
    "ContinuousFlow": {**EXACT, "hidden_sizes": (16,), "n_steps": 4},
    "Glow": {**NET, "n_transforms": 2},
    "VAE": {"hidden_sizes": (32,), "n_importance": 32, "device": "cpu"},
    "MADE": {**NET, "n_masks": 2},
    "TabularAutoregressive": {**NET, "n_orders": 2, "dropout": 0.0},
    "NGram": {},
    "TransformerLanguageModel": {"n_layers": 1, "width": 32, "device": "cpu"},
    "PixelCNN": {**EXACT, "max_steps": 400, "width": 8, "n_layers": 2},
    "ImageTransformer": {**EXACT, "width": 16, "n_layers": 1, "n_heads": 2},
    "GAN": {"hidden_sizes": (64, 64), "device": "cpu"},
    "RecurrentLanguageModel": {"n_layers": 1, "width": 32, "device": "cpu"},
    "MaskedDiffusion": {"n_layers": 1, "width": 32, "device": "cpu"},
    "Seq2Seq": {"n_layers": 1, "width": 32, "device": "cpu"},
    "NoiseConditionalScore": {"hidden_sizes": (32,), "device": "cpu"},
}
"""By the name of the model; one that is not here is tested with its defaults."""

QUICK = {
    **SMALL,
    # Its default tries many numbers of components in every fit: tests/classical fits that one.
    "GaussianMixture": {"n_components": 3, "n_init": 1},
    "NoiseConditionalScore": {**SMALL["NoiseConditionalScore"], "n_ode_steps": 8},
}
"""The same for tests, where a tenth of the time matters more than a comparison with earlier records."""
