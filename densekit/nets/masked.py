"""A masked autoregressive network on columns: features first, samples last."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densekit.nets.angles import readings
from densekit.nets.chain import Plan, chain, record, squash
from densekit.nets.mlp import activation_layer
from densekit.nets.residual import check_hidden, uniform_weight
from densekit.nets.triangular import stairs


class MaskedNet(nn.Module):
    r"""Gives each of D features parameters that depend on the features before it only.

    Germain, Gregor, Murray and Larochelle, MADE (2015). Every hidden unit has a degree m and sees
    the first m features of the order; a weight from a unit to one of smaller degree is masked out.
    Here the units of a layer are *sorted* by degree, so that each mask is a block triangle: to solve
    for the features one after another, :meth:`solve` needs each unit once, and a whole inverse
    costs about one forward pass where a network without order takes D.

    Parameters
    ----------
    n_features : int
        D.
    n_params : int
        P, numbers per feature.
    hidden_sizes : sequence of int
        Width of each hidden layer, one at least; any width serves any D. Neighboring layers of
        equal width are joined by a residual sum.
    n_context : int
        Number of context features C, seen by all.
    reverse : bool
        Take the features in reversed order.
    activation : str
        A name that :func:`densekit.nets.mlp.activation_layer` knows.
    dropout : float
        Probability with which a hidden unit is left out while training.
    angles : sequence of int
        Features that are half turns in [-1, 1), of which the net reads cosine and sine.
    reads : sequence of int, optional
        How many numbers stand for each feature in the input, one each where not given: a code that is
        read as a vector has several.
    direct : bool
        Connect each feature with those after it directly, too, beside the hidden layers.

    Notes
    -----
    Input (D, N), or (sum of reads, N), and context (C, N), output (P, D, N). The last layer starts
    at zero. The net reads its input through :func:`~densekit.nets.chain.squash`.

    Examples
    --------
    >>> net = MaskedNet(3, 2, (16, 16))
    >>> net(torch.ones(3, 10)).shape
    torch.Size([2, 3, 10])
    """

    order: Tensor
    arrival: Tensor

    def __init__(
        self,
        n_features: int,
        n_params: int,
        hidden_sizes: Sequence[int],
        n_context: int = 0,
        reverse: bool = False,
        activation: str = "silu",
        dropout: float = 0.0,
        angles: Sequence[int] = (),
        reads: Sequence[int] | None = None,
        direct: bool = False,
    ) -> None:
        super().__init__()
        check_hidden(hidden_sizes)
        D, self.n_params, self.dropout = n_features, n_params, dropout
        self.angles, self.reads = tuple(angles), [1] * D if reads is None else list(reads)
        place = torch.arange(D)
        order = place.flip(0) if reverse else place
        if reverse:
            place = place.flip(0)
        least = 0 if n_context or D == 1 else 1  # a unit that sees nothing would be a mere bias
        degrees = [least + torch.arange(h) * (D - least) // h for h in hidden_sizes]
        # The feature that each reading is of; one after another in the order of the features.
        owner = torch.arange(D).repeat_interleave(torch.tensor(self.reads))
        owner = torch.cat([owner, torch.tensor(self.angles, dtype=torch.long)])
        self.register_buffer("arrival", place[owner].argsort(stable=True), persistent=False)
        masks = [place[owner] < degrees[0][:, None]]
        masks += [b[:, None] >= a for a, b in itertools.pairwise(degrees)]
        masks += [place[:, None] >= degrees[-1]]
        # Derived from the arguments alone, so no part of the state.
        self.register_buffer("order", order, persistent=False)
        for i, mask in enumerate(masks):
            self.register_buffer(f"mask{i}", mask.float(), persistent=False)
        self._known = [
            torch.searchsorted(d, torch.arange(D), right=True).tolist() for d in degrees
        ]
        # What each row of a masked product reads: hidden units of its degree and less.
        self._stairs = [
            stairs(torch.searchsorted(a, b, right=True).tolist())
            for a, b in itertools.pairwise(degrees)
        ]
        known = [k for p in place.tolist() for k in [self._known[-1][p]] * n_params]
        self._last_stairs = stairs(known)

        self.name, self.activation = activation, activation_layer(activation, dropout)
        self._kept: Plan | None = None
        fan_in = [mask.sum(1, keepdim=True) for mask in masks[:-1]]
        fan_in[0] += n_context
        self.weights = nn.ParameterList(
            uniform_weight(len(fan), mask.shape[1], fan)
            for mask, fan in zip(masks, fan_in, strict=False)
        )
        self.bias = nn.ParameterList(uniform_weight(len(fan), 1, fan) for fan in fan_in)
        self.context = uniform_weight(hidden_sizes[0], n_context, fan_in[0])
        self.last = nn.Parameter(torch.zeros(n_params, D, hidden_sizes[-1]))
        self.last_bias = nn.Parameter(torch.zeros(n_params, D, 1))
        self.direct: nn.Parameter | None = None
        if direct:
            below = place[:, None] > place[owner]
            self.register_buffer("direct_mask", below.float(), persistent=False)
            self.direct = nn.Parameter(torch.zeros(n_params, D, len(owner)))

    def _masked(self) -> list[Tensor]:
        weights = [*self.weights, self.last]
        return [w * self.get_buffer(f"mask{i}") for i, w in enumerate(weights)]

    def _first_bias(self, context: Tensor | None) -> Tensor:
        if context is None:
            return self.bias[0]
        return torch.addmm(self.bias[0], self.context, squash(context))

    def _plan(self) -> Plan:
        """Of the network as it is: buffers move with it."""
        random, first = self.dropout > 0 and self.training, self.get_buffer("mask0")
        if self._kept is None or self._kept.random != random or self._kept.masks[0] is not first:
            masks = [self.get_buffer(f"mask{i}") for i in range(len(self.weights) + 1)]
            masks[-1] = masks[-1][:, None]
            steps = [None, *self._stairs, self._last_stairs]
            self._kept = Plan(self.name, self.activation, random, masks, steps)
        return self._kept

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Features (D, N) and context (C, N) to parameters (P, D, N).

        In memory the parameters of a feature lie together, (D, P, N): what they read makes stairs then.
        """
        _, *biases = self.bias
        biases = [self._first_bias(context), *biases, self.last_bias.transpose(0, 1)]
        x = readings(x, self.angles)
        out = chain(x, [*self.weights, self.last.transpose(0, 1)], biases, self._plan())
        if self.direct is not None:
            direct = (self.direct * self.get_buffer("direct_mask")).transpose(0, 1)
            out = out.addmm(direct.flatten(0, 1), squash(x))
        return out.view(len(out) // self.n_params, self.n_params, x.shape[1]).transpose(0, 1)

    def can_record(self) -> bool:
        """Whether :meth:`record` is available."""
        return self._plan().can_record() and self.direct is None and not self.angles

    def record(self, tape: Any, x: Any, context: Any = None) -> Any:
        """The network on a ``kernels.tape.Tape``: rows (D) and asinh of the context (C)
        to rows of which those of a feature lie together, (D P)."""
        weights, aside = [*self.weights, self.last], None
        if context is not None:
            aside = (self.context, context)
        biases = [*self.bias, self.last_bias]
        return record(tape, x, weights, biases, self._plan(), turned=True, aside=aside)

    def record_solve(
        self, tape: Any, step: Callable[[int, Any], Any], context: Any = None
    ) -> None:
        """The same as :meth:`solve` on a tape: ``step`` is called with the number of a feature and its
        parameters, rows (P), and returns the row that the feature was written to."""
        plan, D, P = self._plan(), len(self._known[0]), self.n_params
        *hidden, last = [
            tape.matrix(w, mask, turned=w is self.last)
            for w, mask in zip([*self.weights, self.last], plan.masks, strict=True)
        ]
        aside = None if context is None else tape.matrix(self.context)
        # Features that are not found yet are read as zero, by weights that are zero.
        read, raw = tape.zero(D, "kept"), tape.rows(D * P)
        sums, active = ([tape.rows(len(b)) for b in self.bias] for _ in range(2))
        done = [0] * len(hidden)
        for place, d in enumerate(self.order.tolist()):
            for i, (matrix, bias) in enumerate(zip(hidden, self.bias, strict=True)):
                first, stop = done[i], self._known[i][place]
                if first == stop:
                    continue
                below, reads = (active[i - 1], done[i - 1]) if i else (read, D)
                tape.some(matrix, first, stop, reads, below, sums[i], False)
                if i == 0 and aside is not None:
                    tape.some(aside, first, stop, context.n, context, sums[0], True)
                alike = i > 0 and sums[i].n == sums[i - 1].n
                residual = sums[i - 1] if alike else None
                tape.activate_some(self.name, sums[i], bias, residual, active[i], first, stop)
                done[i] = stop
            own = range(d * P, (d + 1) * P)
            tape.fill(self.last_bias, own.start, own.stop, True, raw)
            if done[-1]:
                tape.some(last, own.start, own.stop, done[-1], active[-1], raw, True)
            tape.asinh(step(d, raw.part(own.start, P)), into=read.part(d, 1))

    def solve(
        self,
        step: Callable[[int, Tensor], Tensor],
        n: int,
        context: Tensor | None = None,
        read: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Features (D, n) found one after another.

        ``step(d, parameters)`` is called in the order of the features with the parameters (P, n)
        of feature d and returns that feature, (n,); ``read(d, feature)`` gives the numbers that
        stand for it in the input, (reads[d], n), where that is not the feature itself. Gradients
        flow where they are wanted.
        """
        first, *hidden, last = self._masked()
        order = self.order.tolist()
        first = first[:, self.arrival]
        direct = None if self.direct is None else self.direct[..., self.arrival]
        bias = self._first_bias(context)
        x = _Growing(first.shape[1], n, first)
        layers = [_Growing(len(b), n, first) for b in self.bias]  # before their activation
        active = [_Growing(len(b), n, first) for b in self.bias]
        found = []
        for place, d in enumerate(order):
            for i, layer in enumerate(layers):
                new = slice(len(layer), self._known[i][place])
                if new.start == new.stop:
                    continue
                if i == 0:
                    h = torch.addmm(bias[new], first[new, : len(x)], x.rows)
                else:
                    below = active[i - 1].rows
                    h = torch.addmm(self.bias[i][new], hidden[i - 1][new, : len(below)], below)
                    if len(self.bias[i]) == len(self.bias[i - 1]):
                        h = h + layers[i - 1].rows[new]
                layer.append(h)
                active[i].append(self.activation(h))
            top = active[-1].rows
            raw = torch.addmm(self.last_bias[:, d], last[:, d, : len(top)], top)
            if direct is not None:
                raw = raw.addmm(direct[:, d, : len(x)], x.rows)
            found.append(step(d, raw))
            if place + 1 < len(order):
                if read is None:
                    reading = readings(found[-1][None], (0,) if d in self.angles else ())
                else:
                    reading = read(d, found[-1])
                x.append(squash(reading))
        return torch.stack([found[p] for p in self.order.argsort().tolist()])


class _Growing:
    """Rows that arrive block by block: written in place, or joined where autograd looks on."""

    def __init__(self, n_rows: int, n: int, like: Tensor) -> None:
        self.whole = None if torch.is_grad_enabled() else like.new_empty(n_rows, n)
        self.rows = like.new_empty(0, n)

    def __len__(self) -> int:
        return self.rows.shape[0]

    def append(self, block: Tensor) -> None:
        if self.whole is None:
            self.rows = torch.cat([self.rows, block])
        else:
            start, stop = len(self), len(self) + len(block)
            self.whole[start:stop] = block
            self.rows = self.whole[:stop]
