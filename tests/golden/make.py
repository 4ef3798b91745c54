"""Write the golden files of this release: a small fitted model of each kind, with rows and scores.

    python tests/golden/make.py

in the root of the repository, and only when a release adds a model or raises the file format: the
files of older releases stay as they are, since what is tested is that they load and score as they did.
A file that exists is therefore kept; delete it to make it anew.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

import densekit

HERE = Path(__file__).parent
SMALL = {"max_steps": 60, "random_state": 0}


def data():
    """A plane, a mixed table, small images and lines of text, all from one seed."""
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(200, 2)) @ [[1.0, 0.6], [0.0, 0.5]] + [3.0, -1.0]
    kind = rng.choice(["ash", "elm", "oak"], 200)
    mixed = pd.DataFrame(
        {
            "height": np.exp(rng.normal(size=200) + (kind == "oak")),
            "rings": rng.poisson(30, 200),
            "kind": kind,
        }
    )
    images = rng.binomial(255, 0.2 + 0.6 * np.eye(3), (100, 3, 3)).astype(np.uint8)
    lines = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"] * 10
    return plane, mixed, images, lines


def models():
    """Name of the file to estimator, data and context."""
    plane, mixed, images, lines = data()
    net, seed = {"hidden_sizes": (8,), **SMALL}, {"random_state": 0}
    d = densekit
    return {
        "gaussian": (d.Gaussian(**seed), plane, None),
        "mixture": (d.GaussianMixture(n_components=2, **seed), images, None),
        "kernel": (d.KernelDensity(**seed), mixed, None),
        "spline": (
            d.NeuralSplineFlow(n_transforms=2, n_bins=4, support={"height": "positive"}, **net),
            mixed,
            ["kind"],
        ),
        "planar": (d.PlanarFlow(n_transforms=3, **net), mixed, ["kind"]),
        "radial": (d.RadialFlow(n_transforms=3, **net), plane, None),
        "sylvester": (d.SylvesterFlow(n_transforms=2, **net), plane, None),
        "maf": (d.MaskedAutoregressiveFlow(n_transforms=2, **net), mixed, ["kind"]),
        "iaf": (
            d.MaskedAutoregressiveFlow(n_transforms=2, direction="sample", **net),
            plane,
            None,
        ),
        "realnvp": (d.RealNVP(n_transforms=2, dtype="float64", **net), plane, None),
        "transforms": (d.TransformFlow(**SMALL), plane, None),
        "naf": (
            d.NeuralAutoregressiveFlow(n_transforms=2, n_bins=4, dtype="float64", **net),
            plane,
            None,
        ),
        "gaussianization": (
            d.GaussianizationFlow(n_transforms=3, n_components=4, **net),
            mixed,
            ["kind"],
        ),
        "tarflow": (d.TarFlow(n_transforms=2, width=8, n_heads=2, **SMALL), images, None),
        "continuous": (d.ContinuousFlow(exact_dims=1, n_steps=3, **net), plane, None),
        "glow": (d.Glow(n_transforms=1, coupling="spline", **net), images, None),
        "vae": (d.VAE(latent_dim=2, n_importance=8, **net), mixed, None),
        "ngram": (d.NGram(order=3, **seed), lines, None),
        "transformer": (
            d.TransformerLanguageModel(width=8, n_layers=1, n_heads=2, **SMALL),
            lines,
            None,
        ),
        "pixelcnn": (d.PixelCNN(width=8, n_layers=3, n_components=3, **SMALL), images, None),
        "image_transformer": (
            d.ImageTransformer(width=8, n_layers=1, n_heads=2, n_components=3, **SMALL),
            images,
            None,
        ),
        "made": (d.MADE(n_masks=2, n_components=2, **net), mixed, ["kind"]),
        "tabular": (d.TabularAutoregressive(n_orders=2, n_components=2, **net), mixed, None),
        "recurrent": (d.RecurrentLanguageModel(width=8, n_layers=1, **SMALL), lines, None),
        "seq2seq": (d.Seq2Seq(width=8, n_layers=1, n_heads=2, **SMALL), lines, None),
        "masked_diffusion": (
            d.MaskedDiffusion(width=8, n_layers=1, n_heads=2, n_draws=8, **SMALL),
            lines,
            None,
        ),
        "gan": (d.GAN(latent_dim=3, **net), mixed, ["kind"]),
        "score": (d.NoiseConditionalScore(n_ode_steps=8, **net), plane, None),
    }


def main():
    """Fit and save the models, and write their rows and scores."""
    for name, (estimator, X, context) in models().items():
        path = HERE / f"{name}.densekit"
        if path.exists():
            continue
        estimator.set_params(device="cpu").fit(X, context=context).save(path)
        rows = X[-8:]
        record = {"densekit": densekit.__version__}
        if isinstance(rows, pd.DataFrame):
            record["frame"] = rows.to_dict("list")
        else:
            record["array"] = np.asarray(rows).tolist()
        if hasattr(estimator, "score_samples"):
            scores = estimator.score_samples(rows)
            record |= {"dtype": str(scores.dtype), "scores": scores.tolist()}
        path.with_suffix(".json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
