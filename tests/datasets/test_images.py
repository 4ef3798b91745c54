import hashlib
import io
import struct

import numpy as np
import pytest

from densekit.datasets import binarize, catalog, images


def test_binarizing_draws_each_pixel_with_its_level_as_probability():
    gray = np.repeat(np.array([0, 1, 64, 128, 254, 255], np.uint8), 40_000).reshape(6, 200, 200)
    drawn = binarize(gray, seed=1)
    share = drawn.mean((1, 2))
    p = np.array([0, 1, 64, 128, 254, 255]) / 255
    assert np.abs(share - p).max() < 4 * np.sqrt(0.25 / 40_000)
    assert share[0] == 0
    assert share[-1] == 1
    assert drawn.dtype == np.uint8
    assert set(np.unique(drawn)) == {0, 1}


def test_a_draw_is_fixed_by_its_seed():
    gray = np.full((30, 8, 8), 128, np.uint8)
    assert np.array_equal(binarize(gray, 3), binarize(gray, 3))
    assert not np.array_equal(binarize(gray, 3), binarize(gray, 4))
    with pytest.raises(TypeError, match="images has dtype float64: gray levels must be uint8"):
        binarize(gray / 255, 3)


def test_idx_is_read_as_it_is_defined():
    data = struct.pack(">HBBIII", 0, 8, 3, 2, 1, 3) + bytes([1, 2, 3, 250, 251, 252])
    assert images._idx(data).tolist() == [[[1, 2, 3]], [[250, 251, 252]]]


def test_cifar_planes_become_channels():
    planes = np.arange(2 * 3 * 32 * 32, dtype=np.int64) % 251
    records = np.insert(planes.reshape(2, -1), 0, [7, 9], axis=1).astype(np.uint8)
    x = images._cifar(records.tobytes())
    assert x.shape == (2, 32, 32, 3)
    assert x[1, 4, 5, 2] == planes.reshape(2, 3, 32, 32)[1, 2, 4, 5]


def test_cifar10_is_read_from_its_archive(monkeypatch):
    def record(level):
        return np.repeat(np.array([[3], [level]], np.uint8), [1, 3072], axis=0).tobytes()

    found = {f"data_batch_{i}": record(i) + record(10 * i) for i in range(1, 6)}
    found["test_batch"] = record(99)
    monkeypatch.setattr("densekit.datasets.fetch.members", lambda *_: found)
    data = images.cifar10()
    levels = [[int(x[0, 0, 0]) for x in p] for p in (data.train, data.valid)]
    assert levels == [[1, 10, 2, 20, 3, 30, 4, 40, 5], [50]]
    assert data.test.for_scoring()[0].shape == (32, 32, 3)


def test_frey_faces_stand_upright(tmp_path):
    from scipy.io import savemat

    faces = np.arange(3 * 28 * 20).reshape(3, 28, 20).astype(np.uint8)
    stream = io.BytesIO()
    savemat(stream, {"ff": faces.reshape(3, -1).T})
    (tmp_path / "frey.mat").write_bytes(stream.getvalue())
    assert np.array_equal(images._parse_frey_mat([tmp_path / "frey.mat"])["images"], faces)


def test_mnist_is_the_original(local):
    data = local("mnist")
    parts = data.train, data.valid, data.test.for_scoring()
    assert [p.shape for p in parts] == [(50_000, 28, 28), (10_000, 28, 28), (10_000, 28, 28)]
    header = struct.pack(">IIII", 2051, 60_000, 28, 28)
    every = header + parts[0].tobytes() + parts[1].tobytes()
    md5 = hashlib.md5(every, usedforsecurity=False).hexdigest()
    assert md5 == "6bbc9ace898e44ae57da46a324031adb"  # as stated with the original file


def test_the_dynamic_set_has_other_draws_of_the_same_images(local):
    gray, fixed, dynamic = map(local, ("mnist", "binarised_mnist", "binarised_mnist_dynamic"))
    draws = dynamic.train.reshape(4, 50_000, 28, 28)
    assert np.array_equal(draws[0], fixed.train)
    assert np.array_equal(dynamic.valid, fixed.valid)
    assert np.array_equal(dynamic.test.for_scoring(), fixed.test.for_scoring())
    p = gray.train[:5000] / 255
    some = draws[:, :5000]
    for a, b in ((0, 1), (1, 2), (2, 3)):
        agree = p**2 + (1 - p) ** 2
        assert (some[a] == some[b]).mean() == pytest.approx(agree.mean(), abs=1e-3)
        assert (some[a] != some[b]).any((1, 2)).mean() > 0.99


def test_every_frey_face_is_in_one_part(local):
    data = local("freyfaces")
    every = np.concatenate([data.train, data.valid, data.test.for_scoring()])
    path = catalog.file("freyfaces/freyfaces.npz").locations[0]
    with np.load(path) as file:
        assert sorted(x.tobytes() for x in file["images"]) == sorted(x.tobytes() for x in every)


def test_jpeg_images_are_in_color(local):
    x = local("cifar10_jpeg").train
    assert x.shape[1:] == (32, 32, 3)
    assert x.mean((0, 1, 2)) == pytest.approx([125, 123, 114], abs=3)  # red, green, blue
