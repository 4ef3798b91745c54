"""One optimizer step: a batch, its loss for each player, gradients, and AdamW."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densekit.few_rows import Noise
from densekit.processes import Group
from densekit.training.batches import Batches
from densekit.training.held_out import average
from densekit.training.objective import Options, Player


class Steps:
    """The optimizers of a run, one for each player.

    Parameters
    ----------
    module, players, batches, options, seed, group, noise
        Those of the run.
    """

    def __init__(
        self,
        module: nn.Module,
        players: Sequence[Player],
        batches: Batches,
        options: Options,
        seed: int,
        group: Group,
        noise: Noise | None,
    ):
        self.module, self.players, self.batches, self.options = module, players, batches, options
        self.seed, self.group, self.noise = seed, group, noise
        self.device = players[0].parameters[0].device
        self.optimizers = [self._optimizer(player) for player in players]
        self.losses = [torch.compile(p.loss) if options.compile else p.loss for p in players]
        self.total = torch.zeros((), device=self.device)
        """Sum of the losses of all players since the last :meth:`mean_loss`."""

    def _optimizer(self, player: Player) -> torch.optim.Optimizer:
        options = self.options
        return torch.optim.AdamW(
            player.parameters,
            lr=torch.tensor(0.0) if options.compile else 0.0,
            betas=player.betas,
            weight_decay=options.weight_decay,
            fused=True,
        )

    def rate_of(self, player: Player, rate: float) -> float:
        """The learning rate of a player at a share ``rate`` of the full one."""
        return rate * (player.learning_rate or self.options.learning_rate)

    def take(self, index: Tensor, step: int, rate: float, done: float) -> Player | None:
        """Make the step after ``step`` others on the rows of ``index``.

        Parameters
        ----------
        index : (n,)
        step : int
        rate : float
            Share of the full learning rate.
        done : float
            Share of the budget that is spent; only the noise on rows depends on it.

        Returns
        -------
        Player or None
            The player whose loss was not finite, and whose weights then stay as they were. On a GPU,
            where looking at a loss would wait for it, always None: there the round's mean is checked.
        """
        share = self.group.share(index)
        events, context = self.batches.take(share)
        if self.noise is not None:
            events = self.noise(events, done, self._draws(index, events, step))
        for player, optimizer, loss_of in zip(
            self.players, self.optimizers, self.losses, strict=True
        ):
            if len(self.players) > 1:
                for other in self.players:
                    for p in other.parameters:
                        p.requires_grad_(other is player)
            for group in optimizer.param_groups:
                group["lr"] = self.rate_of(player, rate)
            with torch.autocast(
                self.device.type, dtype=torch.bfloat16, enabled=self.options.mixed_precision
            ):
                losses = loss_of(self.module, events, context)
                loss, total = self._mean(player, losses, events, share)
            loss.backward()
            loss = self.group.mean_gradients(player.parameters, loss, total)
            if self.device.type == "cpu" and not math.isfinite(loss.item()):
                optimizer.zero_grad(set_to_none=True)
                return player
            if self.options.gradient_clip is not None:
                self._clip(player.parameters, self.options.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self.total += loss
        return None

    def mean_loss(self, steps: int) -> float:
        """The mean loss of the last ``steps`` steps."""
        mean = float(self.total) / steps
        self.total.zero_()
        return mean

    def _draws(self, index: Tensor, events: Tensor, step: int) -> Tensor:
        """Standard normal draws for this process' part of a batch, the same however many share it."""
        seed = (self.seed + 1_000_003 * (step + 1)) % 2**63
        generator = torch.Generator().manual_seed(seed)
        whole = torch.randn(len(index), *events.shape[1:], generator=generator)
        return whole[self.group.share(torch.arange(len(index)))].to(events)

    def _mean(
        self, player: Player, losses: Tensor, events: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mean loss of the rows of ``index``, and what it counts for."""
        if losses.shape != (len(index),):
            raise TypeError(
                f"the loss of {player.name!r} has shape {tuple(losses.shape)}: it must be one number "
                f"per row, of shape ({len(index)},)"
            )
        size = None if player.size is None else player.size(events)
        return average(losses, self.batches.weights(index), size)

    def _clip(self, parameters: Sequence[nn.Parameter], largest: float) -> None:
        """Scale the gradients down to a norm of ``largest`` at most."""
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        # On a CPU a look at the norm costs nothing, and most steps need no scaling.
        if self.device.type != "cpu" or not norm <= largest:
            nn.utils.clip_grads_with_norm_(parameters, largest, norm, foreach=True)

    def describe_failure(self, player: Player, step: int, rate: float) -> str:
        """What to say of a loss that was not finite after ``step`` steps."""
        names = {id(p): name for name, p in self.module.named_parameters()}
        bad = [names.get(id(p), "?") for p in player.parameters if not torch.isfinite(p).all()]
        culprits = f"; non-finite weights in {', '.join(bad[:3])}" if bad else ""
        return (
            f"the loss of {player.name!r} was not finite at step {step + 1} (learning rate "
            f"{self.rate_of(player, rate):.3g}{culprits}); likely a learning rate that is too high or "
            "an extreme row: lower learning_rate, lower gradient_clip, or look for outliers"
        )
