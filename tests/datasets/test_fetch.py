"""Fetching against a server of our own: sums, retries, nothing left behind, errors in full."""

import gzip
import hashlib
import http.server
import io
import logging.handlers
import os
import pickle
import threading
import zipfile

import numpy as np
import pooch
import pytest

from densekit.datasets import DownloadError, catalog, fetch

TEXT = b"0,a foreign line\n1,one\n2,two\n"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        answers = self.server.answers.get(self.path, [])
        answer = answers.pop(0) if len(answers) > 1 else (answers or [404])[0]
        if isinstance(answer, int):
            self.send_error(answer)
            return
        body, promised = answer if isinstance(answer, tuple) else (answer, len(answer))
        self.send_response(200)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Answers by path: bytes, (bytes, promised length), a status, or a list of them in turn."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    monkeypatch.setenv("DENSEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DENSEKIT_DATA", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as made:
        made.answers, made.asked = {}, []
        made.url = f"http://127.0.0.1:{made.server_port}"
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def cataloged(monkeypatch):
    """Put one file into the catalog."""

    def put(path, **entry):
        monkeypatch.setattr(catalog, "_catalog", lambda: {"files": {path: entry}})

    return put


def left(tmp_path):
    """The files under the cache, the lock apart."""
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.name != ".lock")


def test_a_file_is_downloaded_once_and_kept(server, cataloged, tmp_path):
    cataloged("set/rows.csv", hash=sha256(TEXT), url=f"{server.url}/rows.csv")
    server.answers["/rows.csv"] = [TEXT]
    assert fetch.text("set/rows.csv") == TEXT
    assert fetch.text("set/rows.csv") == TEXT
    assert server.asked == ["/rows.csv"]
    assert (tmp_path / "cache/set/rows.csv").read_bytes() == TEXT


def test_a_download_says_nothing_and_leaves_the_logger_as_it_was(server, cataloged):
    cataloged("rows.csv", hash=sha256(TEXT), url=f"{server.url}/rows.csv")
    server.answers["/rows.csv"] = [TEXT]
    handler, logger = logging.handlers.BufferingHandler(99), pooch.get_logger()
    level = logger.level
    logger.addHandler(handler)
    fetch.text("rows.csv")
    logger.removeHandler(handler)
    assert handler.buffer == []
    assert logger.level == level < logging.WARNING


