import json
import math
import os

import numpy as np
import pytest

from densekit.bench import Record, Run, read, write

RUN = Run("two_moons", "Gaussian", "Gaussian, full")


def test_round_trip(tmp_path):
    record = Record.of("mine", RUN, status="ok", n_parameters=np.int64(3))
    record.score = {"value": -math.inf, "standard_error": math.nan, "kind": "exact"}
    record.hyper_parameters = {"a": (1, 2), "f": math.inf, "o": object, "b": np.True_}
    path = write(record, tmp_path / "new" / "folder")
    assert path.name == "two_moons--Gaussian-full--0.json"
    (back,) = read(path.parent)
    assert back.score == {"value": -math.inf, "standard_error": None, "kind": "exact"}
    assert back.hyper_parameters == {"a": [1, 2], "f": math.inf, "o": repr(object), "b": True}
    assert back.n_parameters == 3
    assert back.key == record.key


def test_strict_json(tmp_path):
    record = Record.of("mine", RUN, times={"fit": math.nan, "score": math.inf})
    text = write(record, tmp_path).read_text()

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    assert json.loads(text, parse_constant=refuse)["times"] == {"fit": None, "score": "inf"}


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    write(Record.of("mine", RUN, reason="first"), tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(Record.of("mine", RUN, reason="second"), tmp_path)
    monkeypatch.undo()
    assert [record.reason for record in read(tmp_path)] == ["first"]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_not_a_record_is_named(tmp_path):
    path = write(Record.of("mine", RUN), tmp_path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(ValueError, match="is not a benchmark record of format 1"):
        read(tmp_path)
    path.write_text(path.read_text()[:40])
    with pytest.raises(ValueError, match="not a benchmark record"):
        read(tmp_path)
