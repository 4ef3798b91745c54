import base64
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from densekit import datasets, formats
from densekit.bench import Record, Run, append
from densekit.bench.report import report, write_report
from densekit.bench.report.pictures import learning_curve, spread
from densekit.bench.report.rows import HIGHER, LOWER, Column, Part, columns, parts
from densekit.bench.report.samples import Gallery

DATA = {
    "table": {"name": "t", "modality": "table", "n_train": 9, "n_test": 3, "n_dims": 2},
    "image": {"name": "i", "modality": "image", "n_train": 9, "n_test": 3, "n_dims": 4},
    "text": {"name": "x", "modality": "text", "n_train": 9, "n_test": 3, "n_dims": None},
}


def record(
    label, value=None, kind="exact", measure="lebesgue", *, seed=0, modality="table", **more
):
    """A run that went well; the label is a setting too, because it is no part of an address."""
    run = Run(DATA[modality]["name"], "Gaussian", label, {"label": label}, seed=seed)
    made = Record.of("s", run, status="ok", family="classical", data=DATA[modality])
    if value is not None:
        made.score = {"value": value, "standard_error": 0.5, "unit": "nats per row"}
        made.score |= {"kind": kind, "base_measure": measure, "n_rows": 3, "n_outside": 0}
    for key, entry in more.items():
        setattr(made, key, entry)
    return made


def folder_of(tmp_path, *records):
    for made in records:
        append(made, tmp_path)
    return tmp_path


