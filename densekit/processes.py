"""Several processes that train one model: starting, joining, averaging, and the death of one.

Data parallel: every process (*rank*) has the whole module and takes its share of each batch. Gradients
are averaged over the ranks, so that all of them make the same steps. The calling process is rank 0; the
others are started without running the user's script again. Under ``torchrun`` all exist already.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from densekit.runtime import seeded

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from densekit.processes import serve; serve(*sys.argv[2:])"
)
_SECONDS_TO_END = 10.0
"""How long a process may take to end, and how long we wait to learn why one ended."""
_POLL_SECONDS = 0.01
"""Seconds between two checks of a process."""


class Group:
    """The processes of one fit, as one of them sees it; the default is a process alone.

    Parameters
    ----------
    rank, world : int
        Which process this is, and how many there are.
    workers : sequence of subprocess.Popen
        Ranks 1, 2, ... where this process started them.
    logs : Path, optional
        The folder with what they wrote to standard error.
    launched : bool
        Whether the user started all of them, so that each was given rows of its own.

    Examples
    --------
    >>> alone = Group()
    >>> alone.share(torch.arange(3)), alone.broadcast("as it is")
    (tensor([0, 1, 2]), 'as it is')
    """

    def __init__(
        self,
        rank: int = 0,
        world: int = 1,
        workers: Sequence["subprocess.Popen[bytes]"] = (),
        logs: Path | None = None,
        launched: bool = False,
    ):
        self.rank, self.world, self.launched = rank, world, launched
        self._workers, self._logs = workers, logs

    def share(self, index: Tensor) -> Tensor:
        """This rank's part of a batch; parts differ in length by one at most."""
        return index if self.world == 1 else index.tensor_split(self.world)[self.rank]

    def mean_gradients(
        self, parameters: Iterable[nn.Parameter], loss: Tensor, weight: Tensor
    ) -> Tensor:
        """Replace gradients by their mean over the ranks, each counting by its ``weight`` (the rows
        of its share, or their weights); the mean loss comes back, equal on all ranks."""
        loss = loss.detach()
        if self.world == 1:
            return loss
        gradients = [p.grad for p in parameters if p.grad is not None]
        ends = torch.stack([loss.to(gradients[0]), torch.ones_like(loss).to(gradients[0])])
        flat = torch.cat([*(g.reshape(-1) for g in gradients), ends])
        self.total(flat.mul_(weight.to(flat)))
        flat /= flat[-1].clone()
        parts = flat[:-2].split([g.numel() for g in gradients])
        for g, mean in zip(gradients, parts, strict=True):
            g.copy_(mean.view_as(g))
        return flat[-2]

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        if self.world > 1:
            with self._naming_lost_rank():
                work = dist.all_reduce(values, async_op=True)
                # A collective operation on a GPU would wait forever for a process that ended.
                while values.is_cuda and not work.is_completed():
                    if any(w.poll() is not None for w in self._workers):
                        raise RuntimeError("a process ended within a sum")
                work.wait()
        return values

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        with self._naming_lost_rank():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def equalize(self, module: nn.Module) -> None:
        """Give all ranks the weights and buffers of rank 0."""
        if self.world > 1:
            with self._naming_lost_rank():
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, src=0)

    @contextlib.contextmanager
    def _naming_lost_rank(self) -> Iterator[None]:
        """Name the process that ended, and why, where a collective operation fails."""
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError(
                f"rank {self.rank} of {self.world} lost another process of the fit: "
                f"{self.what_happened() or error}. A checkpoint_dir keeps what was learned: the same "
                "fit goes on from there"
            ) from error

    def what_happened(self) -> str:
        """Which workers ended and why; only those that were killed, if any were."""
        deadline = time.monotonic() + _SECONDS_TO_END
        while time.monotonic() < deadline and not self._ended():
            if not self._workers:
                break
            time.sleep(_POLL_SECONDS)
        ended = self._ended()
        # The other processes end because they lost the connection, so they are not the cause.
        killed = {rank: code for rank, code in ended.items() if code < 0}
        return "; ".join(self._death(rank, code) for rank, code in (killed or ended).items())

    def _ended(self) -> dict[int, int]:
        codes = {i + 1: w.poll() for i, w in enumerate(self._workers)}
        return {rank: code for rank, code in codes.items() if code is not None}

    def _death(self, rank: int, code: int) -> str:
        who = f"rank {rank} (process {self._workers[rank - 1].pid})"
        if code < 0:
            return f"{who} was killed by {signal.Signals(-code).name}"
        log = "" if self._logs is None else _log(self._logs, rank).read_text(errors="replace")
        last = log.strip().splitlines()[-1:] or ["it wrote nothing"]
        return f"{who} ended with exit status {code} ({last[0]})"


