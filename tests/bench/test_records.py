import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from densekit.bench import Record, Run, Suite, append, read
from densekit.bench.records import FILE, PLAN, everything, write_plan, write_table, writing

RUN = Run("two_moons", "Gaussian", "Gaussian, full")
OTHER = dataclasses.replace(RUN, seed=1)


def test_round_trip(tmp_path):
    record = Record.of("mine", RUN, status="ok", n_parameters=np.int64(3))
    record.score = {"value": -math.inf, "standard_error": math.nan, "kind": "exact"}
    record.hyper_parameters = {"a": (1, 2), "f": math.inf, "o": object, "b": np.True_}
    append(record, tmp_path)
    (back,) = read(tmp_path)
    assert back.score == {"value": -math.inf, "standard_error": None, "kind": "exact"}
    assert back.hyper_parameters == {"a": [1, 2], "f": math.inf, "o": repr(object), "b": True}
    assert back.n_parameters == 3
    assert (back.key, back.id) == ("two_moons--Gaussian-full--0", record.id)


def test_strict_json(tmp_path):
    append(Record.of("mine", RUN, times={"fit": math.nan, "score": math.inf}), tmp_path)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    (line,) = (tmp_path / FILE).read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["times"] == {"fit": None, "score": "inf"}


def test_the_latest_record_of_a_run_counts(tmp_path):
    for run, reason in ((RUN, "first"), (OTHER, "other"), (RUN, "second")):
        append(Record.of("mine", run, reason=reason), tmp_path)
    assert [record.reason for record in read(tmp_path)] == ["second", "other"]


def test_what_the_suite_is_now_is_what_is_read(tmp_path):
    for run, reason in ((RUN, "old name"), (OTHER, "left out")):
        append(Record.of("mine", run, reason=reason), tmp_path)
    later = dataclasses.replace(OTHER, seed=7)
    renamed = dataclasses.replace(RUN, label="new", time_limit=1.0)
    write_plan(Suite("ours", "", (later, renamed)), tmp_path)
    (record,) = read(tmp_path)
    assert (record.suite, record.reason, record.run["label"]) == ("ours", "old name", "new")
    append(Record.of("ours", later, reason="done"), tmp_path)
    assert [record.reason for record in read(tmp_path)] == ["done", "old name"]
    # Nothing is lost: the run that was left out stands for a suite that has it.
    assert len(everything(tmp_path)) == 3
    (tmp_path / PLAN).write_text("[]")
    with pytest.raises(ValueError, match=r"suite\.json is not valid"):
        read(tmp_path)


def test_one_run_under_two_labels_is_refused(tmp_path):
    duplicate = dataclasses.replace(RUN, label="duplicate")
    with pytest.raises(ValueError, match="are the same run with two labels; remove one"):
        write_plan(Suite("s", "", (RUN, duplicate)), tmp_path)


def test_a_line_that_a_crash_cut_off_is_left_out_and_written_over(tmp_path):
    append(Record.of("mine", RUN, reason="whole"), tmp_path)
    with open(tmp_path / FILE, "ab") as file:
        file.write(b'{"id": "half')
    assert [record.reason for record in read(tmp_path)] == ["whole"]
    append(Record.of("mine", OTHER, reason="next"), tmp_path)
    assert [record.reason for record in read(tmp_path)] == ["whole", "next"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    append(Record.of("mine", RUN, reason="first"), tmp_path)
    before = (tmp_path / FILE).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        append(Record.of("mine", OTHER, reason="second"), tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_what_is_not_a_record_is_named(tmp_path):
    append(Record.of("mine", RUN), tmp_path)
    path = tmp_path / FILE
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 99}) + "\n")
    with pytest.raises(ValueError, match="line 1, is not a record of format 2"):
        read(tmp_path)
    path.write_text(json.dumps({**values, "color": 1}) + "\n")
    with pytest.raises(ValueError, match="line 1, is not a record of format 2"):
        read(tmp_path)
    path.write_text("{]\n")
    with pytest.raises(ValueError, match="line 1, is not JSON"):
        read(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"has no records\.jsonl"):
        read(tmp_path)
    (tmp_path / "two_moons--Gaussian--0.json").write_text("{}")
    with pytest.raises(ValueError, match="records of format 1"):
        read(tmp_path)


def test_the_table_has_a_row_a_run(tmp_path):
    done = Record.of("mine", RUN, status="ok", times={"fit": 1.5})
    done.score = {"value": -1.25, "standard_error": 0.5, "kind": "exact"}
    done.metrics = {"mmd": {"value": 0.1, "standard_error": 0.01, "unit": "squared"}}
    frame = pd.read_parquet(write_table([done, Record.of("mine", OTHER)], tmp_path))
    assert list(frame.id) == [done.id, Record.of("mine", OTHER).id]
    assert list(frame.status) == ["ok", "failed"]
    first = frame.iloc[0]
    assert (first.score_value, first.mmd, first.times_fit, first.data) == (
        -1.25, 0.1, 1.5, "two_moons"
    )  # fmt: skip
    assert math.isnan(frame.score_value[1])


def test_one_benchmark_at_a_time_writes_to_a_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path; from densekit.bench.records import writing\n"
        "with writing(Path(sys.argv[1])):\n    print(1, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(ValueError, match="another benchmark is writing to"), writing(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    # The lock of a process that was killed is nobody's.
    with writing(tmp_path):
        pass
