import itertools
import math

import numpy as np
import pytest

from densekit.datasets import HeldOut
from densekit.datasets.sources import IsingImages, MarkovText

SHORT = MarkovText("ab", min_length=2, mean_tail=0.2, seed=1)
SMALL = IsingImages(3, 3, coupling=0.4, field=0.15)


def _all_strings(alphabet, longest):
    lengths = range(longest + 1)
    return ["".join(s) for n in lengths for s in itertools.product(alphabet, repeat=n)]


def _all_images(height, width):
    bits = np.arange(2 ** (height * width))[:, None] >> np.arange(height * width)
    return (bits % 2).astype(np.uint8).reshape(-1, height, width)


def _assert_draws_follow(counts, p):
    """Counts are those of a multinomial: chi-square over the cells that expect enough."""
    expected = counts.sum() * p
    seen = expected > 10
    assert expected[seen].sum() > 0.9 * counts.sum()
    chi2 = ((counts[seen] - expected[seen]) ** 2 / expected[seen]).sum()
    assert abs(chi2 - seen.sum()) < 5 * math.sqrt(2 * seen.sum())


# ------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize("min_length", [1, 2, 5])
def test_masses_of_all_strings_and_of_the_tail_sum_to_one(min_length):
    source = MarkovText("abc", min_length=min_length, mean_tail=3.0, seed=4)
    mass = np.exp(source.log_prob(_all_strings("abc", 8))).sum()
    # The chance to go on after the eighth letter.
    here = source.initial
    for length in range(1, 9):
        goes_on = 1 - source.end if length >= min_length else 1.0
        here = here * goes_on
        here = here @ source.transition if length < 8 else here
    assert mass + here.sum() == pytest.approx(1, abs=1e-12)
    assert 0.01 < here.sum() < 0.9


def test_entropy_of_strings_is_that_of_their_masses():
    logp = SHORT.log_prob(_all_strings("ab", 14))
    p = np.exp(logp)
    assert p.sum() == pytest.approx(1, abs=1e-7)  # so little is longer
    possible = p > 0
    entropy = -(p[possible] * logp[possible]).sum()
    assert SHORT.entropy == pytest.approx(entropy, abs=1e-5)
    assert SHORT.entropy_error == 0


def test_strings_are_drawn_with_their_masses():
    texts = SHORT.sample(50_000, random_state=0)
    strings = _all_strings("ab", 8)
    index = {s: i for i, s in enumerate(strings)}
    counts = np.bincount([index[t] for t in texts if t in index], minlength=len(strings))
    _assert_draws_follow(counts, np.exp(SHORT.log_prob(strings)))


def test_entropy_is_the_mean_of_minus_log_prob_of_long_strings():
    source = MarkovText()
    scores = source.log_prob(source.sample(5000, random_state=1))
    assert abs(scores.mean() + source.entropy) < 4 * scores.std() / math.sqrt(5000)


def test_log_prob_of_a_string_is_the_sum_over_its_steps():
    source = MarkovText("xyz", min_length=2, mean_tail=4.0, seed=7)
    x, y, z = range(3)
    pi, q, e = source.initial, source.transition, source.end
    expected = [
        pi[z] * q[z, x] * e[x],
        pi[z] * q[z, x] * (1 - e[x]) * q[x, y] * e[y],
        pi[y] * q[y, y] * (1 - e[y]) * q[y, y] * (1 - e[y]) * q[y, x] * e[x],
    ]
    assert np.exp(source.log_prob(["zx", "zxy", "yyyx"])) == pytest.approx(expected)


def test_a_row_score_does_not_depend_on_its_neighbors():
    source = MarkovText()
    texts = source.sample(20, random_state=3)
    alone = [source.log_prob([text])[0] for text in texts]
    assert source.log_prob(["", "\U0001f600", *texts, "a"])[2:-1] == pytest.approx(alone)
    assert source.log_prob(HeldOut(texts, "texts")) == pytest.approx(alone)


def test_impossible_strings_have_no_mass():
    source = MarkovText("ab", min_length=3)
    impossible = ["", "ab", "zab", "azb", "abz", "ABA", "ab\U0001f600", "ab\ud800"]
    assert source.log_prob(impossible).tolist() == [-math.inf] * len(impossible)
    assert source.log_prob([]).shape == (0,)


