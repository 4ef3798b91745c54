"""Several processes train one model: same result as one, reported crashes, and no script runs twice."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch

from densekit import RealNVP, checkpoints
from densekit.processes import Group, together

X = np.random.default_rng(0).normal([1, 20], [1, 3], (500, 2))
SMALL = {"n_transforms": 2, "hidden_sizes": (16,), "device": "cpu", "random_state": 3}

PLAIN = """
import json, sys
import numpy as np, torch
from densekit import GAN, VAE, RealNVP

class Mine(RealNVP):
    "A class of the script, which no other process can import."

def numbers(est):
    return [v.double().flatten().tolist() for v in est.module_.state_dict().values()]

rng = np.random.default_rng(0)
X, test = (rng.normal([1, 20], [1, 3], (n, 2)) for n in (500, 2000))
shared = dict(hidden_sizes=(16,), device="cpu", random_state=3)
results = {}
for devices in (None, 2, 2):
    flow = Mine(n_transforms=2, max_steps=40, batch_size=25, devices=devices, **shared).fit(X)
    results.setdefault("flow", []).append([numbers(flow), flow.history_["valid_loss"]])
for devices in (None, 2):
    vae = VAE(max_steps=120, devices=devices, n_importance=16, **shared).fit(X)
    results.setdefault("vae", []).append(vae.score_samples(test).tolist())
    gan = GAN(max_steps=6, devices=devices, r1=0.1, **shared).fit(X)
    results.setdefault("gan", []).append(gan.sample(2, random_state=0).tolist())
print(json.dumps(results))
"""


def script(text, tmp_path, *launcher, **kwargs):
    path = tmp_path / "script.py"
    path.write_text(text)
    command = [sys.executable, "-W", "error::ResourceWarning", *launcher, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


# One process and two.


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The output of a script without a main guard: one line if it ran once."""
    done = script(PLAIN, tmp_path_factory.mktemp("plain"))
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


def test_two_processes_make_the_steps_of_one_where_nothing_draws_noise(plain):
    """A batch of 25 is shared as 13 and 12 rows; the two means count by their rows."""
    (one, valid_one), (two, valid_two), _ = plain["flow"]
    for w1, w2 in zip(one, two, strict=True):
        assert np.allclose(w1, w2, rtol=1e-3, atol=1e-4)
    assert valid_one == pytest.approx(valid_two, rel=1e-5)


def test_two_processes_are_deterministic(plain):
    assert plain["flow"][1] == plain["flow"][2]


def test_two_processes_reach_the_held_out_score_of_one_within_noise(plain):
    """A VAE draws noise in every step, other noise in each process. Five standard errors of the
    difference over 2,000 rows, and 0.02 nats of optimization."""
    one, two = map(np.asarray, plain["vae"])
    error = np.std(one - two) / np.sqrt(len(one))
    assert one.tolist() != two.tolist()
    assert abs(np.mean(one - two)) < 5 * error + 0.02


def test_two_players_play_in_two_processes(plain):
    one, two = map(np.asarray, plain["gan"])
    assert one.shape == two.shape
    assert np.isfinite(two).all()


def test_shares_of_a_batch_are_the_batch():
    index = torch.randperm(11)
    shares = [Group(rank, 3).share(index) for rank in range(3)]
    assert torch.equal(torch.cat(shares), index)
    assert {len(s) for s in shares} == {3, 4}


def test_more_processes_than_rows_in_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"devices=2 share a batch of 1 row\(s\)"):
        RealNVP(**SMALL, batch_size=1, max_steps=3, devices=2).fit(X)


def test_more_gpus_than_there_are_are_refused():
    with (
        pytest.raises(ValueError, match="devices=99 takes the GPUs cuda:0 to cuda:98"),
        together(99, "cuda", print),
    ):
        pass


# A process that dies.


def children():
    return [
        p for p in psutil.Process().children() if "densekit.processes" in " ".join(p.cmdline())
    ]


