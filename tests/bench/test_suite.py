import pytest

from densekit import datasets
from densekit.bench import check, load_suite, suites

RUN = '[[runs]]\ndata = "two_moons"\nmodel = "Gaussian"\n'


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", suites())
def test_suites_of_the_package_are_right(name):
    suite = load_suite(name)
    check(suite)
    assert suite.name == name
    assert suite.description


def test_quick_has_every_family_and_every_modality():
    from densekit.bench.suite import resolve
    from densekit.discovery import FAMILIES, family_of

    runs = load_suite("quick").runs
    assert {family_of(resolve(run.model)) for run in runs} == set(FAMILIES)
    assert {datasets.info(run.data).modality for run in runs} == {"table", "image", "text"}


def test_a_run_overrides_the_suite(tmp_path):
    text = (
        "budget = 3\nseeds = [5]\n"
        + RUN
        + "budget = 4.5\n[runs.settings]\nhidden = [1, 2]\n"
        + RUN
    )
    text += 'label = "two"\n'
    first, second = load_suite(write(tmp_path, text)).runs
    assert (first.budget, second.budget) == (4.5, 3)
    assert first.seed == second.seed == 5
    assert first.settings == {"hidden": (1, 2)}
    assert first.key == "two_moons--Gaussian--5"
    assert second.label == "two"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one"),
        ("runs = 3", "at least one"),
        ("[[runs", "not TOML"),
        ("budgets = 3\n" + RUN, "unknown key 'budgets'; did you mean 'budget'"),
        (RUN + "sed = 3\n", "run 1: unknown key 'sed'; did you mean 'seeds'"),
        (RUN + "n_test = 9\n" + RUN + 'label = "b"\n', "have n_test=9 and n_test=2000"),
        (RUN + RUN, "two runs are called two_moons--Gaussian--0"),
        (RUN + "seeds = [-1]\n", "seeds has -1: must be integers, at least 0"),
        (RUN + "seeds = []\n", "seeds=[] must be a list"),
        (RUN + "seeds = 3\n", "seeds=3 must be a list"),
        (RUN + "n_test = 1.5\n", "n_test=1.5 must be an integer, at least 2"),
        (RUN + 'metrics = ["mdm"]\n', "no metric is called 'mdm'; did you mean 'mmd'"),
        ('baselines = "no"\n' + RUN, "baselines='no' must be true or false"),
        (RUN + "memory_limit = -1\n", "memory_limit=-1 must be a number of megabytes"),
        (RUN + "budget = 0\n", "budget=0 must be a number of seconds"),
        (RUN + "budget = inf\n", "budget=inf"),
        (RUN + "n_samples = true\n", "n_samples=True"),
        (RUN + "settings = 3\n", "settings must be a table"),
        (RUN + 'label = "--"\n', "label must be a name"),
        ("[[runs]]\nmodel = 'Gaussian'\n", "data must be a string, got None"),
        ("[[runs]]\ndata = 'two_moon'\nmodel = 'Gaussian'\n", "did you mean 'two_moons'"),
    ],
)
def test_wrong_suites_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match="suite ") as caught:
        load_suite(write(tmp_path, text))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            RUN.replace("Gaussian", "Gausian"),
            "no model is called 'Gausian'; did you mean 'Gaussian",
        ),
        (RUN + "settings = { shrinkag = 1 }\n", "no setting 'shrinkag'; did you mean 'shrinkage'"),
        (
            RUN.replace("Gaussian", "sklearn.cluster:KMeans"),
            "KMeans has no sample; a model must have",
        ),
        (RUN.replace("Gaussian", "nowhere:Model"), "'nowhere:Model' cannot be imported"),
        (RUN.replace("Gaussian", "densekit:Model"), "'densekit:Model' cannot be imported"),
    ],
)
def test_wrong_models_are_found_before_anything_runs(tmp_path, text, message):
    suite = load_suite(write(tmp_path, text))
    with pytest.raises(ValueError, match="run two_moons--") as caught:
        check(suite)
    assert message in str(caught.value)


def test_unknown_suites_and_files(tmp_path):
    with pytest.raises(ValueError, match="'quik'; did you mean 'quick'"):
        load_suite("quik")
    with pytest.raises(ValueError, match="cannot read the suite "):
        load_suite(str(tmp_path / "none.toml"))
    (tmp_path / "latin.toml").write_bytes(b'description = "\xe9"')
    with pytest.raises(ValueError, match="not UTF-8"):
        load_suite(str(tmp_path / "latin.toml"))


def test_data_and_seeds_multiply(tmp_path):
    text = 'baselines = false\n[[runs]]\ndata = ["two_moons", "digits"]\nmodel = "VAE"\nseeds = [0, 4]\n'
    runs = load_suite(write(tmp_path, text)).runs
    assert [(run.data, run.seed) for run in runs] == [
        ("two_moons", 0), ("two_moons", 4), ("digits", 0), ("digits", 4),
    ]  # fmt: skip


def test_every_table_has_a_baseline(tmp_path):
    text = '[[runs]]\ndata = ["two_moons", "digits", "pydoc"]\nmodel = "VAE"\n'
    added = [run for run in load_suite(write(tmp_path, text)).runs if run.baseline]
    assert [(run.data, run.model, run.label) for run in added] == [
        ("two_moons", "Gaussian", "Gaussian (baseline)"),
        ("digits", "Gaussian", "Gaussian (baseline)"),
        ("pydoc", "NGram", "NGram (baseline)"),
    ]
    # It scores the rows that the others score.
    text = '[[runs]]\ndata = "two_moons"\nmodel = "VAE"\nn_test = 30\nseeds = [2, 3]\n'
    *_, baseline = load_suite(write(tmp_path, text)).runs
    assert (baseline.n_test, baseline.seed, baseline.baseline) == (30, 2, True)
    # One that is asked for is not run twice.
    assert not any(run.baseline for run in load_suite(write(tmp_path, RUN)).runs)
