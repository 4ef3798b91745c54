"""fit, sample, score and evaluate, from data files to data files."""

import io
import json
import sys

import numpy as np
import pandas as pd
import pytest

import densekit
from densekit import formats
from densekit.cli import main

RNG = np.random.default_rng(0)
N = 240
SEX = RNG.choice(["f", "m"], N)
PEOPLE = pd.DataFrame(
    {
        "age": RNG.integers(18, 80, N),
        "income": np.round(RNG.lognormal(0, 0.3, N) * np.where(SEX == "f", 1.0, 50.0), 4),
        "sex": SEX,
        "member": RNG.random(N) < 0.3,
        "since": pd.to_datetime("2020-01-01") + pd.to_timedelta(RNG.integers(0, 900, N), "D"),
    }
)
LINES = ["the cat sat", "a dog sat", "the end"] * 30
IMAGES = RNG.integers(0, 4, (60, 3, 4)).astype(np.uint8) * 80


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a data file of each modality and a model fitted to each."""
    folder = tmp_path_factory.mktemp("work")
    formats.write(PEOPLE, folder / "people.csv")
    formats.write(LINES, folder / "lines.txt")
    formats.write(IMAGES, folder / "pictures")
    for data, out, *more in [
        ("people.csv", "people", "--model=RealNVP", "--context=sex,since", "--set=max_steps=150"),
        ("lines.txt", "lines", "--model=NGram", "--set=order=4"),
        ("pictures", "pictures", "--model=Gaussian"),
        ("pictures", "gan", "--model=GAN", "--set=max_steps=2"),
    ]:
        words = ["fit", f"{folder}/{data}", *more, "--seed=0", f"--out={folder}/{out}.densekit"]
        with pytest.raises(SystemExit) as caught:
            main([*words, "--quiet"])
        assert caught.value.code == 0
    return folder


def test_fit_saves_what_the_estimator_would_learn(work, tmp_path, call):
    out = tmp_path / "g.densekit"
    words = ("fit", f"{work}/people.csv", "-m", "GaussianMixture", "-o", out)
    status, printed, errors = call(
        *words, "--set", "n_components=2", "--set", 'support={income="positive"}', "--seed", "3"
    )
    assert (status, printed) == (0, "")
    assert "fitted GaussianMixture to 240 rows" in errors
    assert "lower bounds of log-densities over product measure, in nats" in errors
    people = formats.read(work / "people.csv")
    kind = densekit.GaussianMixture
    same = kind(n_components=2, support={"income": "positive"}, random_state=3).fit(people)
    loaded = densekit.load(out)
    assert loaded.n_components == 2
    assert (loaded.score_samples(people) == same.score_samples(people)).all()


@pytest.mark.parametrize("name", ["o.csv", "o.parquet", "o.jsonl", "o.tsv.gz"])
def test_rows_come_back_like_those_of_the_file(work, tmp_path, done, name):
    given = ("--context", "sex=m", "--context", "since=2021-05-01")
    done("sample", work / "people.densekit", "-n", 7, *given, "-o", tmp_path / name)
    rows = formats.read(tmp_path / name)
    assert list(rows.columns) == list(PEOPLE.columns)
    assert [d.kind for d in rows.dtypes] == [d.kind for d in PEOPLE.dtypes]
    assert set(rows["sex"]) == {"m"}
    assert set(rows["since"]) == {pd.Timestamp("2021-05-01")}
    # They are scored as they are, whichever format they went through.
    done("score", work / "people.densekit", tmp_path / name, "-o", tmp_path / "s.parquet")
    scores = pd.read_parquet(tmp_path / "s.parquet")
    assert np.isfinite(scores["score"]).all()
    assert (scores["standard_error"] > 0).all()


def test_a_context_changes_what_is_drawn(work, done):
    means = {}
    for sex in "fm":
        given = ("--context", f"sex={sex}", "--context", "since=2021-01-01")
        out = done("sample", work / "people.densekit", "-n", 200, *given, "--seed", 0)
        means[sex] = pd.read_csv(io.StringIO(out))["income"].mean()
    assert means["m"] > 10 * abs(means["f"])


def test_a_file_of_contexts_has_a_row_for_each_draw(work, tmp_path, done):
    formats.write(PEOPLE[["since", "sex"]][:5], tmp_path / "c.csv")
    out = done("sample", work / "people.densekit", "--context", tmp_path / "c.csv")
    assert pd.read_csv(io.StringIO(out))["sex"].tolist() == SEX[:5].tolist()


def test_a_seed_fixes_the_draws(work, done):
    words = ("sample", work / "pictures.densekit", "-n", 4, "--format", "npy", "--out")
    drawn = []
    for seed in (1, 1, 2):
        done(*words, work / f"{seed}.npy", "--seed", seed)
        drawn.append(np.load(work / f"{seed}.npy"))
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()


def test_images_go_to_a_folder(work, tmp_path, done):
    done("sample", work / "pictures.densekit", "-n", 11, "-o", tmp_path / "drawn")
    assert formats.read(tmp_path / "drawn").shape == (11, 3, 4)
    assert (tmp_path / "drawn" / "00.png").exists()


def test_a_prompt_is_continued(work, done):
    words = ("sample", work / "lines.densekit", "-n", 50, "--seed", 0, "--format", "text")
    drawn = done(*words, "--prompt", "the e").splitlines()
    assert drawn.count("nd") > 30
    assert done(*words).splitlines().count("nd") == 0


def test_scores_are_those_of_the_estimator(work, done):
    out = done("score", work / "lines.densekit", work / "lines.txt")
    table = pd.read_csv(io.StringIO(out))
    assert list(table.columns) == ["score", "standard_error"]
    expected = densekit.load(work / "lines.densekit").score_samples(LINES)
    assert table["score"].to_numpy() == pytest.approx(expected, rel=1e-6)
    assert (table["standard_error"] == 0).all()


def test_rows_are_read_from_a_pipe(work, done, monkeypatch):
    data = (work / "lines.txt").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    out = done("score", work / "lines.densekit", "-", "--format", "text")
    assert len(out.splitlines()) == 91


def test_evaluate_says_what_the_score_is(work, done):
    found = json.loads(done("evaluate", work / "pictures.densekit", work / "pictures", "--json"))
    assert (found["model"], found["rows"]) == ("Gaussian", 60)
    assert (found["density_kind"], found["base_measure"]) == ("lower_bound", "counting")
    measures = found["measures"]
    bits = -measures["mean_score"]["value"] / 12 / np.log(2)
    assert measures["bits_per_dim"]["value"] == pytest.approx(bits)
    assert 0 <= measures["two_sample_auc"]["value"] <= 1
    shown = done("evaluate", work / "pictures.densekit", work / "pictures", "--samples", 0)
    assert f"{measures['mean_score']['value']:.6g}" in shown
    assert "lower bounds of log-densities over counting measure" in shown
    assert "auc" not in shown


def test_evaluate_of_text_and_of_a_model_without_density(work, done):
    found = json.loads(done("evaluate", work / "lines.densekit", work / "lines.txt", "--json"))
    nats = densekit.load(work / "lines.densekit").score_samples(LINES).sum()
    characters = sum(len(line) + 1 for line in LINES)
    bits = found["measures"]["bits_per_character"]["value"]
    assert bits == pytest.approx(-nats / characters / np.log(2))
    words = ("evaluate", work / "gan.densekit", work / "pictures", "--metrics", "mmd", "--json")
    found = json.loads(done(*words))
    assert (found["density_kind"], list(found["measures"])) == ("none", ["mmd"])


def test_evaluate_counts_rows_outside_the_support(work, tmp_path, done):
    (tmp_path / "odd.txt").write_text("the cat sat\n" * 3)
    formats.write(PEOPLE[["age", "member"]], tmp_path / "few.csv")
    done("fit", tmp_path / "few.csv", "-m", "Gaussian", "-o", tmp_path / "g.densekit")
    formats.write(PEOPLE[["age", "member"]].assign(age=-1.5), tmp_path / "halves.parquet")
    words = ("evaluate", tmp_path / "g.densekit", tmp_path / "halves.parquet", "--json")
    found = json.loads(done(*words, "--samples", 0))
    assert found["rows_outside"] == 240
    assert found["measures"]["mean_score"]["value"] == "-inf"


def test_a_conditional_model_is_compared_given_the_contexts_of_other_rows(work, done):
    words = ("evaluate", work / "people.densekit", work / "people.csv", "--json")
    found = json.loads(done(*words, "--metrics", "two_sample_auc"))
    # Draws that share their context with the rows they are compared with would come out well below.
    auc = found["measures"]["two_sample_auc"]
    assert auc["value"] > 0.5 - 3 * auc["standard_error"]


def test_a_data_set_gives_its_train_part_to_fit_and_its_test_part_to_scoring(tmp_path, done):
    data = densekit.datasets.load("digits")
    done("fit", "digits", "-m", "Gaussian", "-o", tmp_path / "d.densekit", "--seed", 0)
    fitted = densekit.load(tmp_path / "d.densekit")
    assert fitted.support == data.domain["support"]
    out = done("score", tmp_path / "d.densekit", "digits")
    scores = pd.read_csv(io.StringIO(out))["score"]
    same = (
        densekit.Gaussian(**data.domain, random_state=0).fit(data.train).score_samples(data.test)
    )
    assert scores.to_numpy() == pytest.approx(same, rel=1e-5)


def test_a_file_wins_over_a_data_set(tmp_path, done, monkeypatch):
    monkeypatch.chdir(tmp_path)
    formats.write(IMAGES, "digits")
    done("fit", "digits", "-m", "Gaussian", "-o", "d.densekit")
    done("sample", "d.densekit", "-o", "x.npy")
    assert np.load("x.npy").shape == (1, 3, 4)


def test_published_results_are_printed_too(tmp_path, done, monkeypatch):
    texts = ["the cat sat on it", "a dog sat"] * 20
    figures = (
        densekit.datasets.Published("LSTM", 65.25, "perplexity per word", "Zaremba et al. 2014"),
        densekit.datasets.Published("n-gram", 1.75, "nats per character", "Shannon 1951"),
    )
    held = densekit.datasets.HeldOut(texts, "toy")
    toy = densekit.datasets.Dataset(texts, texts, held, "toy", "text", reference=figures)
    monkeypatch.setattr(densekit.datasets, "names", lambda *_: ("toy",))
    monkeypatch.setattr(densekit.datasets, "load", lambda _: toy)
    file = tmp_path / "n.densekit"
    done("fit", "toy", "-m", "NGram", "-o", file)
    found = json.loads(done("evaluate", file, "toy", "--json"))
    assert [f["model"] for f in found["published"]] == ["LSTM", "n-gram"]
    assert found["published"][0]["value"] == 65.25
    nats = -densekit.load(file).score_samples(texts).sum()
    words = np.exp(nats / (20 * (6 + 4)))
    assert found["measures"]["perplexity"]["value"] == pytest.approx(words)
    per_character = nats / (20 * (18 + 10))
    assert found["measures"]["nats_per_character"]["value"] == pytest.approx(per_character)
    shown = done("evaluate", file, "toy")
    assert "65.25" in shown
    assert "Zaremba et al. 2014" in shown
    formats.write(texts, tmp_path / "mine.txt")
    found = json.loads(done("evaluate", file, tmp_path / "mine.txt", "--json"))
    assert found["published"] == []
    assert "perplexity" not in found["measures"]


def test_json_of_sample_and_score(work, tmp_path, done):
    model, out = work / "people.densekit", tmp_path / "o.csv"
    given = ("--context", "sex=f", "--context", "since=2021-05-01", "--seed", 0)
    found = json.loads(done("sample", model, "-n", 3, *given, "-o", out, "--json"))
    assert found == {"rows": 3, "file": str(out)}
    printed = done("sample", model, "-n", 3, *given, "--json")
    records = [json.loads(line) for line in printed.splitlines()]
    assert [r["income"] for r in records] == formats.read(out)["income"].tolist()
    # A format that was asked for wins.
    assert done("sample", model, "-n", 3, *given, "--json", "--format", "csv") == out.read_text()
    found = json.loads(done("score", model, out, "-o", tmp_path / "s.csv", "--json"))
    assert (found["rows"], found["file"]) == (3, str(tmp_path / "s.csv"))
    records = [json.loads(line) for line in done("score", model, out, "--json").splitlines()]
    assert [set(r) for r in records] == [{"score", "standard_error"}] * 3


def test_fit_shows_what_it_found_in_the_columns(tmp_path, call):
    frame = pd.DataFrame(
        {"amount": RNG.lognormal(0, 1, 300).round(2), "kind": RNG.choice(["a", "b"], 300)}
    )
    frame.loc[:99, "amount"] = 0.0
    formats.write(frame, tmp_path / "shop.csv", sep=";")
    words = ("fit", tmp_path / "shop.csv", "-m", "Gaussian", "-o", tmp_path / "g.densekit")
    status, out, err = call(*words)
    assert (status, out) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in err.splitlines()]
    amount, kind = (next(row for row in rows if row[:1] == [name]) for name in ("amount", "kind"))
    assert amount[1:5] == ["real", "at least 0.0", "0.01", "0.0"]
    assert kind[1] == "categorical"
    assert "a, b" in kind
    # Of images there is nothing to show.
    formats.write(IMAGES, tmp_path / "pictures")
    assert (
        "│"
        not in call("fit", tmp_path / "pictures", "-m", "Gaussian", "-o", tmp_path / "i.densekit")[
            2
        ]
    )
    found = json.loads(call(*words, "--json", "--quiet")[1])["columns"]
    assert [column["column"] for column in found] == ["amount", "kind"]
    assert (found[0]["atoms"], found[0]["step"], found[1]["step"]) == ([0.0], 0.01, None)
    assert found[1]["levels"] == ["a", "b"]


@pytest.mark.filterwarnings("default")
def test_a_warning_of_rows_names_their_file(tmp_path, call):
    formats.write(pd.DataFrame({"a": range(300), "b": RNG.normal(size=300)}), tmp_path / "x.csv")
    words = ("fit", tmp_path / "x.csv", "-m", "Gaussian", "-o", tmp_path / "g.densekit")
    assert f"densekit: warning: {tmp_path}/x.csv: of the columns of X: 'a' has " in call(*words)[2]


def test_json_of_a_fit(work, tmp_path, done):
    words = ("fit", work / "lines.txt", "-m", "NGram", "-o", tmp_path / "n.densekit", "--json")
    found = json.loads(done(*words))
    assert (found["model"], found["rows"], found["density_kind"]) == ("NGram", 90, "exact")


NO = "--out={tmp}/no.densekit"
WRONG = {
    "no such file": (["fit", "nofile.csv", "--model=NGram", NO], ["nofile.csv: no such file"]),
    "no such data set": (["fit", "digts", "--model=VAE", NO], ["digts: no such file", "'digits'"]),
    "a separator of a data set": (
        ["fit", "digits", "--model=VAE", "--sep=;", NO],
        ["for CSV files, and digits is a data set"],
    ),
    "another suffix": (
        ["fit", "{work}/people.csv", "--model=Gaussian", "--out={tmp}/x.pkl"],
        ["x.pkl would be a file of a densekit model: its name must end in .densekit, not in .pkl"],
    ),
    "scores as text": (
        ["score", "{work}/people.densekit", "{work}/people.csv", "--out={tmp}/s.txt"],
        ["scores are a table, which the format text cannot represent", ".csv, .tsv, .parquet"],
    ),
    "scores under another name": (
        ["score", "{work}/people.densekit", "{work}/people.csv", "--out={tmp}/s.xlsx"],
        ["'.xlsx' is no known format", ".csv"],
    ),
    "samples under another name": (
        ["sample", "{work}/lines.densekit", "--out={tmp}/x.csv", "--format=text"],
        ["x.csv would be a text file: its name must end in .txt or .txt.gz, not in .csv"],
    ),
    "the wrong separator": (
        ["score", "{work}/people.densekit", "{work}/people.csv", "--sep=|"],
        ["'|' separates nothing, but ',' splits each line into 5 values"],
    ),
    "no such model": (["fit", "{work}/people.csv", "--model=RealNVQ", NO], ["mean 'RealNVP'"]),
    "no such setting": (
        ["fit", "{work}/people.csv", "--model=RealNVP", "--set=n_transfroms=3", NO],
        ["RealNVP has no setting 'n_transfroms'", "'n_transforms'"],
    ),
    "a wrong setting": (
        ["fit", "{work}/people.csv", "--model=RealNVP", "--set=n_transforms=2.5", NO],
        ["n_transforms=2.5", "integer"],
    ),
    "no time": (
        ["fit", "{work}/people.csv", "--model=KernelDensity", "--max-time=3", NO],
        ["--max-time 3: KernelDensity has no time limit"],
    ),
    "a model of one's own": (
        ["fit", "{work}/people.csv", "--model=mine:Model", NO],
        ["--model mine:Model", "fit your own model in Python"],
    ),
    "no such column": (
        ["fit", "{work}/people.csv", "--model=RealNVP", "--context=sx", NO],
        ["context names the columns 'sx'", "'sex'"],
    ),
    "columns of images": (
        ["fit", "{work}/pictures", "--model=RealNVP", "--context=sex", NO],
        ["--context sex", "no named columns"],
    ),
    "another modality": (
        ["fit", "{work}/lines.txt", "--model=RealNVP", NO],
        ["tables and images"],
    ),
    "nowhere to save": (
        ["fit", "{work}/people.csv", "--model=RealNVP", "--out={tmp}/none/m.densekit"],
        ["no folder {tmp}/none", "create it first"],
    ),
    "a folder to save in": (
        ["fit", "{work}/people.csv", "--model=RealNVP", "--out={tmp}"],
        ["--out {tmp}", "name of a file"],
    ),
    "no context": (
        ["sample", "{work}/people.densekit"],
        ["context sex, since", "--context sex=... --context since=..."],
    ),
    "half a context": (
        ["sample", "{work}/people.densekit", "--context=sex=f"],
        ["context sex, since", "since is missing; use --context once for each column"],
    ),
    "an unknown context": (
        ["sample", "{work}/people.densekit", "--context=sexx=f", "--context=since=2020-01-01"],
        ["'sexx'", "mean 'sex'"],
    ),
    "a context for none": (
        ["sample", "{work}/pictures.densekit", "--context=sex=f"],
        ["--context sex=f", "without a context"],
    ),
    "a prompt for none": (["sample", "{work}/gan.densekit", "--prompt=a"], ["GAN", "no prompt"]),
    "no model file": (["sample", "{work}/lines.txt"], ["lines.txt", "not a densekit file"]),
    "no score": (
        ["score", "{work}/gan.densekit", "{work}/pictures"],
        ["GAN has no density", "Compare samples"],
    ),
    "other columns": (["score", "{work}/people.densekit", "{tmp}/few.csv"], ["- income - member"]),
    "an unknown format": (["sample", "{work}/lines.densekit", "--out=a.xls"], ["'.xls'"]),
    "images to a table": (["sample", "{work}/gan.densekit"], ["standard output", "not a table"]),
    "an unknown metric": (
        ["evaluate", "{work}/gan.densekit", "{work}/pictures", "--metrics=mdd"],
        ["no metric 'mdd'", "'mmd'"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_is_one_line(work, tmp_path, refused, case):
    formats.write(PEOPLE[["age", "sex", "since"]], tmp_path / "few.csv")
    words, expected = WRONG[case]
    errors = refused(*(word.format(work=work, tmp=tmp_path) for word in words))
    for word in expected:
        assert word.format(tmp=tmp_path) in errors
    assert [path.name for path in tmp_path.iterdir()] == ["few.csv"]


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_too_and_quiet_leaves_it_out(work, tmp_path, call):
    formats.write(PEOPLE.assign(member=PEOPLE["sex"]), tmp_path / "all.csv")
    formats.write(PEOPLE.assign(member="d"), tmp_path / "other.csv")
    model = tmp_path / "g.densekit"
    assert call("fit", tmp_path / "all.csv", "-m", "Gaussian", "-o", model)[0] == 0
    words = ("score", model, tmp_path / "other.csv")
    status, _, err = call(*words)
    assert status == 0
    warning = next(line for line in err.splitlines() if "'d'" in line)
    assert warning.startswith("densekit: warning: ")
    assert "'d'" not in call(*words, "--quiet")[2]


def test_a_context_that_fit_did_not_see_is_named(work, call):
    words = ("sample", work / "people.densekit", "--context=sex=d", "--context=since=2020-01-01")
    status, out, err = call(*words)
    assert (status, out) == (2, "")
    assert "column 'sex' has no value 'd'; it has 'f', 'm'" in err
