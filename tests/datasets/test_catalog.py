import math
import re

import pytest

from densekit import datasets, metrics
from densekit.datasets import binary, catalog


def test_every_set_is_cataloged_and_every_entry_is_a_set():
    assert set(catalog.listed()) == set(datasets.names())


def test_names_by_modality_make_up_all_names():
    parts = [datasets.names(m) for m in ("table", "image", "text")]
    assert sorted(sum(parts, ())) == sorted(datasets.names())
    assert "mnist" in parts[1]
    assert "ptb" in parts[2]


def test_no_loading_is_needed_to_know(monkeypatch):
    def fail(*_args):
        raise AssertionError("a file was read")

    monkeypatch.setattr("densekit.datasets.fetch._fetch", fail)
    for name in datasets.names():
        known = datasets.info(name)
        assert known.license
        assert known.source
        assert known.rows is not None or name == "pydoc"
        assert (known.columns is None) == (known.modality == "text")


def test_published_figures_name_paper_and_year():
    figures = [p for name in datasets.names() for p in datasets.info(name).published]
    assert len(figures) > 100
    assert all(re.search(r"(19|20)\d\d", p.source) for p in figures)
    gaussian = {n: datasets.info(n).published[0] for n in ("power", "bsds300")}
    assert gaussian["power"].value == -7.74
    assert gaussian["power"].unit == "nats per row"
    assert "published draw" in gaussian["bsds300"].source


def test_masses_of_binary_rows_are_below_one():
    published = {n: p for n in binary.LOADERS for p in datasets.info(n).published}
    assert {name: p.value for name, p in published.items()} == {
        "nltcs": -6.00, "plants": -12.67, "jester": -52.82, "baudio": -39.62, "bnetflix": -56.21,
        "dna": -81.28, "pumsb_star": -22.75, "bbc": -256.40,
    }  # fmt: skip
    assert {p.unit for p in published.values()} == {"nats per row"}
    assert all("paper not identified" in p.source for p in published.values())


def test_text8_says_that_ours_counts_a_symbol_more_for_each_block():
    text = "a" * 256
    nats = 256 * 1.4 * math.log(2)  # 1.4 bits for each character, and none for the end
    ours = metrics.bits_per_character([-nats], [text]).value
    assert ours * 257 / 256 == pytest.approx(1.4)
    figures = datasets.info("text8").published
    assert all("multiply ours by 257/256" in figure.source for figure in figures)
    assert len(figures) == 5


def test_sums_are_whole_and_no_url_is_taken_twice():
    files = {f.path: f for name in datasets.names() for f in datasets.info(name).files}
    for found in files.values():
        for value in (found.hash, found.url_hash, found.content):
            assert re.fullmatch(r"|[0-9a-f]{64}|md5:[0-9a-f]{32}", value), found.path
        assert found.hash
    urls = [url for found in files.values() for url in found.downloads.values()]
    kept = [path for found in files.values() for path in found.downloads]
    assert len(set(urls)) == len(urls)
    assert len(set(kept)) == len(kept)
    assert all(url.startswith("http") and "{" not in url for url in urls)


def test_where_a_set_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("DENSEKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("DENSEKIT_DATA", raising=False)
    abalone = datasets.info("abalone")
    assert abalone.needs_download
    assert len(abalone.urls) == 9
    assert tmp_path / "tabddpm_splits/abalone/X_cat_val.npy" in abalone.locations
    assert datasets.info("adult").locations[1] == tmp_path / "adult/adult.test"
    for path in abalone.locations:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert not abalone.needs_download
    assert not datasets.info("digits").needs_download
    assert datasets.info("digits").locations == ()


@pytest.mark.parametrize("ask", [datasets.info, datasets.load])
def test_an_unknown_name_gets_the_nearest(ask):
    with pytest.raises(ValueError) as caught:
        ask("minboone")
    assert str(caught.value) == "no data set is called 'minboone'; did you mean 'miniboone'?"
    with pytest.raises(ValueError, match=r"known are abalone, accidents, .* in all"):
        ask("zzz")


def test_an_unknown_modality_is_named():
    with pytest.raises(ValueError, match="modality='sound': must be 'table', 'image' or 'text'"):
        datasets.names("sound")