def test_strings_keep_to_the_alphabet_and_the_least_length():
    texts = MarkovText("qrs", min_length=6, mean_tail=2.0).sample(500, random_state=0)
    assert min(map(len, texts)) == 6
    assert set("".join(texts)) == set("qrs")


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("abab", "X is one string; pass a list of strings"),
        (["ab", 3], r"X\[1\] is 3, of type int, not a string"),
    ],
)
def test_what_is_no_list_of_strings_is_named(X, message):
    with pytest.raises(TypeError, match=message):
        SHORT.log_prob(X)


# ----------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (1, 6), (6, 1)])
def test_masses_of_all_images_sum_to_one_and_have_the_entropy(shape):
    source = IsingImages(*shape, coupling=0.4, field=0.15)
    logp = source.log_prob(_all_images(*shape))
    assert np.exp(logp).sum() == pytest.approx(1, abs=1e-12)
    assert source.entropy == pytest.approx(-(np.exp(logp) * logp).sum(), abs=1e-12)


def test_images_are_drawn_with_their_masses():
    X = SMALL.sample(50_000, random_state=0)
    code = X.reshape(len(X), -1) @ (1 << np.arange(9))
    _assert_draws_follow(
        np.bincount(code, minlength=512), np.exp(SMALL.log_prob(_all_images(3, 3)))
    )


def test_entropy_is_the_mean_of_minus_log_prob_of_images():
    source = IsingImages()
    scores = source.log_prob(source.sample(5000, random_state=1))
    assert abs(scores.mean() + source.entropy) < 4 * scores.std() / math.sqrt(5000)


def test_a_chain_has_the_partition_function_of_a_chain():
    # Z = 2^W cosh(J)^(W - 1), and all spins alike have energy -J (W - 1).
    for shape in ((1, 9), (9, 1)):
        score = IsingImages(*shape, coupling=0.7).log_prob(np.ones((1, *shape)))[0]
        assert score == pytest.approx(0.7 * 8 - 9 * math.log(2) - 8 * math.log(math.cosh(0.7)))


def test_without_coupling_pixels_are_independent():
    source = IsingImages(4, 5, coupling=0.0, field=0.3)
    p = 1 / (1 + math.exp(-0.6))
    assert source.entropy == pytest.approx(-20 * (p * math.log(p) + (1 - p) * math.log(1 - p)))
    assert source.log_prob(np.ones((1, 4, 5)))[0] == pytest.approx(20 * math.log(p))


def test_the_law_is_the_same_for_the_transposed_image():
    X = IsingImages(4, 6, field=0.1).sample(50, random_state=0)
    across = IsingImages(6, 4, field=0.1).log_prob(X.transpose(0, 2, 1))
    assert IsingImages(4, 6, field=0.1).log_prob(X) == pytest.approx(across)


def test_levels_that_are_neither_black_nor_white_have_no_mass():
    X = np.zeros((3, 3, 3), dtype=np.uint8)
    X[1, 0, 0], X[2, 2, 2] = 1, 2
    assert np.isneginf(SMALL.log_prob(X)).tolist() == [False, False, True]
    assert SMALL.sample(4, random_state=0).dtype == np.uint8


@pytest.mark.parametrize("shape", [(9,), (2, 9), (2, 3, 4), (2, 3, 3, 1)])
def test_wrong_image_shapes_are_named(shape):
    with pytest.raises(ValueError, match=r"scores images of shape \(n, 3, 3\)"):
        SMALL.log_prob(np.zeros(shape))


# ------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("source", [SHORT, SMALL], ids=["text", "images"])
def test_seeds(source):
    state = np.random.get_state()[1].copy()
    assert np.array_equal(source.sample(9, random_state=1), source.sample(9, random_state=1))
    assert not np.array_equal(source.sample(9, random_state=1), source.sample(9, random_state=2))
    assert (np.random.get_state()[1] == state).all()


def test_parameters_are_fixed_by_the_seed():
    assert (MarkovText(seed=3).transition == MarkovText(seed=3).transition).all()
    assert (MarkovText(seed=3).transition != MarkovText(seed=4).transition).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarkovText("aba"), "alphabet='aba': must be at least two different letters"),
        (lambda: MarkovText("a"), "alphabet='a'"),
        (lambda: MarkovText(min_length=0), "min_length=0: must be at least 1"),
        (lambda: MarkovText(mean_tail=0.0), "mean_tail=0.0, concentration=0.7: must be positive"),
        (lambda: IsingImages(0, 3), "height=0, width=3: height must be at least 1"),
        (lambda: IsingImages(3, 11), r"width=11: .* width from 1 to 10"),
    ],
)
def test_parameters_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
