import math

import numpy as np
import pandas as pd
import pytest

from densekit import Gaussian, NGram, codecs
from densekit.datasets import Dataset, HeldOut, load, names

_DISJOINT = ("breast_cancer", "digits", "pydoc", "two_moons", "checkerboard", "mnist", "abalone")
_FAMILIES = ("breast_cancer", "funnel", "binarised_mnist", "ptb", "adult", "uci_yacht", "nltcs")


def _rows(part):
    part = part.to_numpy() if isinstance(part, pd.DataFrame) else part
    return [row if isinstance(row, str) else str(row) if row.dtype == object else row.tobytes()
            for row in part]  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_every_set_here_is_as_cataloged_and_a_codec_takes_its_rows_back(local, name):
    from densekit.datasets import info

    data, known = local(name), info(name)
    parts = data.train, data.valid, data.test.for_scoring()
    assert (data.name, data.modality, data.source) == (name, known.modality, known.source)
    assert data.reference == known.published
    assert data.n_dims == known.columns
    if known.rows is not None and name != "bsds300":  # of which the fixture draws a few
        assert tuple(map(len, parts)) == known.rows
    codec = {"table": codecs.TableCodec, "image": codecs.ImageCodec, "text": codecs.TextCodec}
    some = codecs.take(data.train, 0, 40)
    fitted = codec[data.modality](**data.domain).fit(some)
    back = fitted.decode(fitted.encode(some)[0])
    if isinstance(some, pd.DataFrame):
        pd.testing.assert_frame_equal(back, some, rtol=1e-4)
    elif data.modality == "text":
        assert back == some
    else:
        np.testing.assert_allclose(back, some, rtol=1e-4, atol=1e-4 * np.abs(some).max())


@pytest.mark.parametrize("name", _FAMILIES)
def test_every_call_gives_the_same_rows(local, name):
    assert local(name).digest == load(name).digest


@pytest.mark.parametrize("name", _DISJOINT)
def test_no_row_is_in_two_parts(local, name):
    data = local(name)
    parts = [_rows(part) for part in (data.train, data.valid, data.test.for_scoring())]
    assert len(set().union(*parts)) == sum(map(len, parts))


@pytest.mark.parametrize("name", _FAMILIES)
def test_a_model_fits_and_scores(local, name):
    data = local(name)
    if data.modality == "text":
        model = NGram().fit(data.train[:200])
    else:
        model = Gaussian(**data.domain).fit(codecs.take(data.train, 0, 200))
    assert np.isfinite(model.score_samples(codecs.take(data.test.for_scoring(), 0, 20))).all()


def test_arrays_cannot_be_written_to():
    data = load("two_moons")
    for rows in (data.train, data.valid, data.test.for_scoring()):
        with pytest.raises(ValueError, match="read-only"):
            rows[0] = 0
    mine = np.zeros((3, 2))
    Dataset(mine, mine, HeldOut(mine, "mine"), "mine", "table")
    mine[0] = 1  # the array itself stays its owner's to write to


def test_what_one_does_to_a_frame_no_other_sees():
    first = load("breast_cancer")
    digest = first.digest
    first.train.iloc[0, 0] = -1
    first.test.for_scoring()["mean radius"] = 0
    assert load("breast_cancer").digest == digest


def test_nothing_is_kept_once_a_set_is_dropped():
    import gc
    import weakref

    data = load("digits")
    kept = weakref.ref(data), weakref.ref(data.train.base)
    del data
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


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


def test_digest_sees_every_part():
    from dataclasses import replace

    data = load("two_moons")
    changed = data.test.for_scoring().copy()
    changed[-1, -1] = math.nextafter(changed[-1, -1], 9)
    assert replace(data, test=HeldOut(changed, data.name)).digest != data.digest


def test_the_test_part_does_not_reach_fit():
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