@contextlib.contextmanager
def together(
    devices: int | None, device: str, work: Callable[..., Any], *arguments: Any
) -> Iterator[Group]:
    """The processes of a fit, for the time of a ``with`` block.

    Parameters
    ----------
    devices : int, optional
        How many processes; None and 1 are this one alone.
    device : str
        Of this process. On ``"cpu"`` they talk by gloo and share its threads; on ``"cuda"`` rank r
        has GPU r, and they talk by NCCL.
    work : callable
        ``work(group, device, *arguments)`` is what the other ranks run meanwhile, under a seed of
        their own; pickled by cloudpickle, so that it may come from a script.
    arguments
        Tensors reach the workers through a file that all of them map.

    Raises
    ------
    ValueError
        ``devices`` is more than there are, or is not the size of the process group that exists.
    RuntimeError
        A process ended early; the message names it and the reason.
    """
    world = devices or 1
    if world == 1:
        yield Group()
    elif dist.is_initialized() or dist.is_torchelastic_launched():
        yield _existing(world, device)
    else:
        _check_devices(world, device)
        with tempfile.TemporaryDirectory(prefix="densekit-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            with _threads_shared(world) as threads:
                _write_call(folder, work, arguments)
                with _started(folder, world, device, threads) as group:
                    yield group


def _existing(world: int, device: str) -> Group:
    """The group that ``torchrun`` or the user's script made."""
    if not dist.is_initialized():
        dist.init_process_group(_backend(device))
        atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())
    if dist.get_world_size() != world:
        raise ValueError(
            f"devices={world}, but this process belongs to a group of {dist.get_world_size()}: set "
            f"devices={dist.get_world_size()}, or devices=None to fit in this process alone"
        )
    return Group(dist.get_rank(), world, launched=True)


def _backend(device: str) -> str:
    return "gloo" if torch.device(device).type == "cpu" else "cpu:gloo,cuda:nccl"


def _check_devices(world: int, device: str) -> None:
    target = torch.device(device)
    if target.type == "cpu":
        return
    if target.index or world > torch.cuda.device_count():
        raise ValueError(
            f"devices={world} takes the GPUs cuda:0 to cuda:{world - 1}, and device={device!r} on a "
            f"machine with {torch.cuda.device_count()}: lower devices, or set device='cuda' or 'cpu'"
        )


@contextlib.contextmanager
def _threads_shared(world: int) -> Iterator[int]:
    """Divide the threads of this process among ``world`` processes; more threads than cores slow all
    of them down."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // world))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


# Starting the other ranks.


def _log(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.log"


def _write_call(folder: Path, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    import cloudpickle

    rest = []
    for i, value in enumerate(arguments):
        if isinstance(value, Tensor):
            np.save(folder / f"{i}.npy", value.detach().cpu().numpy())
        rest.append(None if isinstance(value, Tensor) else value)
    (folder / "call").write_bytes(cloudpickle.dumps((work, rest)))


@contextlib.contextmanager
def _started(folder: Path, world: int, device: str, threads: int) -> Iterator[Group]:
    """Ranks 1, 2, ... as processes of their own, which end with the block, or with this process."""
    workers: list[subprocess.Popen[bytes]] = []
    group = Group(0, world, workers, folder)
    try:
        for rank in range(1, world):
            settings = {"rank": rank, "world": world, "device": device, "threads": threads}
            command = [sys.executable, "-c", _START, json.dumps(sys.path), str(folder)]
            with _log(folder, rank).open("wb") as log:
                workers.append(
                    subprocess.Popen(
                        [*command, json.dumps(settings)],
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                    )
                )
        _await(folder, group, workers)
        _join(folder, 0, world, device)
        yield group
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(_SECONDS_TO_END)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
        if dist.is_initialized():
            dist.destroy_process_group()


def _await(folder: Path, group: Group, workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Wait for every worker to have read its call: only then is there something to connect to."""
    while not all((folder / f"ready{i + 1}").exists() for i in range(len(workers))):
        if any(worker.poll() is not None for worker in workers):
            raise RuntimeError(
                f"a process of the fit did not start: {group.what_happened()}. Models must be of "
                "modules that can be imported, or of the script itself; devices=None needs no others"
            )
        time.sleep(_POLL_SECONDS)


def _join(folder: Path, rank: int, world: int, device: str) -> None:
    # A file to meet at, so that no port must be free.
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group(_backend(device), store=store, rank=rank, world_size=world)


def serve(folder: str, settings: str) -> None:
    """Run the call that is stored in a folder, as the rank that ``settings`` names. A started process
    runs this."""
    import cloudpickle

    threading.Thread(target=_end_with_parent, daemon=True).start()
    config, place = json.loads(settings), Path(folder)
    rank, world, device = config["rank"], config["world"], config["device"]
    torch.set_num_threads(config["threads"])
    if torch.device(device).type == "cuda":
        device = f"cuda:{rank}"
        torch.cuda.set_device(rank)
    work, arguments = cloudpickle.loads((place / "call").read_bytes())
    for i in range(len(arguments)):
        if (place / f"{i}.npy").exists():
            # Copy on write: one set of pages for all ranks, and torch wants an array to be writable.
            arguments[i] = torch.from_numpy(np.load(place / f"{i}.npy", mmap_mode="c"))
    (place / f"ready{rank}").touch()
    _join(place, rank, world, device)
    with seeded(rank, device):
        work(Group(rank, world), device, *arguments)
    dist.destroy_process_group()


def _end_with_parent() -> None:
    """End this process when its parent ends: standard input is then closed, whatever the reason."""
    while os.read(0, 1):
        pass
    os._exit(1)
