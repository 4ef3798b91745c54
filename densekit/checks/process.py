"""Another Python process that loads saved estimators; started once, as importing torch is slow."""

import atexit
import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_SERVER = "from densekit.checks.process import serve; serve()"
_running: list[subprocess.Popen[str]] = []


def load_and_use(path: Path, rows: Any, n: int, seed: int, scores: bool) -> tuple[Any, Any]:
    """Load ``path`` in the other process; its scores of ``rows`` (or None) and ``n`` draws."""
    worker = _worker()
    with tempfile.TemporaryDirectory() as folder:
        ask, answer = Path(folder) / "ask", Path(folder) / "answer"
        ask.write_bytes(pickle.dumps((str(path), rows, n, seed, scores)))
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps([str(ask), str(answer)]) + "\n")
        worker.stdin.flush()
        reply = worker.stdout.readline().strip()
        if reply != "done":
            raise AssertionError(f"the new process printed {reply or 'nothing and died'}")
        return pickle.loads(answer.read_bytes())


def _worker() -> subprocess.Popen[str]:
    if not _running or _running[0].poll() is not None:
        _running[:] = [
            subprocess.Popen(
                [sys.executable, "-c", _SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        ]
        atexit.register(_stop, _running[0])
    return _running[0]


def _stop(worker: "subprocess.Popen[str]") -> None:
    worker.communicate()


def serve() -> None:
    """Answer requests on standard input until it is closed."""
    import torch

    import densekit

    torch.set_num_threads(1)
    for line in sys.stdin:
        ask, answer = json.loads(line)
        try:
            path, rows, n, seed, scores = pickle.loads(Path(ask).read_bytes())
            loaded = densekit.load(path)
            found = loaded.score_samples(rows) if scores else None
            drawn = loaded.sample(n, random_state=seed)
            Path(answer).write_bytes(pickle.dumps((found, drawn)))
            reply = "done"
        except Exception as error:
            reply = f"{type(error).__name__}: {error}".replace("\n", " ")
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()