class Elements(HTMLParser):
    """Tags with their attributes, and all text that a reader sees."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self._silent = [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._silent -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._silent:
            self.text.append(data)

    @property
    def seen(self):
        return " ".join(" ".join(self.text).split())


def read_page(folder):
    return write_report(folder).read_text(encoding="utf-8")


def table(*records):
    return parts(records, columns(records))


def test_each_kind_and_measure_is_ranked_for_itself():
    found = table(
        record("worse", -2.0),
        record("bound", 9.0, "lower_bound"),
        record("mass", 99.0, measure="counting"),
        record("better", -1.0),
        record("none"),
        record("guess", 50.0, "estimate"),
        record("anyone", 1000.0, "unstated", "unstated"),
        record("broken", status="failed", reason="ValueError: no"),
    )
    assert [(p.kind, p.measure, [(r.label, r.rank) for r in rows]) for p, rows in found] == [
        ("exact", "counting", [("mass", 1)]),
        ("exact", "lebesgue", [("better", 1), ("worse", 2)]),
        ("lower_bound", "lebesgue", [("bound", 1)]),
        ("estimate", "lebesgue", [("guess", 1)]),
        ("none", "", [("none", None)]),
        ("unstated", "unstated", [("anyone", None)]),
        ("failed", "", [("broken", None)]),
    ]


def test_best_marks_stay_in_their_part_and_follow_the_direction_of_the_metric():
    def with_metrics(label, score, kind, auc, recall):
        metrics = {"two_sample_auc": {"value": auc}, "recall": {"value": recall}}
        return record(label, score, kind, metrics=metrics)

    records = [
        with_metrics("a", -9.0, "exact", 0.47, 0.2),
        with_metrics("b", 2.0, "exact", 0.52, 0.1),
        with_metrics("c", 3.0, "lower_bound", 0.5, 0.9),
    ]
    best = {
        (row.label, column.head)
        for _, rows in table(*records)
        for row in rows
        for column, cell in zip(columns(records), row.cells, strict=True)
        if cell.best
    }
    assert best == {("b", "nats per row"), ("b", "two-sample AUC"), ("a", "recall")}


def test_what_is_as_good_as_the_best_is_marked_too_but_noise_is_not_rewarded():
    found = table(record("best", 9.0), record("near", 8.1), record("far", 7.9))
    assert [row.cells[0].best for row in found[0][1]] == [True, True, False]
    noisy = record("noisy", 0.0)
    noisy.score["standard_error"] = 100.0
    found = table(record("best", 9.0), noisy)
    assert [row.cells[0].best for row in found[0][1]] == [True, False]
    found = table(record("a", -math.inf), record("b", -math.inf))
    assert [row.cells[0].best for row in found[0][1]] == [False, False]


def test_unstated_scores_have_no_best():
    bits = {"bits_per_dim": {"value": 3.0}}
    found = table(
        record("a", 1.0, "unstated", "", metrics=bits),
        record("b", 2.0, "unstated", "", metrics={"bits_per_dim": {"value": 2.0}}),
    )
    assert not any(cell.best for _, rows in found for row in rows for cell in row.cells)


@pytest.mark.parametrize(
    ("wanted", "order"),
    [(HIGHER, [3.0, 1.0, -2.0]), (LOWER, [-2.0, 1.0, 3.0]), (0.0, [1.0, -2.0, 3.0])],
)
def test_order_by_what_is_wanted(wanted, order):
    column = Column("head", lambda record: None, wanted)
    assert sorted([1.0, -2.0, 3.0], key=column.badness) == order
    assert column.badness(math.nan) == math.inf


def test_seeds_are_one_row_whose_error_is_of_seeds_and_of_held_out_rows():
    seeds = [record("m", value, seed=i) for i, value in enumerate((1.0, 2.0, 6.0))]
    ((_, (row,)),) = table(*seeds)
    assert row.cells[0].value == 3.0
    # All seeds score the same rows, so the error over rows, 0.5 here, does not average out.
    assert row.cells[0].error == pytest.approx(math.hypot(math.sqrt((4 + 1 + 9) / 2 / 3), 0.5))
    assert row.cells[0].text == "3.0 ± 1.6"
    assert row.cells[0].title == "3 seeds, standard deviation 2.6 between them"
    same = [record("m", 1.0, seed=i) for i in range(3)]
    assert table(*same)[0][1][0].cells[0].text == "1.00 ± 0.50"
    # Other settings under the same label are another model.
    other = record("m", 4.0, seed=3)
    other.run["settings"] = {"label": "m", "more": 1}
    assert len(table(*seeds, other)[0][1]) == 2


def test_a_seed_that_scores_minus_infinity_is_not_averaged_away():
    ((_, (row, finite)),) = table(
        record("m", -math.inf, seed=0), record("m", 5.0, seed=1), record("n", -9.0)
    )[:1]
    assert (row.label, row.cells[0].value) == ("n", -9.0)
    assert (finite.label, finite.cells[0].text, finite.rank) == ("m", "-inf", 2)


def test_the_truth_leads_its_part_without_a_rank():
    truth = {"value": -1.0, "standard_error": 0.02, "kind": "exact", "base_measure": "lebesgue"}
    made = record("bound", -2.0, "lower_bound", truth={**truth, "entropy": 1.1})
    (exact, (true,)), (bound, (model,)) = table(made)
    assert (exact.kind, true.is_truth, true.rank) == ("exact", True, None)
    assert "-1.1" in true.cells[0].title
    assert (bound.kind, model.label, model.rank) == ("lower_bound", "bound", 1)


def test_any_status_that_is_not_ok_is_a_failure():
    assert Part.of(record("x", 1.0, status="killed")) == Part("failed")


def test_labels_are_moved_apart_no_more_than_needed():
    rng = np.random.default_rng(0)
    wanted = np.sort(rng.uniform(size=20))
    found = np.array(spread(wanted.tolist(), 0.06))
    assert np.diff(found).min() >= 0.06 - 1e-12
    assert found.mean() == pytest.approx(wanted.mean())
    assert spread([0.0, 1.0], 0.5) == [0.0, 1.0]


def test_a_history_without_losses_has_no_curve():
    assert learning_curve({"seconds": [1.0], "train_loss": [1.0]}, "flows", "n") is None
    nothing = {"seconds": [1.0, 2.0], "train_loss": [None, math.inf], "valid_loss": [None, None]}
    assert learning_curve(nothing, "flows", "n") is None
    curve = learning_curve({"seconds": [1.0, 2.0], "train_loss": [3.0, 2.0]}, "flows", "n")
    assert "var(--flows)" in curve


def test_the_page_holds_all_it_needs(tmp_path):
    history = {"seconds": [1.0, 2.0, 3.0], "train_loss": [3.0, 2.0, 1.0]}
    times = {"fit": 1.0, "total": 2.0}
    rows = np.random.default_rng(0).normal(size=(50, 2))
    made = [record(name, v, history=history, times=times) for name, v in (("a", 1.0), ("b", 2.0))]
    made[0].samples = "samples/a.npy"
    (tmp_path / "samples").mkdir()
    np.save(tmp_path / "samples" / "a.npy", rows)
    page = read_page(folder_of(tmp_path, *made))
    elements = Elements(page)
    for tag, attributes in elements.tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#")[:5] == "data:" or attributes.get(name, "#")[0] == "#"
        assert tag not in ("iframe", "object", "base")
    # Namespaces are names, not addresses; and a picture may refer to its own parts.
    assert set(re.findall(r"https?://[\w.]+", page)) <= {"http://www.w3.org"}
    assert not re.search(r"@import|url\((?!#)", page)
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = {a["href"][1:] for _, a in elements.tags if a.get("href", "")[:1] == "#"}
    assert anchors <= set(ids)
    # Two curves, one plot of time against score; no color that the page does not set.
    assert sum(tag == "svg" for tag, _ in elements.tags) == 3
    assert "#0101" not in page


def test_nothing_that_a_run_says_is_markup(tmp_path):
    evil = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>"
    (tmp_path / "samples").mkdir()
    formats.write([evil, "second"], tmp_path / "samples" / "a.jsonl")
    failed = record(evil, status="failed", reason=evil, traceback=evil, modality="text")
    drawn = record("drawn", 1.0, modality="text", samples="samples/a.jsonl", warnings=[evil])
    drawn.environment = {"cpu": evil, "versions": {evil: evil}}
    drawn.hyper_parameters = {evil: evil}
    elements = Elements(read_page(folder_of(tmp_path, failed, drawn)))
    assert sum(tag == "script" for tag, _ in elements.tags) == 1
    assert not any("onerror" in attributes for _, attributes in elements.tags)
    assert elements.seen.count("alert(1)") >= 6
    assert "second" in elements.seen


def test_the_page_does_not_depend_on_the_path_of_the_folder(tmp_path):
    history = {"seconds": [1.0, 2.0], "train_loss": [3.0, 2.0], "valid_loss": [3.0, 2.0]}
    made = record("a", 1.0, history=history, times={"fit": 3.0}, samples="samples/gone.npy")
    (tmp_path / "here").mkdir()
    here = folder_of(tmp_path / "here", made)
    there = shutil.copytree(here, tmp_path / "there")
    page = read_page(here)
    assert read_page(here) == page == read_page(there)
    assert str(tmp_path) not in page


def test_a_folder_without_records_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        write_report(tmp_path)
    (tmp_path / "records.jsonl").write_text("")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} has no benchmark records")):
        write_report(tmp_path)
    (tmp_path / "records.jsonl").write_text(json.dumps({"format": 99}) + "\n")
    with pytest.raises(ValueError, match=r"records\.jsonl"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    page = read_page(folder_of(tmp_path, record("a", 1.0)))

    def broken(*_):
        raise RuntimeError("template")

    monkeypatch.setattr(report, "_page", broken)
    with pytest.raises(RuntimeError):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["records.jsonl", "report.html"]


def test_different_machines_or_rows_are_pointed_out(tmp_path):
    def made(label, numpy, digest):
        environment = {"python": "3.11", "versions": {"numpy": numpy}}
        data = {**DATA["table"], "digest": digest}
        return record(label, 1.0, environment=environment, data=data)

    found = folder_of(tmp_path, made("a", "2.3", "one"), made("b", "2.4", "two"))
    seen = Elements(read_page(found)).seen
    assert "numpy 2.3 and 2.4 (runs differ)" in seen
    assert seen.count("(runs differ)") == 1
    assert "different rows of this data set (digests one, two)" in seen


def test_published_results_have_their_own_table(tmp_path):
    made = record("ours", 1.0)
    made.run["data"] = "power"
    page = read_page(folder_of(tmp_path, made))
    ours, _, published = page.partition("Published results on power")
    assert datasets.info("power").published
    for entry in datasets.info("power").published:
        assert entry.source not in Elements(ours).seen
        assert (
            f"{entry.model} {entry.value} {entry.unit} {entry.source}" in Elements(published).seen
        )
    assert "ours" in Elements(ours).seen


def test_failures_say_why(tmp_path):
    crashed = record(
        "crashed", status="failed", reason="ValueError: no", traceback="Traceback: line 3"
    )
    killed = record("killed", status="failed", reason="over its time limit", family="", data={})
    seen = Elements(read_page(folder_of(tmp_path, crashed, killed))).seen
    assert "2 of them failed" in seen
    assert "Traceback: line 3" in seen
    assert seen.count("over its time limit") >= 2
    assert "No traceback: the process was killed." in seen


@pytest.mark.parametrize(
    ("samples", "content", "says"),
    [
        ("", None, "no samples were kept"),
        ("samples/gone.npy", None, "samples/gone.npy is missing"),
        ("samples/cut.npy", b"\x93NUMPY", "samples/cut.npy cannot be read"),
        ("../secret.npy", None, "../secret.npy is outside the results folder"),
    ],
)
def test_samples_that_cannot_be_shown_say_so(tmp_path, samples, content, says):
    folder = tmp_path / "results"
    (folder / "samples").mkdir(parents=True)
    np.save(tmp_path / "secret.npy", np.zeros((3, 2)))
    if content:
        (folder / samples).write_bytes(content)
    look = Gallery(folder, "t", "table").samples(record("a", 1.0, samples=samples))
    assert look.picture is None
    assert look.note.startswith(says)
    assert str(tmp_path) not in look.note


def test_data_that_cannot_be_read_says_so(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "data" / "t.density.npz").write_bytes(b"PK\x03\x04")
    look = Gallery(tmp_path, "t", "table").data()
    assert look.note.startswith("data/t.npy cannot be read: ")
    assert str(tmp_path) not in look.note
    assert Gallery(tmp_path, "other", "table").data() is None


def picture(look):
    head, _, text = look.picture.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA"))


def gallery(folder, name, modality, drawn, data=None, suffix="npy"):
    """The picture of samples next to rows of the data."""
    for part, rows in (("samples", drawn), ("data", data)):
        (folder / part).mkdir(exist_ok=True)
        if rows is not None:
            formats.write(rows, folder / part / f"{name}.{suffix}")
    made = record("a", 1.0, samples=f"samples/{name}.{suffix}")
    return Gallery(folder, name, modality).samples(made)


def test_images_keep_their_pixels_on_the_scale_of_the_data(tmp_path):
    data = np.array([[[0, 16]], [[8, 4]]], np.uint8)
    drawn = np.array([[[16, 0]], [[8, 4]], [[0, 99]]], np.uint8)
    pixels = picture(gallery(tmp_path, "i", "image", drawn, data))
    # Three images of two pixels with one of nothing between, each pixel a square of many.
    size = pixels.shape[0]
    assert pixels.shape == (size, 8 * size, 4)
    line = pixels[size // 2, size // 2 :: size]
    assert line[:, 3].tolist() == [255, 255, 0, 255, 255, 0, 255, 255]
    assert line[line[:, 3] > 0, 0].tolist() == [255, 0, 128, 64, 0, 255]


def test_images_of_another_shape_than_the_data_are_not_drawn(tmp_path):
    look = gallery(tmp_path, "i", "image", np.zeros((3, 2, 2)), np.zeros((3, 4, 4)))
    assert look.picture is None
    assert look.note == (
        "these rows cannot be drawn: images have shape (2, 2), but those of the data have (4, 4)"
    )


def test_rows_outside_the_frame_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.uniform(size=(50, 3))
    drawn = data.copy()
    drawn[:4, 1], drawn[4, 0] = 9.0, math.nan
    assert (
        gallery(tmp_path, "t", "table", drawn, data).note == "5 of 50 rows are outside the frame"
    )
    assert gallery(tmp_path, "u", "table", data, data).note == ""


def test_a_toy_is_drawn_over_its_density(tmp_path):
    grid = np.linspace(-1, 1, 200)
    density = np.where(grid[:, None] > 0, 0.0, -math.inf) + np.zeros(200)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "t.density.npz", x=grid, y=grid, log_density=density)
    look = gallery(tmp_path, "t", "table", np.array([[0.9, 0.9], [5.0, 0.0]]))
    assert look.note == "1 of 2 rows are outside the frame"
    alpha = picture(look)[..., 3].astype(float)
    height, width = alpha.shape
    upper = alpha[height // 4, width // 4 : width // 2]
    lower = alpha[3 * height // 4, width // 4 : width // 2]
    assert upper.min() > 80 > 20 > lower.max()


def test_mixed_tables_show_numbers_and_levels(tmp_path):
    rng = np.random.default_rng(0)

    def frame(share):
        kind = pd.Categorical(rng.choice(["a", "b"], 300, p=[share, 1 - share]))
        return pd.DataFrame(
            {"kind": kind, "x": rng.normal(size=300), "flag": rng.integers(0, 2, 300)}
        )

    look = gallery(tmp_path, "t", "table", frame(0.5), frame(0.9), "parquet")
    assert look.pairs == "Columns x, kind, flag"
    other = frame(0.5).rename(columns={"x": "y"})
    look = gallery(tmp_path, "t", "table", other, frame(0.9), "parquet")
    assert "['kind', 'y', 'flag'], but the data have ['kind', 'x', 'flag']" in look.note


def test_texts_are_shortened(tmp_path):
    look = gallery(tmp_path, "x", "text", ["short", "y" * 1000], suffix="jsonl")
    assert look.texts[0] == "short"
    assert len(look.texts[1]) == 400
    assert look.texts[1].endswith("y…")
