"""A run between two rounds as tensors and values, for checkpoints, and back.

Between two rounds no loss is summed up and no gradient is held.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from densekit.checkpoints import Checkpoint, Saved
from densekit.runtime import generator_states, set_generator_states
from densekit.training.history import History

if TYPE_CHECKING:
    from densekit.training.loop import Run


def take(run: "Run") -> Saved:
    """Everything that the rest of a run depends on."""
    row_losses = [] if run.best_row_losses is None else [run.best_row_losses]
    lists = {"average": run.averaged.values, "best": run.best or [], "row_losses": row_losses}
    moments = {
        f"moments{k}/{i}/{name}": moment
        for k, optimizer in enumerate(run.steps.optimizers)
        for i, state in optimizer.state_dict()["state"].items()
        for name, moment in state.items()
    }
    tensors = {
        **{f"weights/{name}": w for name, w in run.module.state_dict().items()},
        **{f"{name}/{i}": w for name, row in lists.items() for i, w in enumerate(row)},
        **moments,
        **{f"generators/{k}": v for k, v in generator_states(run.device).items()},
    }
    values = {
        "seed": run.seed,
        "step": run.state.step,
        "seconds": run.schedule.clock.elapsed(),
        "best_loss": run.best_loss,
        "history": asdict(run.history),
        "rounds_without_gain": run.rounds_without_gain,
        "best_round_loss": run.best_round_loss,
    }
    return Saved(tensors, values)


def resume(run: "Run", checkpoint: Checkpoint) -> bool:
    """Put a run into the state that a checkpoint holds; False where it holds none.

    Raises
    ------
    ValueError
        The parts of the checkpoint do not fit the run, or each other.
    """
    saved = checkpoint.saved
    if saved is None:
        return False
    try:
        _restore(run, saved)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise checkpoint.damaged(error) from error
    return True


def _restore(run: "Run", saved: Saved) -> None:
    values = saved.values
    run.module.load_state_dict(saved.part("weights"))
    for k, optimizer in enumerate(run.steps.optimizers):
        moments = _moments(saved.part(f"moments{k}"), run.players[k].parameters)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    for value, kept in zip(run.averaged.values, saved.row("average"), strict=True):
        value.copy_(kept)
    best = saved.row("best")
    if best:
        like = zip(run.averaged.values, best, strict=True)
        run.best = [torch.empty_like(value).copy_(kept) for value, kept in like]
    row_losses = saved.row("row_losses")
    run.best_row_losses = row_losses[0].to(run.device) if row_losses else None
    run.start = None
    run.best_loss, run.history = float(values["best_loss"]), History(**values["history"])
    run.state.step = int(values["step"])
    run.schedule.clock.advance(float(values["seconds"]))
    run.rounds_without_gain = int(values["rounds_without_gain"])
    run.best_round_loss = float(values["best_round_loss"])
    set_generator_states(saved.part("generators"), run.device)


def _moments(
    found: dict[str, Tensor], parameters: Sequence[nn.Parameter]
) -> dict[int, dict[str, Tensor]]:
    """AdamW's state by the number of the parameter. Looked at closely: a fused step reads as many
    numbers as the parameter has, whether the moment has them or not."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, moment in found.items():
        number, _, key = name.partition("/")
        shapes = {"step": torch.Size([]), "exp_avg": parameters[int(number)].shape}
        shapes["exp_avg_sq"] = shapes["exp_avg"]
        if moment.shape != shapes[key]:
            raise ValueError(f"{name} has shape {tuple(moment.shape)}, not {tuple(shapes[key])}")
        moments.setdefault(int(number), {})[key] = moment
    for i, state in moments.items():
        if len(state) < 3:
            raise KeyError(f"moments of parameter {i}")
    return moments
