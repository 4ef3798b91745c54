"""Generative models behind one contract: ``Estimator().fit(X).sample(n)``, ``score_samples(X)``.

Names are loaded on first use, so that importing densekit costs next to nothing and imports no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # What __getattr__ finds, for type checkers and editors; a test holds the two lists together.
    from densekit import bench as bench
    from densekit import checks as checks
    from densekit import datasets as datasets
    from densekit import formats as formats
    from densekit import metrics as metrics
    from densekit.autoregressive.image_transformer import ImageTransformer as ImageTransformer
    from densekit.autoregressive.made import MADE as MADE
    from densekit.autoregressive.masked_diffusion import MaskedDiffusion as MaskedDiffusion
    from densekit.autoregressive.ngram import NGram as NGram
    from densekit.autoregressive.pixelcnn import PixelCNN as PixelCNN
    from densekit.autoregressive.recurrent import RecurrentLanguageModel as RecurrentLanguageModel
    from densekit.autoregressive.seq2seq import Seq2Seq as Seq2Seq
    from densekit.autoregressive.tabular import TabularAutoregressive as TabularAutoregressive
    from densekit.autoregressive.transformer import (
        TransformerLanguageModel as TransformerLanguageModel,
    )
    from densekit.base import DensityEstimator as DensityEstimator
    from densekit.classical.gaussian import Gaussian as Gaussian
    from densekit.classical.kde import KernelDensity as KernelDensity
    from densekit.classical.mixture import GaussianMixture as GaussianMixture
    from densekit.codecs.describing import describe as describe
    from densekit.codecs.description import Description as Description
    from densekit.codecs.findings import ColumnWarning as ColumnWarning
    from densekit.compose.distillation import distill as distill
    from densekit.discovery import all_estimators as all_estimators
    from densekit.discovery import capabilities as capabilities
    from densekit.flows.continuous import ContinuousFlow as ContinuousFlow
    from densekit.flows.gaussianization import GaussianizationFlow as GaussianizationFlow
    from densekit.flows.glow import Glow as Glow
    from densekit.flows.maf import MaskedAutoregressiveFlow as MaskedAutoregressiveFlow
    from densekit.flows.naf import NeuralAutoregressiveFlow as NeuralAutoregressiveFlow
    from densekit.flows.nsf import NeuralSplineFlow as NeuralSplineFlow
    from densekit.flows.planar import PlanarFlow as PlanarFlow
    from densekit.flows.radial import RadialFlow as RadialFlow
    from densekit.flows.realnvp import RealNVP as RealNVP
    from densekit.flows.sylvester import SylvesterFlow as SylvesterFlow
    from densekit.flows.tarflow import TarFlow as TarFlow
    from densekit.flows.transform_flow import TransformFlow as TransformFlow
    from densekit.gans.gan import GAN as GAN
    from densekit.neural import NeuralDensity as NeuralDensity
    from densekit.persistence import load as load
    from densekit.score.ncsn import NoiseConditionalScore as NoiseConditionalScore
    from densekit.tags import Capabilities as Capabilities
    from densekit.vaes.vae import VAE as VAE

__version__ = "0.1.0"

# One line for each public name: where it is. A test fails if an estimator is missing here.
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
    "describe": "densekit.codecs.describing",
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
_MODULES = ("bench", "checks", "datasets", "formats", "metrics")
"""Modules that users call by name, as in ``densekit.datasets.load``; others are imported in full."""
__all__ = ["__version__", *_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"densekit.{name}")
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'densekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