def test_a_worker_that_is_killed_is_named_and_the_fit_goes_on_from_its_checkpoint(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)
    settings = {**SMALL, "max_steps": 60, "batch_size": 24, "devices": 2}
    killed = []

    def kill(state):
        if killed:
            killed.append("a round")
        elif state.step >= 20:
            (worker,) = children()
            worker.kill()
            killed.append(worker.pid)

    folder = str(tmp_path)
    with pytest.raises(RuntimeError) as caught:
        RealNVP(**settings, callbacks=(kill,), checkpoint_dir=folder).fit(X)
    (pid,) = killed
    # The lost connection ends the fit, and no time limit on one.
    assert "imed out" not in str(caught.value.__cause__)
    assert f"rank 1 (process {pid}) was killed by SIGKILL" in str(caught.value)
    assert (tmp_path / "fit.safetensors").exists()
    assert not torch.distributed.is_initialized()
    assert not children()
    seen = []
    resumed = RealNVP(
        **settings, callbacks=(lambda s: seen.append(s.step),), checkpoint_dir=folder
    ).fit(X)
    assert seen[0] > 10
    whole = RealNVP(**settings).fit(X)
    ours, theirs = (e.module_.state_dict() for e in (resumed, whole))
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    assert resumed.history_["valid_loss"] == whole.history_["valid_loss"]


def test_an_error_of_a_worker_is_raised():
    class Unbuildable(RealNVP):
        def _build(self, schema, context_schema):
            if torch.distributed.get_rank() == 1:
                raise MemoryError("no memory here")
            return super()._build(schema, context_schema)

    with pytest.raises(RuntimeError, match=r"rank 1 .* exit status 1 \(.*MemoryError: no memory"):
        Unbuildable(**SMALL, max_steps=3, devices=2).fit(X)


def test_an_error_of_rank_0_is_the_one_that_is_raised_and_ends_the_others():
    class CutError(Exception):
        pass

    def cut(state):
        raise CutError

    before = torch.get_num_threads()
    with pytest.raises(CutError):
        RealNVP(**SMALL, max_steps=20, devices=2, callbacks=(cut,)).fit(X)
    assert not children()
    assert torch.get_num_threads() == before


LONG = """
import numpy as np
from densekit import RealNVP
X = np.random.default_rng(0).normal(size=(500, 2))
tell = lambda state: print("a round", flush=True)
RealNVP(max_steps=10**6, patience=None, device="cpu", devices=2, callbacks=(tell,)).fit(X)
"""


def test_workers_end_with_the_process_that_started_them(tmp_path):
    (tmp_path / "long.py").write_text(LONG)
    command = [sys.executable, str(tmp_path / "long.py")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        while not (workers := psutil.Process(parent.pid).children()):
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
    for worker in workers:
        # A fit that goes on computes, for as long as it is let.
        with contextlib.suppress(psutil.NoSuchProcess):
            while worker.status() != psutil.STATUS_ZOMBIE:
                assert worker.cpu_times().user < 60
                time.sleep(0.05)


# Under torchrun.

LAUNCHED = """
import os
import numpy as np
from densekit import RealNVP
rank = os.environ["RANK"]
X = np.random.default_rng(0).normal([1, 20], [1, 3], (500, 2))
shared = dict(n_transforms=2, hidden_sizes=(16,), device="cpu", max_steps=40, batch_size=25)
for seed in (3, None):
    est = RealNVP(**shared, random_state=seed, devices=2).fit(X)
    print(f"{rank} {seed} {est.score(X)!r} {est.history_['valid_loss']}\\n", end="", flush=True)
est = RealNVP(**shared, random_state=3, devices=2)
try:
    RealNVP(**shared, devices=3).fit(X)
except ValueError as error:
    print(f"{rank} {error}\\n", end="", flush=True)
est.fit(X + (rank == "1"))
"""


def test_under_torchrun_all_processes_end_with_one_model(tmp_path, plain):
    """The third fit has other rows in rank 1, which raises an error and ends the run."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done = script(LAUNCHED, tmp_path, *launcher)
    outcomes = {
        line[0] + line[1:].split(" ")[1]: line[2:] for line in done.stdout.splitlines() if line
    }
    assert done.returncode != 0
    assert "ValueError: rank 1 was given other rows than rank 0" in done.stderr
    assert "0devices=3," in outcomes, done.stderr
    assert "belongs to a group of 2" in outcomes["0devices=3,"]
    assert outcomes["03"] == outcomes["13"]
    assert outcomes["0None"] == outcomes["1None"] != outcomes["03"]
    losses = json.loads(re.search(r"\[.*\]", outcomes["03"])[0])
    assert losses == plain["flow"][1][1]
