"""Data files in suites: parts, addresses and errors."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from densekit import formats
from densekit.bench import load_suite
from densekit.bench.address import address
from densekit.bench.records import Record
from densekit.bench.worker import execute

RNG = np.random.default_rng(0)
N = 200
SHOP = pd.DataFrame(
    {
        "amount": RNG.lognormal(size=N).round(3),
        "visits": RNG.integers(0, 9, N),
        "month": RNG.choice(["Jan", "Feb", "Mar"], N),
        "bought": np.arange(N) % 4 == 0,
        "number": np.arange(N),
    }
)
RUN = '[[runs]]\ndata = "shop.csv"\nmodel = "Gaussian"\n'


@pytest.fixture
def folder(tmp_path):
    formats.write(SHOP, tmp_path / "shop.csv")
    return tmp_path


def suite_of(folder, text=RUN, name="mine.toml"):
    (folder / name).write_text(text)
    return load_suite(str(folder / name))


def data_of(folder, text=RUN):
    return suite_of(folder, text).runs[0].load()


def numbers(data):
    """Which rows of the file are in each part."""
    parts = (data.train, data.valid, data.test.for_scoring())
    return [part["number"].tolist() for part in parts]


def test_paths_are_relative_to_the_suite_and_all_runs_share_a_split(folder, monkeypatch):
    monkeypatch.chdir("/")
    data = data_of(folder)
    assert (data.name, data.modality) == ("shop.csv", "table")
    train, valid, test = numbers(data)
    assert [len(train), len(valid), len(test)] == [144, 16, 40]
    assert sorted(train + valid + test) == list(range(N))
    assert numbers(data_of(folder)) == [train, valid, test]
    assert numbers(data_of(folder, RUN + "split = { seed = 1 }\n")) != [train, valid, test]
    # What a part lacks the others have: categories are those of the whole file.
    assert list(data.valid["month"].cat.categories) == ["Feb", "Jan", "Mar"]


def test_shares_and_order(folder):
    parts = numbers(data_of(folder, RUN + "split = { test = 0.25, valid = 0, shuffle = false }\n"))
    assert parts == [list(range(150)), [], list(range(150, 200))]


def test_a_target_is_as_frequent_in_all_parts(folder):
    text = RUN + 'target = "bought"\nsplit = { test = 0.2, valid = 0.2 }\n'
    data = data_of(folder, text)
    shares = [part["bought"].mean() for part in (data.train, data.valid, data.test.for_scoring())]
    assert shares == [0.25] * 3
    text = RUN + 'target = "amount"\nsplit = { test = 0.2, valid = 0 }\n'
    tenths = pd.qcut(SHOP["amount"], 10, labels=False)
    test = numbers(data_of(folder, text))[2]
    assert tenths[test].value_counts().tolist() == [4] * 10


def test_a_column_says_the_parts(folder):
    words = np.where(np.arange(N) < 20, "test", np.where(np.arange(N) < 50, "valid", "train"))
    formats.write(SHOP.assign(part=words), folder / "shop.csv")
    data = data_of(folder, RUN + 'split = "part"\n')
    assert numbers(data) == [list(range(50, N)), list(range(20, 50)), list(range(20))]
    assert "part" not in data.train


def test_another_file_is_the_test_part(folder):
    formats.write(SHOP[:7].assign(number=-1, month="Apr"), folder / "held.csv")
    data = data_of(folder, RUN + 'split = { test = "held.csv", valid = 0.1 }\n')
    train, valid, test = numbers(data)
    assert sorted(train + valid) == list(range(N))
    assert test == [-1] * 7
    assert list(data.train["month"].cat.categories) == ["Apr", "Feb", "Jan", "Mar"]


def test_options_of_the_codec_and_of_the_file(folder):
    formats.write(
        SHOP.assign(amount=SHOP["amount"].where(SHOP["number"] > 9)), folder / "shop.csv", sep=";"
    )
    text = RUN + 'sep = ";"\ndrop_missing = true\n'
    text += 'kinds = { visits = "ordinal" }\nsupport = { amount = ["interval", 0, 100] }\n'
    run = suite_of(folder, text).runs[0]
    data = run.load()
    assert data.domain == {
        "kinds": {"visits": "ordinal"}, "support": {"amount": ("interval", 0, 100)}
    }  # fmt: skip
    train, valid, test = numbers(data)
    assert sorted(train + valid + test) == list(range(10, N))


def test_keys_at_the_top_are_for_all_files_and_for_no_data_set(folder):
    text = 'kinds = { visits = "ordinal" }\nbaselines = false\n' + RUN
    text += '[[runs]]\ndata = ["two_moons", "shop.csv"]\nmodel = "KernelDensity"\n'
    first, moons, second = suite_of(folder, text).runs
    assert first.file == second.file
    assert (first.data, second.data, moons.file) == ("shop.csv", "shop.csv", None)
    assert first.file.options == {"kinds": {"visits": "ordinal"}}


def test_texts_arrays_and_images_are_data_too(folder):
    formats.write(["a b", "c"] * 20, folder / "lines.txt")
    formats.write(RNG.normal(size=(40, 2)), folder / "x.npy")
    formats.write(RNG.integers(0, 9, (40, 3, 4)).astype(np.uint8), folder / "pictures")
    text = '[[runs]]\ndata = ["lines.txt", "x.npy", "pictures/"]\nmodel = "MADE"\n'
    suite = suite_of(folder, text)
    assert {run.data: run.load().modality for run in suite.runs} == {
        "lines.txt": "text", "x.npy": "table", "pictures": "image"
    }  # fmt: skip
    baselines = {run.data: run.model for run in suite.runs if run.baseline}
    assert baselines == {"lines.txt": "NGram", "x.npy": "Gaussian", "pictures": "Gaussian"}
    assert len(suite.runs[0].load().train) == 29


def test_the_address_is_of_the_content_and_not_of_the_place(folder):
    before = address(suite_of(folder).runs[0])
    (folder / "elsewhere").mkdir()
    shutil.copy(folder / "shop.csv", folder / "elsewhere" / "shop.csv")
    assert address(suite_of(folder / "elsewhere").runs[0]) == before
    formats.write(SHOP.assign(visits=SHOP["visits"][::-1].to_numpy()), folder / "shop.csv")
    assert address(suite_of(folder).runs[0]) != before
    formats.write(SHOP, folder / "shop.csv")
    assert address(suite_of(folder).runs[0]) == before


@pytest.mark.parametrize(
    "key",
    [
        "split = { seed = 3 }", "split = { test = 0.3 }", 'target = "bought"', "drop_missing = true",
        'kinds = { visits = "ordinal" }', 'support = { amount = "positive" }',
    ],
)  # fmt: skip
def test_what_changes_rows_or_columns_changes_the_address(folder, key):
    assert address(suite_of(folder, RUN + key).runs[0]) != address(suite_of(folder).runs[0])


def test_a_held_out_file_is_in_the_address(folder):
    formats.write(SHOP[:9], folder / "held.csv")
    text = RUN + 'split = { test = "held.csv" }\n'
    before = address(suite_of(folder, text).runs[0])
    formats.write(SHOP[:8], folder / "held.csv")
    assert address(suite_of(folder, text).runs[0]) != before


def test_a_run_of_a_file_is_measured_and_says_what_it_read(folder):
    text = RUN + 'target = "bought"\nn_samples = 20\nmetrics = ["energy_distance"]\n'
    run = suite_of(folder, text).runs[0]
    record = Record.of("mine", run)
    execute(record, run, folder / "out", lambda *_: None)
    assert record.status == "ok", record.traceback
    sizes = [record.data[key] for key in ("n_train", "n_test")]
    assert (record.data["name"], sizes) == ("shop.csv", [144, 40])
    assert record.data["target"] == "bought"
    assert record.score["n_rows"] == 40
    assert (folder / record.samples.replace("samples", "out/samples")).exists()


def test_a_run_fails_if_its_file_changes_after_the_suite_was_loaded(folder):
    run = suite_of(folder).runs[0]
    formats.write(SHOP[:-1], folder / "shop.csv")
    record = Record.of("mine", run)
    execute(record, run, folder / "out", lambda *_: None)
    assert record.status == "failed"
    assert "shop.csv has changed since the suite was loaded" in record.reason


WRONG = {
    "no such file": (
        RUN.replace("shop", "shup"),
        ["shup.csv: no such file", "folder of the suite"],
    ),
    "no format": (RUN.replace("csv", "xlsx"), ["no such file"]),
    "no target": (RUN + 'target = "Bought"', ["target='Bought'", "did you mean 'bought'"]),
    "a target that is no name": (RUN + "target = 3", ["target=3 must be a string"]),
    "no column of parts": (RUN + 'split = "parts"', ["split.column='parts'", "amount"]),
    "a column of other words": (
        RUN + 'split = "month"',
        ["'month'", "'Feb'", "train, valid and test"],
    ),
    "no kind": (RUN + 'kinds = { visit = "ordinal" }', ["kinds", "'visit'", "'visits'"]),
    "an unknown kind": (RUN + 'kinds = { visits = "color" }', ["shop.csv", "color"]),
    "an unknown share": (RUN + "split = { tests = 0.2 }", ["unknown key 'tests'", "'test'"]),
    "a share beyond one": (RUN + "split = { test = 2 }", ["split.test=2", "share from 0 to 1"]),
    "shares of all": (RUN + "split = { test = 0.5, valid = 0.5 }", ["nothing to fit"]),
    "no seed": (RUN + "split = { seed = -1 }", ["split.seed=-1", "integer"]),
    "a part without rows": (RUN + "split = { test = 0 }", ["the part test has 0 rows", "split"]),
    "no split": (RUN + "split = 0.2", ["split=0.2 must be a table"]),
    "column and shares": (
        RUN + 'split = { column = "month", seed = 1 }',
        ["the other keys do not apply"],
    ),
    "no separator": (RUN + 'sep = ";"', ["shop.csv", "';' separates nothing", "','"]),
    "keys of a data set": (
        RUN.replace("shop.csv", "two_moons") + 'target = "x"',
        ["target is for data files", "two_moons is a data set"],
    ),
    "an option of images": (RUN + "image_shape = [2, 2]", ["image_shape"]),
    "two divisions": (
        RUN + RUN + 'label = "b"\nsplit = { seed = 1 }',
        ["runs of shop.csv differ in split", "not comparable"],
    ),
    "no data set": (
        RUN.replace("shop.csv", "two_moon"),
        ["'two_moon'; did you mean 'two_moons'?"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_known_before_anything_runs(folder, case):
    text, words = WRONG[case]
    with pytest.raises(ValueError, match="suite mine") as caught:
        suite_of(folder, text)
    for word in words:
        assert word in str(caught.value)


def test_two_files_of_one_name_are_refused(folder):
    (folder / "a").mkdir()
    shutil.copy(folder / "shop.csv", folder / "a")
    text = RUN + RUN.replace("shop.csv", "a/shop.csv") + 'label = "b"\n'
    with pytest.raises(ValueError, match=r"two files are called shop.csv: .*; rename one"):
        suite_of(folder, text)


def test_a_damaged_file_is_named_with_its_line(folder):
    (folder / "shop.csv").write_text("a,b\n1,2\n3\n4,5\n")
    with pytest.raises(ValueError, match=r"suite mine, run 1: .*shop.csv, line 3: 1 values for 2"):
        suite_of(folder)


def test_runs_of_data_sets_have_no_file(folder):
    run = suite_of(folder, RUN.replace("shop.csv", "two_moons")).runs[0]
    assert run.file is None
    assert run.load().name == "two_moons"
    assert dataclasses.asdict(run)["file"] is None
