"""Samples go to the file in pieces: the rows are those of the seed, however many there are."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

import densekit
from densekit import formats
from densekit.cli.drawing import Draws

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame({"a": RNG.normal(size=200), "b": RNG.choice(["x", "y"], 200)})


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawing")
    densekit.Gaussian().fit(FRAME).save(folder / "g.densekit")
    flow = densekit.RealNVP(n_transforms=1, max_steps=2, random_state=0)
    flow.fit(FRAME, context=["b"]).save(folder / "c.densekit")
    densekit.NGram(order=2).fit(["ab", "ba", "abba"] * 9).save(folder / "n.densekit")
    densekit.Gaussian().fit(RNG.integers(0, 4, (40, 3, 4)).astype(np.uint8)).save(
        folder / "i.densekit"
    )
    return folder


@pytest.fixture
def in_tens(monkeypatch):
    monkeypatch.setattr(Draws, "size", 10)


def test_rows_of_one_piece_are_those_of_the_estimator(work, done, tmp_path):
    # More than a batch of the model's, and fewer than a piece.
    done("sample", work / "g.densekit", "-n", 20_000, "--seed", 3, "-o", tmp_path / "g.parquet")
    same = densekit.load(work / "g.densekit").sample(20_000, random_state=3)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "g.parquet"), same, check_exact=True)


def test_a_piece_is_whole_batches_and_of_bounded_size(work):
    for name, entries in (("g", 2), ("i", 12), ("n", 9)):
        draws = Draws(densekit.load(work / f"{name}.densekit"), 10**12)
        batch = densekit.capabilities(draws.estimator).sample_batch
        assert draws.size % batch == 0
        assert batch <= draws.size <= max(batch, 2**20 / entries)


@pytest.mark.usefixtures("in_tens")
def test_a_further_piece_has_a_seed_of_its_own_that_the_first_fixes(work):
    estimator = densekit.load(work / "g.densekit")

    def pieces(seed, n=35):
        return [piece["a"].tolist() for piece in Draws(estimator, n, seed=seed).pieces()]

    found = pieces(7)
    assert [len(piece) for piece in found] == [10, 10, 10, 5]
    assert found[0] == estimator.sample(10, random_state=7)["a"].tolist()
    assert len({a for piece in found for a in piece}) == 35
    assert pieces(7) == found
    # The first rows do not depend on how many follow.
    assert pieces(7, 20) == found[:2]
    assert not {a for p in pieces(8) for a in p} & {a for p in found for a in p}


@pytest.mark.usefixtures("in_tens")
@pytest.mark.parametrize("name", ["o.csv", "o.jsonl.gz", "o.parquet"])
def test_pieces_make_one_file(work, done, tmp_path, name):
    done("sample", work / "g.densekit", "-n", 35, "--seed", 7, "-o", tmp_path / name)
    rows = formats.read(tmp_path / name)
    estimator = densekit.load(work / "g.densekit")
    expected = pd.concat(Draws(estimator, 35, seed=7).pieces(), ignore_index=True)
    assert rows["a"].tolist() == expected["a"].tolist()
    assert rows["b"].tolist() == expected["b"].tolist()


@pytest.mark.usefixtures("in_tens")
def test_images_and_texts_come_in_pieces_too(work, done, tmp_path):
    done("sample", work / "i.densekit", "-n", 23, "--seed", 0, "-o", tmp_path / "i")
    done("sample", work / "i.densekit", "-n", 23, "--seed", 0, "-o", tmp_path / "i.npy")
    assert (formats.read(tmp_path / "i") == np.load(tmp_path / "i.npy")).all()
    assert (
        len(done("sample", work / "n.densekit", "-n", 23, "--format", "text").splitlines()) == 23
    )


@pytest.mark.usefixtures("in_tens")
def test_each_draw_has_its_own_row_of_contexts(work, done, tmp_path):
    formats.write(FRAME[["b"]][:25], tmp_path / "c.csv")
    out = tmp_path / "o.csv"
    done("sample", work / "c.densekit", "--context", tmp_path / "c.csv", "-o", out)
    assert formats.read(out)["b"].tolist() == FRAME["b"][:25].tolist()
    done("sample", work / "c.densekit", "-n", 25, "--context", tmp_path / "c.csv", "-o", out)
    assert formats.read(out)["b"].tolist() == FRAME["b"][:25].tolist()
    done("sample", work / "c.densekit", "-n", 25, "--context", "b=y", "-o", out)
    assert set(formats.read(out)["b"]) == {"y"}


@pytest.mark.usefixtures("in_tens")
def test_another_number_of_contexts_is_refused(work, refused, tmp_path):
    formats.write(FRAME[["b"]][:7], tmp_path / "c.csv")
    error = refused("sample", work / "c.densekit", "-n", 25, "--context", tmp_path / "c.csv")
    assert "7 rows" in error
    assert "25" in error


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("in_tens")
def test_all_pieces_are_warned_of_once(work, call, monkeypatch):
    sample = densekit.Gaussian.sample

    def odd(self, n, **options):
        warnings.warn(f"{n} odd rows", UserWarning, stacklevel=1)
        return sample(self, n, **options)

    monkeypatch.setattr(densekit.Gaussian, "sample", odd)
    status, _, err = call("sample", work / "g.densekit", "-n", 35)
    assert (status, err.count("odd rows")) == (0, 1)


@pytest.mark.parametrize("name", ["big.csv", "big.csv.gz", "big.parquet", "big.jsonl", "big"])
def test_more_than_the_disk_holds_is_refused_before_it_is_drawn(work, refused, tmp_path, name):
    model = work / ("i.densekit" if name == "big" else "g.densekit")
    error = refused("sample", model, "-n", 999_999_999_999_999, "-o", tmp_path / name)
    assert f"{name}: 999,999,999,999,999 " in error
    assert "space for" in error if name == "big" else "would take about" in error
    assert "draw fewer" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("in_tens")
def test_an_interrupt_says_what_became_of_the_rows(work, call, monkeypatch, tmp_path):
    sample = densekit.Gaussian.sample
    drawn = []

    def stopping(self, n, **options):
        drawn.append(n)
        if len(drawn) % 4 == 0:  # the probe, and two pieces
            raise KeyboardInterrupt
        return sample(self, n, **options)

    monkeypatch.setattr(densekit.Gaussian, "sample", stopping)
    status, out, err = call("sample", work / "g.densekit", "-n", 35)
    assert (status, err) == (130, "densekit: stopped; 20 of 35 rows were written\n")
    assert len(out.splitlines()) == 21
    status, _, err = call("sample", work / "g.densekit", "-n", 35, "-o", tmp_path / "o.csv")
    assert (status, err) == (130, "densekit: stopped; nothing was written\n")
    assert not list(tmp_path.iterdir())


def test_a_stream_without_end_is_read_for_as_long_as_one_likes(work):
    command = [sys.executable, "-m", "densekit", "sample", str(work / "g.densekit"), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "-n", "999999999999"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as running:
        lines = [running.stdout.readline() for _ in range(1000)]
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1
    assert lines[0] == b'"a","b"\n'
    assert len(set(lines)) == 1000
