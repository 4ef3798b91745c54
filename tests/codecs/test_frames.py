"""Containers: modality, length and slices."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse

from densekit.codecs import modality_of, n_rows, take

TABLE = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": list("uvuv")})
CONTAINERS = [
    TABLE,
    pl.from_pandas(TABLE),
    pa.Table.from_pandas(TABLE),
    np.arange(8.0).reshape(4, 2),
    np.zeros((4, 2, 2), np.uint8),
    ["a", "b", "c", "d"],
    ("a", "b", "c", "d"),
    pd.Series(list("abcd"), index=[9, 9, 7, 1]),
    pl.Series(list("abcd")),
    pa.chunked_array([["a"], ["b", "c", "d"]]),
]


@pytest.mark.parametrize("X", CONTAINERS, ids=lambda X: type(X).__name__)
def test_slices_put_together_are_the_whole(X):
    assert n_rows(X) == 4
    parts = [take(X, 0, 1), take(X, 1, 3), take(X, 3, 9)]
    assert [n_rows(p) for p in parts] == [1, 2, 1]
    assert all(type(p) is type(X) for p in parts)
    assert n_rows(take(X, 4, 9)) == 0
    if isinstance(X, np.ndarray):
        assert np.shares_memory(parts[1], X)
        np.testing.assert_array_equal(np.concatenate(parts), X)
    elif isinstance(X, (list, tuple)):
        assert [v for p in parts for v in p] == list(X)


@pytest.mark.parametrize(
    ("X", "image_shape", "modality"),
    [
        *[(X, None, "table") for X in CONTAINERS[:4]],
        *[(X, None, "text") for X in CONTAINERS[5:]],
        ([[1, 2], [3, 4]], None, "table"),
        ([["a", 1.5]], None, "table"),
        ([None, "a"], None, "text"),
        (np.array(["a", "b"]), None, "text"),
        (np.array(["a", "b"], dtype=object), None, "text"),
        (np.array([["a"], ["b"]]), None, "table"),
        (np.zeros((2, 3, 3), np.uint8), None, "image"),
        (np.full((2, 3, 3, 1), 255), None, "image"),
        (np.ones((2, 3, 3, 3)), None, "image"),
        (np.ones((2, 3, 3), bool), None, "image"),
        ([np.ones((3, 3)), np.zeros((3, 3))], None, "image"),
        (np.zeros((2, 9)), (3, 3), "image"),
        (np.zeros((2, 9)), None, "table"),
    ],
)
def test_modality(X, image_shape, modality):
    assert modality_of(X, image_shape) == modality


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.full((2, 3, 3), 1.5), r"float64 of shape \(2, 3, 3\), values from 1.5 to 1.5"),
        (np.full((2, 3, 3), -1), "int64"),
        (np.full((2, 3, 3), 256), "to 256"),
        (np.zeros((2, 3, 3, 3, 1), np.uint8), "three or four"),
        (np.zeros((2, 3, 3), complex), "complex128"),
        (np.zeros(3), "1D array instead.*Reshape your data"),
        (3.0, "0D array"),
        ([], "no rows"),
        (np.zeros((0, 3)), "no rows"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column name 'a'"),
    ],
)
def test_no_modality(X, words):
    with pytest.raises(ValueError, match=words):
        modality_of(X)


def test_image_shape_is_for_arrays():
    with pytest.raises(ValueError, match=r"image_shape=\(1, 2\).*pandas frame.*to_numpy"):
        modality_of(TABLE, (1, 2))


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ("text", "one string of 4 characters, 'text'"),
        (b"text", "4 bytes"),
        (scipy.sparse.eye(3).tocsc(), "Sparse"),
        (pl.LazyFrame({"a": [1]}), "collect"),
    ],
)
def test_no_rows_at_all(X, words):
    with pytest.raises(TypeError, match=words):
        modality_of(X)
