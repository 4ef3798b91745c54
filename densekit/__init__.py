"""Generative models behind one contract: ``Estimator().fit(X).sample(n)``, ``score_samples(X)``.

Names are loaded on first use, so that importing densekit costs next to nothing and imports no torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# One line for each public name: where it lives. A test fails if an estimator is missing here.
_EXPORTS = {
    "Capabilities": "densekit.tags",
    "DensityEstimator": "densekit.base",
    "NeuralDensity": "densekit.neural",
    "all_estimators": "densekit.discovery",
    "capabilities": "densekit.discovery",
    "load": "densekit.persistence",
    # columns of tables
    "ColumnWarning": "densekit.codecs.findings",
    "Description": "densekit.codecs.description",
    "describe": "densekit.codecs.table",
    # classical
    "Gaussian": "densekit.classical.gaussian",
    "GaussianMixture": "densekit.classical.mixture",
    "KernelDensity": "densekit.classical.kde",
    # flows
    "ContinuousFlow": "densekit.flows.continuous",
    "GaussianizationFlow": "densekit.flows.gaussianization",
    "Glow": "densekit.flows.glow",
    "MaskedAutoregressiveFlow": "densekit.flows.maf",
    "NeuralAutoregressiveFlow": "densekit.flows.naf",
    "NeuralSplineFlow": "densekit.flows.nsf",
    "PlanarFlow": "densekit.flows.planar",
    "RadialFlow": "densekit.flows.radial",
    "RealNVP": "densekit.flows.realnvp",
    "SylvesterFlow": "densekit.flows.sylvester",
    "TarFlow": "densekit.flows.tarflow",
    "TransformFlow": "densekit.flows.transform_flow",
    # vaes
    "VAE": "densekit.vaes.vae",
    # autoregressive
    "ImageTransformer": "densekit.autoregressive.image_transformer",
    "MADE": "densekit.autoregressive.made",
    "MaskedDiffusion": "densekit.autoregressive.masked_diffusion",
    "NGram": "densekit.autoregressive.ngram",
    "PixelCNN": "densekit.autoregressive.pixelcnn",
    "RecurrentLanguageModel": "densekit.autoregressive.recurrent",
    "Seq2Seq": "densekit.autoregressive.seq2seq",
    "TabularAutoregressive": "densekit.autoregressive.tabular",
    "TransformerLanguageModel": "densekit.autoregressive.transformer",
    # gans
    "GAN": "densekit.gans.gan",
    # score
    "NoiseConditionalScore": "densekit.score.ncsn",
    # compose
    "distill": "densekit.compose.distillation",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'densekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
