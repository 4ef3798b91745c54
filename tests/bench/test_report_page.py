import shutil

import numpy as np
import pytest

from densekit.bench import Record, Run, append
from densekit.bench.report import write_report

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: pip install densekit[test]"
)
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: apt-get install chromium"
)

# Label, family, kind, measure, score, AUC, seconds.
RUNS = [
    ("Low", "flows", "exact", "lebesgue", -3.0, 0.9, 1.0),
    ("High", "classical", "exact", "lebesgue", 100.0, 0.7, 30.0),
    ("Middle", "vaes", "exact", "lebesgue", 20.0, 0.8, 4.0),
    ("Far", "flows", "exact", "lebesgue", -float("inf"), 0.95, 5.0),
    ("Mass", "flows", "exact", "counting", 50.0, 0.6, 6.0),
    ("Lesser", "vaes", "exact", "counting", -50.0, 0.65, 2.0),
    ("Bound", "vaes", "lower_bound", "lebesgue", 60.0, 0.5, 8.0),
    ("Nothing", "gans", None, None, None, 0.55, 9.0),
]
HEADINGS = ["Time against score", "Learning curves", "Samples"]
TRUTH = {
    "value": 7.0,
    "standard_error": 0.1,
    "kind": "exact",
    "base_measure": "lebesgue",
    "entropy": -7.0,
}


def made(data, label, family, kind, measure, score, auc, seconds):
    run = Run(data, "Gaussian", label, {"label": label})
    record = Record.of("s", run, status="ok", family=family, times={"fit": seconds})
    record.data = {
        "modality": "table",
        "n_train": 9,
        "n_test": 3,
        "n_dims": 3,
        "source": "x" * 300,
    }
    record.metrics = {"two_sample_auc": {"value": auc, "standard_error": 0.01}}
    record.history = {"seconds": [1.0, 2.0], "train_loss": [3.0, 2.0], "valid_loss": [3.0, 2.5]}
    record.samples = f"samples/{label}.npy"
    record.hyper_parameters = {"a_long_setting": list(range(200))}
    if kind:
        record.score = {"value": score, "standard_error": 0.5, "unit": "nats per row"}
        record.score |= {"kind": kind, "base_measure": measure, "n_rows": 3, "n_outside": 0}
    return record


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    (folder / "samples").mkdir()
    for run in RUNS:
        record = made("numbers", *run)
        record.truth = TRUTH
        np.save(folder / record.samples, np.random.default_rng(0).normal(size=(50, 3)))
        append(record, folder)
    append(made("others", "Other", "flows", "exact", "lebesgue", 1.0, 0.5, 1.0), folder)
    broken = made("others", "Broken", "vaes", None, None, None, 0.5, 1.0)
    broken.status, broken.reason = "failed", "ValueError: " + "y" * 300
    broken.traceback = "Traceback\n" + "z" * 300
    append(broken, folder)
    return write_report(folder)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=0
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, report):
    """Open the page without network access; any request or error message fails the test."""
    contexts, complaints = [], []

    def heard(request):
        if not request.url.startswith(("file:", "data:")):
            complaints.append(request.url)

    def open_page(anchor="", **settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        context.set_offline(True)
        context.set_default_timeout(0)  # a shared machine may take as long as it likes
        page = context.new_page()
        page.on("request", heard)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(report.as_uri() + anchor)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def table(page, data="numbers", shown=False):
    """The rows' names by part, in the order of the page."""
    return page.evaluate(
        """([id, shown]) => Object.fromEntries(
            [...document.querySelectorAll(`#data-${id} .results tbody`)]
            .filter((part) => !shown || part.getClientRects().length)
            .map((part) => [part.dataset.part, [...part.rows].slice(1)
                .filter((row) => !shown || row.getClientRects().length)
                .map((row) => row.cells[0].innerText.trim())]))""",
        [data, shown],
    )


def header(page, text):
    return page.locator("#data-numbers .results thead th").filter(has_text=text)


def test_it_opens_without_a_network_or_a_complaint(visit):
    page = visit()
    assert page.title() == "densekit: s"
    assert page.locator("svg").count() == 14
    assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 100)")
    assert page.locator("img").count() == len(RUNS)


