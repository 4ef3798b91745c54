import math

import numpy as np
import pandas as pd
import pytest

from densekit.datasets import HeldOut, load, names


def _rows(part):
    return [row.tobytes() if isinstance(row, np.ndarray) else row for row in part]


@pytest.mark.parametrize("name", names())
def test_parts_are_disjoint_and_fixed(name):
    data = load(name)
    load.cache_clear()
    assert load(name).digest == data.digest
    parts = [
        _rows(part.to_numpy() if isinstance(part, pd.DataFrame) else part)
        for part in (data.train, data.valid, data.test.for_scoring())
    ]
    n = sum(map(len, parts))
    assert len(set().union(*parts)) == n  # disjoint, and nothing twice
    assert 0.14 < len(parts[2]) / n < 0.23
    assert data.name == name


def test_the_split_did_not_move():
    # Published numbers are about these rows; a change of split needs a new name.
    assert load("breast_cancer").digest.startswith("0f88fa78")
    assert load("digits").digest.startswith("cb1bc1e5")


def test_images_keep_their_seventeen_levels():
    data = load("digits")
    assert data.train.dtype == np.uint8
    assert data.train.shape[1:] == (8, 8)
    assert set(np.unique(data.train)) == set(range(17))
    assert data.n_dims == 64


def test_tables_keep_their_columns():
    data = load("breast_cancer")
    assert list(data.train.columns) == list(data.test.for_scoring().columns)
    assert data.train.index[0] == data.test.for_scoring().index[0] == 0
    assert data.n_dims == 30


def test_texts_are_short_and_their_characters_known():
    data = load("pydoc")
    texts = [*data.train, *data.valid, *data.test.for_scoring()]
    assert all(20 <= len(text) <= 200 for text in texts)
    assert set("".join(data.test.for_scoring())) <= set("".join(data.train))
    assert sum(map(len, data.train)) > 100_000
    assert data.n_dims is None


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="'digit'; did you mean 'digits'"):
        load("digit")
    with pytest.raises(ValueError, match="breast_cancer"):
        load("zzz")


def test_digest_sees_every_part():
    from dataclasses import replace

    data = load("two_moons")
    changed = data.test.for_scoring().copy()
    changed[-1, -1] = math.nextafter(changed[-1, -1], 9)
    assert replace(data, test=HeldOut(changed, data.name)).digest != data.digest


def test_the_test_part_does_not_reach_fit():
    from densekit import Gaussian

    data = load("two_moons")
    for wrong in (lambda: Gaussian().fit(data.test), lambda: np.asarray(data.test)):
        with pytest.raises(TypeError, match="test part of 'two_moons', which is for scoring only"):
            wrong()
    model = Gaussian().fit(data.train)
    scores = model.score_samples(data.test)
    assert np.array_equal(scores, model.score_samples(data.test.for_scoring()))
    assert model.score(data.test) == pytest.approx(scores.mean())


def test_schema_is_what_a_codec_learns():
    schema = load("digits").schema
    assert schema.modality == "image"
    assert schema.n_dims == 64
