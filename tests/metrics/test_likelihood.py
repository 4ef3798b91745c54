import math

import numpy as np
import pytest

from densekit.metrics import (
    bits_per_byte,
    bits_per_character,
    bits_per_dim,
    held_out_nats,
    likelihood_units,
    nats_per_character,
    perplexity,
)


def test_mean_and_standard_error():
    rng = np.random.default_rng(0)
    draws = rng.normal(-3, 2, size=(4000, 50))
    found = [held_out_nats(row) for row in draws]
    assert np.mean([f.value for f in found]) == pytest.approx(-3, abs=0.02)
    # The error that is claimed is the error that is made.
    made = np.std([f.value for f in found])
    assert np.mean([f.standard_error for f in found]) == pytest.approx(made, rel=0.03)


def test_monte_carlo_errors_do_not_average_out():
    scores = np.zeros(10_000)
    assert held_out_nats(scores, np.full(10_000, 0.3)).standard_error == pytest.approx(0.3)


def test_outside_the_support():
    found = held_out_nats([-1.0, -math.inf])
    assert found.value == -math.inf
    assert math.isnan(found.standard_error)
    assert bits_per_dim([-math.inf, -1.0], 3).value == math.inf
    assert bits_per_character([-math.inf, 0.0], ["a", "b"]).value == math.inf


def test_one_row_has_no_error():
    assert math.isnan(held_out_nats([-1.0]).standard_error)


def test_uniform_codes_cost_their_bits():
    assert bits_per_dim(np.full(5, -12 * math.log(256)), 12).value == pytest.approx(8)
    assert bits_per_dim(np.full(5, -12 * math.log(256)), 12).standard_error == pytest.approx(0)


def test_characters_include_the_end():
    texts = ["a", "abc", ""]
    scores = [-math.log(2) * 3 * (len(text) + 1) for text in texts]
    assert bits_per_character(scores, texts).value == pytest.approx(3)
    assert nats_per_character(scores, texts).value == pytest.approx(3 * math.log(2))


def test_bytes_are_those_of_utf8():
    texts = ["a\u00e9", "\u20ac\U0001f600", ""]  # 3, 7 and 0 bytes, and three line feeds
    scores = [-2.0 * math.log(2), -20 * math.log(2), -4 * math.log(2)]
    assert bits_per_byte(scores, texts).value == pytest.approx(26 / 13)
    assert bits_per_character(scores, texts).value == pytest.approx(26 / 7)


def test_perplexity_by_hand():
    # Five tokens of probability 1/2 and one of 1/16: nine bits over six tokens.
    scores = [-4 * math.log(2), -5 * math.log(2)]
    assert perplexity(scores, [4, 2]).value == pytest.approx(2**1.5)
    assert perplexity([-math.inf, -1.0], [1, 1]).value == math.inf
    assert perplexity([-1e6], [1]).value == math.inf


def test_perplexity_standard_error():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        counts = rng.integers(5, 40, 80)
        found.append(perplexity(-3.0 * counts + rng.normal(0, np.sqrt(counts)), counts))
    made = np.std([f.value for f in found])
    assert np.mean([f.value for f in found]) == pytest.approx(math.exp(3), rel=0.01)
    assert np.mean([f.standard_error for f in found]) == pytest.approx(made, rel=0.06)


def test_ratio_standard_error():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        lengths = rng.integers(10, 100, 60)
        scores = -2.0 * (lengths + 1) + rng.normal(0, np.sqrt(lengths))
        found.append(nats_per_character(scores, ["x" * n for n in lengths]))
    made = np.std([f.value for f in found])
    assert np.mean([f.value for f in found]) == pytest.approx(2, abs=0.01)
    assert np.mean([f.standard_error for f in found]) == pytest.approx(made, rel=0.06)


@pytest.mark.parametrize(
    ("scores", "errors", "message"),
    [
        ([], None, "shape"),
        ([[1.0]], None, "shape"),
        ([1.0, math.nan], None, r"scores\[1\] is NaN"),
        ([1.0], [1.0, 2.0], "must be the same"),
    ],
)
def test_bad_scores(scores, errors, message):
    with pytest.raises(ValueError, match=message):
        held_out_nats(scores, errors)


def test_bad_companions():
    with pytest.raises(ValueError, match="n_dims=0"):
        bits_per_dim([1.0], 0)
    with pytest.raises(ValueError, match="2 scores for 1 texts"):
        bits_per_character([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="2 scores for 3 texts"):
        perplexity([1.0, 2.0], [1, 1, 1])
    with pytest.raises(ValueError, match=r"n_tokens\[1\]=0: a text has at least one token"):
        perplexity([1.0, 2.0], [1, 0])


def test_each_modality_has_the_units_of_its_papers():
    scores, errors = np.array([-40.0, -52.0]), np.array([0.1, 0.2])
    facts = {"modality": "image", "base_measure": "counting", "n_dims": 12}
    assert likelihood_units(scores, errors, **facts) == {
        "bits_per_dim": bits_per_dim(scores, 12, errors)
    }
    assert likelihood_units(scores, errors, **facts | {"base_measure": "lebesgue"}) == {}
    assert likelihood_units(scores, modality="table", base_measure="counting", n_dims=3) == {}
    texts = ["a cat sat", "dogs"]
    facts = {"modality": "text", "base_measure": "counting", "texts": texts}
    found = likelihood_units(scores, errors, **facts, units={"bits per character"})
    assert found == {"bits_per_character": bits_per_character(scores, texts, errors)}
    found = likelihood_units(
        scores, errors, **facts, units=["nats per character", "perplexity per word"]
    )
    assert list(found) == ["bits_per_character", "nats_per_character", "perplexity"]
    nats = found["nats_per_character"]
    assert nats.value == pytest.approx(92 / (9 + 4 + 2))
    assert nats.value == pytest.approx(found["bits_per_character"].value * math.log(2))
    # Four words and two ends.
    assert found["perplexity"].value == pytest.approx(math.exp(92 / 6))
    assert found["perplexity"].unit == "perplexity per word"


@pytest.mark.parametrize(("modality", "missing"), [("image", "n_dims"), ("text", "texts")])
def test_units_need_the_sizes_of_rows(modality, missing):
    with pytest.raises(ValueError, match=f"{missing}=None: "):
        likelihood_units([-1.0], modality=modality, base_measure="counting")