def test_sorting_stays_within_parts(visit):
    page = visit()
    start = {
        "exact counting": ["Mass", "Lesser"],
        "exact lebesgue": ["the truth", "High", "Middle", "Low", "Far"],
        "lower_bound lebesgue": ["Bound"],
        "none ": ["Nothing"],
    }
    assert table(page) == start
    score, seconds = header(page, "nats per row"), header(page, "fit, s")
    assert score.get_attribute("aria-sort") == "descending"
    seconds.get_by_role("button").click()
    assert seconds.get_attribute("aria-sort") == "ascending"
    assert score.get_attribute("aria-sort") == "none"
    assert table(page) == {
        **start,
        "exact counting": ["Lesser", "Mass"],
        "exact lebesgue": ["the truth", "Low", "Middle", "Far", "High"],
    }
    seconds.get_by_role("button").press("Enter")
    assert seconds.get_attribute("aria-sort") == "descending"
    assert table(page)["exact lebesgue"] == ["the truth", "High", "Far", "Middle", "Low"]
    header(page, "model").get_by_role("button").click()
    assert table(page)["exact lebesgue"] == ["the truth", "Far", "High", "Low", "Middle"]
    # Numbers and not words: 100 > 20 > -3 > -inf, the higher the better first.
    score.get_by_role("button").click()
    assert table(page) == start
    # The part's heading is its first row, whatever was sorted.
    first = page.locator("#data-numbers .results tbody tr:first-child").evaluate_all(
        "rows => rows.every((row) => row.className === 'part')"
    )
    assert first
    # Another data set's table is not touched.
    assert list(table(page, "others").values()) == [["Other"], ["Broken"]]


def test_filtering_hides_what_does_not_match(visit):
    page = visit()
    shown = page.locator("#shown")
    assert shown.inner_text() == "10 of 10 rows"
    page.locator("#find").fill("vaes -inf")
    assert table(page, shown=True) == {}
    page.locator("#find").fill("VAES lebesgue")
    assert table(page, shown=True) == {
        "exact lebesgue": ["Middle"],
        "lower_bound lebesgue": ["Bound"],
    }
    assert page.locator("#data-others").is_hidden()
    assert shown.inner_text() == "2 of 10 rows"
    page.locator("#find").fill("")
    page.locator("#kind").select_option("exact")
    page.locator("#family").select_option("flows")
    assert table(page, shown=True) == {
        "exact counting": ["Mass"],
        "exact lebesgue": ["Low", "Far"],
    }
    figures = page.locator("#data-numbers figure[data-find] figcaption")
    visible = [f.inner_text() for f in figures.all() if f.is_visible()]
    assert sorted(visible) == sorted(2 * ["Low", "Far", "Mass"])
    assert page.locator("#data-numbers h3").all_inner_texts() == HEADINGS
    page.locator("#kind").select_option("none")
    assert page.locator("#data-numbers h3:visible").count() == 0
    page.locator("#kind").select_option("")
    page.locator("#family").select_option("")
    assert shown.inner_text() == "10 of 10 rows"
    page.locator("#kind").select_option("failed")
    assert table(page, "others", shown=True) == {"failed ": ["Broken"]}


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(visit, width):
    page = visit("#run-1", viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # No text of a picture, its labels moved apart, leaves it.
    outside = page.evaluate(
        """[...document.querySelectorAll('svg')].flatMap((svg) => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter((text) => {
                const own = text.getBoundingClientRect();
                return own.left < box.left - 1 || own.right > box.right + 1
                    || own.top < box.top - 1 || own.bottom > box.bottom + 1;
            }).map((text) => text.textContent);
        })"""
    )
    assert outside == []


def test_a_narrow_table_scrolls_in_its_box_and_keeps_its_names(visit):
    page = visit(viewport={"width": 390, "height": 800})
    box = page.locator("#data-numbers .scroll").first
    assert box.evaluate("(b) => b.scrollWidth > b.clientWidth")
    name = page.locator("#data-numbers .results tbody tr:not(.part) th").first
    before = name.bounding_box()["x"]
    box.evaluate("(b) => { b.scrollLeft = 150; }")
    assert name.bounding_box()["x"] == before


def test_a_link_to_a_run_opens_it(visit):
    page = visit()
    run = page.locator("details#run-2")
    assert run.get_attribute("open") is None
    page.locator("#data-numbers").get_by_role("link", name="High").first.click()
    page.wait_for_selector("details#run-2[open]")
    visit("#run-3").wait_for_selector("details#run-3[open]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_curves_stand_out_from_their_ground(visit, scheme):
    page = visit(color_scheme=scheme)
    colors = page.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const names = ['card', 'ink', 'link', 'classical', 'flows', 'vaes',
                'autoregressive', 'gans', 'score', 'other'];
            return names.map((name) => style.getPropertyValue('--' + name).trim());
        }"""
    )

    def luminance(color):
        channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    ground, *rest = map(luminance, colors)
    contrasts = [(max(c, ground) + 0.05) / (min(c, ground) + 0.05) for c in rest]
    # WCAG 2.1, 1.4.3: 4.5 for text; names in the plots have their family's color.
    assert min(contrasts) >= 4.5
