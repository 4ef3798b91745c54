"""What every command shares: help, errors, statuses, pipes."""

import ast
import importlib.metadata
import os
import pathlib
import re
import signal
import subprocess
import sys
import tomllib

import numpy as np
import psutil
import pytest

import densekit
from densekit import formats
from densekit.cli import app

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


def raising(error):
    def raise_it(*_args, **_kwargs):
        raise error

    return raise_it


def test_a_bare_call_is_for_help(call):
    status, out, err = call()
    assert (status, err) == (0, "")
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(done, command):
    text = done(command, "--help")
    assert f"  densekit {command} " in text or f"Example: densekit {command}" in text


def test_version(done):
    assert done("--version") == f"densekit {densekit.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench"], "Missing argument"),
        (["fit", "a.csv", "--out", "b"], "Missing option"),
        (["list", "--frob"], "--frob"),
        (["bnch"], "bnch"),
        (["sample", "m.densekit", "-n", "0"], "-n"),
        (["sample", "m.densekit", "-n", "many"], "-n"),
    ],
)
def test_a_wrong_call_is_one_line(refused, words, message):
    assert message in refused(*words)


def test_a_bug_is_called_one(call, monkeypatch):
    monkeypatch.setattr("densekit.discovery.listed", raising(KeyError("flows")))
    status, out, err = call("list")
    assert (status, out) == (70, "")
    assert err.startswith("densekit: KeyError: 'flows'. This is a bug in densekit: --debug shows")
    assert err.count("\n") == 1


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("error", [KeyError("flows"), ValueError("a wrong word")])
def test_debug_shows_the_traceback(call, monkeypatch, place, error):
    monkeypatch.setattr("densekit.discovery.listed", raising(error))
    words = ("--debug", "list") if place == "before" else ("list", "--debug")
    _, _, err = call(*words)
    assert "Traceback (most recent call last)" in err
    assert "in raise_it" in err
    assert err.splitlines()[-1].startswith("densekit: ")


def test_words_after_two_dashes_are_not_options(refused):
    assert "--json: no such file" in refused("sample", "--", "--json")


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (OSError(28, "No space left on device", "a.csv"), "a.csv: No space left on device"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError(), "out of memory"),
        (ImportError("pip install 'densekit[text]'"), "pip install 'densekit[text]'"),
        (ValueError("one line\nand another"), "one line and another"),
    ],
)
def test_an_error_of_the_system_is_one_line(refused, monkeypatch, error, printed):
    monkeypatch.setattr("densekit.discovery.listed", raising(error))
    assert refused("list") == f"densekit: {printed}\n"


def test_interrupted(call, monkeypatch):
    monkeypatch.setattr("densekit.discovery.listed", raising(KeyboardInterrupt))
    assert call("list") == (130, "", "densekit: stopped; nothing was written\n")


@pytest.mark.parametrize(
    ("words", "also"),
    [
        (["--version"], set()),
        (["--help"], set()),
        (["fit", "--help"], set()),
        (["sample", "--help"], set()),
        (["list"], {"rich"}),
        (["list", "--json"], {"rich"}),
        (["datasets"], {"rich", "numpy"}),
        (["datasets", "adult", "--json"], {"rich", "numpy"}),
    ],
    ids=lambda value: " ".join(sorted(value)),
)
def test_commands_that_only_print_import_no_library(words, also):
    code = (
        "import sys; from densekit.cli import main\n"
        f"try:\n    main({words!r})\n"
        "except SystemExit as e:\n    assert e.code == 0\n"
        "heavy = {'torch', 'pyro', 'pandas', 'numpy', 'scipy', 'sklearn', 'rich', 'pyarrow', 'PIL'}\n"
        "sys.stderr.write(' '.join(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert set(done.stderr.split()) <= also


def test_every_library_that_is_imported_is_declared():
    root = pathlib.Path(densekit.__file__).parent
    project = tomllib.loads((root.parent / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for one in extra.values() for line in one)]
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in lines}
    imported = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    owners = importlib.metadata.packages_distributions()
    foreign = imported - sys.stdlib_module_names - {"densekit"}
    assert {"requests", "markupsafe", "torch"} <= foreign
    missing = [
        name
        for name in foreign
        if not declared & {owner.lower() for owner in owners.get(name, [name])}
    ]
    assert missing == []


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("main")
    densekit.Gaussian().fit(np.arange(12.0).reshape(6, 2) ** 2).save(folder / "g.densekit")
    return folder / "g.densekit"


def densekit_process(*words, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "densekit", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options
    )


def test_a_reader_that_goes_away_is_no_error(model):
    with densekit_process("sample", model, "-n", 9) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1


def test_binary_rows_go_through_a_pipe(model):
    words = ("sample", model, "-n", 5, "--seed", 0, "--format", "parquet")
    with densekit_process(*words) as drawing:
        words = ("score", model, "-", "--format", "parquet", "--quiet")
        with densekit_process(*words, stdin=drawing.stdout) as scoring:
            out, err = scoring.communicate()
    assert (drawing.returncode, scoring.returncode, err) == (0, 0, b"")
    assert len(out.splitlines()) == 6


def interrupt(running):
    """Ctrl-C, and what comes of it: the seconds that the process computes from then on, and its last
    words. It stands still while its time is read."""
    process = psutil.Process(running.pid)
    running.send_signal(signal.SIGSTOP)
    while process.status() != psutil.STATUS_STOPPED:
        pass
    before = process.cpu_times()
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGCONT)
    printed = running.stderr.read().decode()
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime - before.user - before.system, printed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_stops_a_fit_at_once_and_leaves_nothing(tmp_path):
    formats.write(np.random.default_rng(0).normal(size=(500, 3)), tmp_path / "x.npy")
    words = ("fit", tmp_path / "x.npy", "--model", "RealNVP", "--set", "max_steps=50000")
    forever = ("--set", "patience=None", "--set", "verbose=true", "-o", tmp_path / "m.densekit")
    with densekit_process(*words, *forever) as running:
        printed = b""
        while b"train=" not in printed:  # the progress bar after a round: it trains
            printed += running.stderr.read(1) or pytest.fail(printed.decode())
        seconds, printed = interrupt(running)
    assert running.returncode == 130
    assert printed.splitlines()[-1] == "densekit: stopped; nothing was written"
    # The end of the interpreter, 1 to 2 seconds of a processor; the fit would go on for a minute.
    assert seconds < 5
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
