import io
import math
import re

from rich.console import Console

from densekit.bench import Record, Run, tables
from densekit.bench.table import amount, pm, result


def record(label, value=None, kind="exact", measure="counting", **more):
    made = Record.of("s", Run("digits", label, label), status="ok", family="flows")
    made.data = {"modality": "image", "n_train": 9, "n_test": 3, "n_dims": 4}
    if value is not None:
        made.score = {"value": value, "standard_error": 0.5, "kind": kind, "base_measure": measure}
        made.score["unit"] = "nats per row"
    for key, entry in more.items():
        setattr(made, key, entry)
    return made


def lines(records):
    console = Console(file=io.StringIO(), width=150)
    console.print(tables(records))
    text = console.file.getvalue().split("\n")
    return [re.split(r" {2,}", line.strip()) for line in text]


def place(rows, word):
    (found,) = [i for i, row in enumerate(rows) if row[0] == word]
    return found


def test_kinds_and_measures_are_never_mixed():
    rows = lines(
        [
            record("Low", -200.0, "lower_bound"),
            record("Worse", -120.0),
            record("None", metrics={"two_sample_auc": {"value": 0.75, "standard_error": 0.02}}),
            record("Better", -100.0),
            record("Lebesgue", 50.0, measure="lebesgue"),
            record("High", -20.0, "lower_bound"),
            record("Broken", status="failed", reason="ValueError: no"),
        ]
    )
    words = [
        "exact, counting", "Better", "Worse",
        "exact, lebesgue", "Lebesgue",
        "lower bound, counting", "High", "Low",
        "no density", "None",
        "failed", "Broken",
    ]  # fmt: skip
    places = [place(rows, word) for word in words]
    assert places == sorted(places)
    none = rows[place(rows, "None")]
    assert none[2:4] == ["none", "0.750 ± 0.020"]
    assert rows[place(rows, "Better")][2:4] == ["-100.00 ± 0.50", "-"]


def test_the_true_density_is_above_the_models():
    truth = {"value": -1.0, "standard_error": 0.02, "kind": "exact", "base_measure": "lebesgue"}
    rows = lines([record("Model", -2.0, measure="lebesgue", truth=truth)])
    assert place(rows, "the truth") == place(rows, "exact, lebesgue") + 1
    assert place(rows, "the truth") < place(rows, "Model")
    assert rows[place(rows, "the truth")][1] == "-1.000 ± 0.020"


def test_labels_are_not_markup():
    assert place(lines([record("[red]x", 1.0)]), "[red]x")


def test_numbers():
    assert pm(None) == "-"
    assert pm({"value": -math.inf, "standard_error": math.nan}) == "-inf"
    assert pm({"value": 3.0, "standard_error": 0.0}) == "3.0000 ± 0"
    assert pm({"value": 3.0, "standard_error": 1e-9}) == "3.0000 ± 0"
    assert amount(None) == "-"
    assert amount(99.6) == "100"
    assert amount(1.0) == "1"


def test_results_in_a_line():
    assert result(record("x", 1.0)) == "1.00 ± 0.50 nats per row (exact, counting)"
    assert "no density" in result(record("x"))
    assert result(record("x", status="failed", reason="why")) == "FAILED: why"


def test_scores_of_an_unstated_kind_have_a_part_of_their_own():
    rows = lines([record("Theirs", -90.0, "unstated", "unstated"), record("Ours", -100.0)])
    assert place(rows, "Ours") < place(rows, "kind not stated") < place(rows, "Theirs")


def test_labels_of_several_seeds_have_the_seed():
    both = [record("VAE", -90.0), record("VAE", -91.0), record("GAN")]
    both[1].run |= {"seed": 1, "key": "other"}
    rows = lines(both)
    assert place(rows, "VAE, seed 0") < place(rows, "VAE, seed 1") < place(rows, "GAN")
