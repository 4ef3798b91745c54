"""Sampling time of a PixelCNN with and without its cache, and time of a training step.

    python benchmarks/pixel_sampling.py

Images have 28 x 28 pixels with 2 or 256 levels; everything uses one thread. With the cache, a
whole draw is timed. Without it, a draw takes one pass over the images for each of the 784 pixels,
so one pass is timed and multiplied. Writes results/pixel_sampling.json.
"""

import statistics

import numpy as np
import torch
from _record import environment, interleaved, ratio, write

from densekit import PixelCNN

SIZE, ROUNDS, BATCHES = (28, 28), 3, (16, 64)


def fitted(top):
    """The default network after a few steps of training."""
    X = np.random.default_rng(0).integers(0, top + 1, (128, *SIZE), dtype=np.uint8)
    support = ("interval", 0, top)
    return PixelCNN(max_steps=3, support=support, device="cpu", random_state=0).fit(X)


def largest_gap(module, n):
    """Largest difference between the features during sampling and those of a pass over the samples."""
    seen, sample = [], module.head.sample

    def spy(features):
        seen.append(features)
        return sample(features)

    module.head.sample = spy
    x = module.draw(n, None)
    del module.head.sample
    whole = module.net(module._read(x)).flatten(2)
    return float((torch.stack(seen, 2) - whole).abs().max())


def measure(module, n):
    """Seconds for n images with and without the cache, and their ratio."""
    x = torch.zeros(n, *module.event_shape)

    def one_pass():
        features = module.net(module._read(x))[:, :, 0, 0]
        return module.head.sample(features)

    with torch.no_grad():
        seconds = interleaved({"cached": lambda: module.draw(n, None), "pass": one_pass}, ROUNDS)
    pixels = SIZE[0] * SIZE[1]
    return {
        "cached_s": round(statistics.median(seconds["cached"]), 4),
        "one_pass_s": round(statistics.median(seconds["pass"]), 4),
        "uncached_s": round(pixels * statistics.median(seconds["pass"]), 2),
        "times_as_fast": round(pixels * ratio(seconds, "pass", "cached"), 1),
    }


def step_seconds(model):
    """Seconds of a training step with the default batch size."""
    module = model._build(model.schema_, None)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    x = torch.zeros(model.batch_size, *module.event_shape)

    def step():
        optimizer.zero_grad(set_to_none=True)
        (-module(None).log_prob(x).mean()).backward()
        optimizer.step()

    return round(statistics.median(interleaved({"step": step}, ROUNDS)["step"]), 4)


def main():
    torch.set_num_threads(1)
    record = {"environment": environment(), "threads": 1, "image": SIZE, "rounds": ROUNDS}
    for top in (1, 255):
        model = fitted(top)
        with torch.no_grad():
            gap = largest_gap(model.module_, 4)
        record[f"{top + 1} levels"] = {
            "step_of_training_s": step_seconds(model),
            "batch_size": model.batch_size,
            "largest_gap_between_cached_and_uncached_features": gap,
            **{f"{n} images": measure(model.module_, n) for n in BATCHES},
        }
    write("pixel_sampling", record)


if __name__ == "__main__":
    main()