def test_a_cache_that_cannot_be_written_to_can_be_read(server, cataloged, tmp_path, monkeypatch):
    cataloged("rows.csv", hash=sha256(TEXT), url=f"{server.url}/rows.csv")
    server.answers["/rows.csv"] = [TEXT]
    fetch.text("rows.csv")
    (tmp_path / "cache/.lock").unlink()

    def refuse(*_args):
        raise PermissionError("read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert fetch.text("rows.csv") == TEXT
    (tmp_path / "cache/rows.csv").unlink()
    with pytest.raises(PermissionError):  # the lock is what refuses
        fetch.text("rows.csv")


def test_failures_and_half_answers_are_tried_again(server, cataloged):
    cataloged("rows.csv", hash=sha256(TEXT), url=f"{server.url}/rows.csv")
    server.answers["/rows.csv"] = [503, (TEXT[:9], len(TEXT)), TEXT]
    assert fetch.text("rows.csv") == TEXT
    assert len(server.asked) == 3


@pytest.mark.parametrize("answer", [TEXT + b"3", 404, (TEXT[:9], len(TEXT))])
def test_a_failed_download_leaves_nothing(server, cataloged, tmp_path, answer):
    cataloged("deep/set/rows.csv", hash=sha256(TEXT), url=f"{server.url}/rows.csv")
    server.answers["/rows.csv"] = [answer]
    with pytest.raises((ValueError, ConnectionError)):
        fetch.text("deep/set/rows.csv")
    assert left(tmp_path) == []
    assert len(server.asked) == 3


def test_the_error_of_a_wrong_checksum_has_both_checksums(server, cataloged, tmp_path):
    cataloged("rows.csv", hash=sha256(TEXT), url=f"{server.url}/rows.csv")
    server.answers["/rows.csv"] = [b"other"]
    with pytest.raises(
        ValueError, match=r"download of rows\.csv from .* is a different file"
    ) as caught:
        fetch.text("rows.csv")
    message = str(caught.value)
    assert sha256(TEXT) in message
    assert sha256(b"other") in message
    assert "\n" not in message


def test_offline_the_error_says_what_to_put_where(server, cataloged, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSEKIT_DATA", str(tmp_path))
    url = "http://127.0.0.1:9/far/rows.csv"  # the port that discards: nobody listens
    cataloged("set/rows.csv.gz", hash="0", url=url, url_hash=sha256(TEXT))
    with pytest.raises(DownloadError) as caught:
        fetch.text("set/rows.csv.gz")
    message = str(caught.value)
    assert message.startswith(f"cannot download set/rows.csv.gz from {url} (")
    kept = tmp_path / "cache/set/rows.csv"
    assert message.endswith(
        f"save the file of the URL as {kept}, or put set/rows.csv.gz into the folder of "
        f"DENSEKIT_DATA ({tmp_path})"
    )
    assert isinstance(caught.value, OSError)
    kept.parent.mkdir()
    kept.write_bytes(TEXT)  # as the message says
    assert fetch.text("set/rows.csv.gz") == TEXT


def test_the_local_folder_comes_first_and_is_checked(server, cataloged, tmp_path, monkeypatch):
    packed = gzip.compress(TEXT)
    cataloged("rows.gz", hash=sha256(packed), url=f"{server.url}/rows", url_hash=sha256(TEXT))
    monkeypatch.setenv("DENSEKIT_DATA", str(tmp_path))
    local = tmp_path / "rows.gz"
    local.write_bytes(packed)
    assert fetch.text("rows.gz") == TEXT
    assert catalog.file("rows.gz").locations == (local,)
    local.write_bytes(packed[:-1])
    with pytest.raises(ValueError, match="is damaged or another file") as caught:
        fetch.text("rows.gz")
    assert str(caught.value) == (
        f"{local} is damaged or another file: its sha256 is {sha256(packed[:-1])}, expected "
        f"{sha256(packed)}; replace it with an undamaged copy, or remove it to download it again"
    )
    assert server.asked == []
    local.unlink()
    server.answers["/rows"] = [TEXT]
    assert fetch.text("rows.gz") == TEXT


def test_a_damaged_cache_is_fetched_again(server, cataloged, tmp_path):
    cataloged("rows.csv", hash=sha256(TEXT), url=f"{server.url}/rows.csv")
    server.answers["/rows.csv"] = [TEXT]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/rows.csv").write_bytes(TEXT[:-1])
    assert fetch.text("rows.csv") == TEXT


def test_the_folder_must_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("DENSEKIT_DATA", str(tmp_path / "gone"))
    with pytest.raises(NotADirectoryError, match="gone' is not a folder: set it to the folder"):
        catalog.data_folder()


def test_other_algorithms_are_named_before_the_sum(server, cataloged):
    md5 = hashlib.md5(TEXT, usedforsecurity=False).hexdigest()
    cataloged("rows.csv", hash=f"md5:{md5}", url=f"{server.url}/rows.csv")
    server.answers["/rows.csv"] = [TEXT]
    assert fetch.text("rows.csv") == TEXT


def test_lines_are_left_out_before_the_content_is_checked(server, cataloged, tmp_path):
    good = TEXT.split(b"\n", 1)[1]
    cataloged("rows.gz", hash="0", url=f"{server.url}/rows.csv", content=sha256(good))
    server.answers["/rows.csv"] = [TEXT]
    assert fetch.text("rows.gz", without=b"0,") == good
    with pytest.raises(ValueError, match="has unexpected content") as caught:
        fetch.text("rows.gz")
    assert f"{sha256(TEXT)}, expected {sha256(good)}" in str(caught.value)
    assert left(tmp_path) == []


def test_arrays_from_parts_are_those_of_the_joined_file(server, cataloged, tmp_path, monkeypatch):
    rows = {"train": np.arange(6).reshape(3, 2), "test": np.array(["x", "yy"])}
    np.savez(tmp_path / "both.npz", **rows)
    joined = (tmp_path / "both.npz").read_bytes()
    content = sha256(
        b"test <U2 (2,)\n"
        + rows["test"].tobytes()
        + b"train <i8 (3, 2)\n"
        + rows["train"].tobytes()
    )
    url = f"{server.url}/{{part}}.npy"
    cataloged("both.npz", hash=sha256(joined), url=url, parts=["train", "test"], content=content)
    for name, array in (("train", rows["train"]), ("test", rows["test"].astype(object))):
        stream = io.BytesIO()
        np.save(stream, array)
        server.answers[f"/{name}.npy"] = [stream.getvalue()]

    def read(paths):
        return {path.stem: fetch.npy(path.read_bytes()) for path in paths}

    downloaded = fetch.arrays("both.npz", read)
    monkeypatch.setenv("DENSEKIT_DATA", str(tmp_path))
    local = fetch.arrays("both.npz", read)
    for name, array in rows.items():
        assert downloaded[name].dtype == local[name].dtype == array.dtype
        assert np.array_equal(downloaded[name], array)
        assert np.array_equal(local[name], array)
    monkeypatch.delenv("DENSEKIT_DATA")
    with pytest.raises(ValueError, match="has unexpected content"):
        fetch.arrays("both.npz", lambda paths: {"train": rows["train"] + 1})
    assert left(tmp_path) == ["both"]


def test_pickled_code_does_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match=r"contains posix\.mkdir, .*; the file was not loaded"):
        fetch.npy(stream.getvalue())
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Bomb()))  # pickle itself does run it
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_are_named_by_what_the_pattern_finds(server, cataloged, kind):
    import tarfile

    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("top/train/1.txt", "one")
            archive.writestr("top/notes", "two")
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, data in (("top/train/1.txt", b"one"), ("top/notes", b"two")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    data = stream.getvalue()
    cataloged("all", hash=sha256(data), url=f"{server.url}/all")
    server.answers["/all"] = [data]
    assert fetch.members("all", r"train/\d\.txt$") == {"train/1.txt": b"one"}
