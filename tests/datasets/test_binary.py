import numpy as np

from densekit import Gaussian
from densekit.datasets import binary


def test_published_rows_are_read_as_zeros_and_ones(tmp_path):
    for part, text in (("train", "0,1,1\n1,0,0\n"), ("valid", "1,1,1\n"), ("test", "0,0,0\n")):
        (tmp_path / f"set.{part}.data").write_text(text)
    found = binary._parse_parts(
        [tmp_path / f"set.{part}.data" for part in ("train", "valid", "test")]
    )
    assert found["train"].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert found["train"].dtype == np.uint8
    assert found["valid"].shape == found["test"].shape == (1, 3)


def test_a_column_that_is_constant_in_training_can_still_vary(local):
    data = local("mushrooms")
    train, test = data.train.to_numpy(), data.test.for_scoring().to_numpy()
    still = (train == train[0]).all(0)
    surprised = (test[:, still] != train[0, still]).any(1)
    assert still.sum() == 2
    assert surprised.sum() == 4
    scores = Gaussian().fit(data.train).score_samples(data.test.for_scoring()[surprised])
    assert np.isfinite(scores).all()


def test_masses_are_over_counting_measure(local):
    schema = local("nltcs").schema
    assert {c.kind for c in schema.columns} == {"ordinal"}
    assert schema.n_dims == 16
