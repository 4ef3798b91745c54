"""A masked autoregressive network on columns: features first, samples last."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densekit.nets.angles import expand_angles
from densekit.nets.chain import Plan, chain, record, squash
from densekit.nets.mlp import activation_layer
from densekit.nets.residual import check_hidden, uniform_weight
from densekit.nets.triangular import stairs


class MaskedNet(nn.Module):
    """A network that computes parameters of each of D features from the features before it.

    Every hidden unit has a degree m and sees the first m features; weights from a unit to one of
    smaller degree are masked out. Here the units of a layer are *sorted* by degree, so that each
    mask is a block triangle. Computing the features one after another (:meth:`solve`) then
    evaluates each unit once, which costs about one forward pass; a network with unsorted units
    takes D passes.

    Parameters
    ----------
    n_features : int
        D.
    n_params : int
        Number of parameters P per feature.
    hidden_sizes : sequence of int
        Width of each hidden layer, at least one layer; any width works for any D. Consecutive
        layers of equal width have residual connections.
    n_context : int
        Number of context features C, which all units see.
    reverse : bool
        Reverse the order of the features.
    activation : str
        Activation, see :func:`densekit.nets.mlp.activation_layer`.
    dropout : float
        Probability with which training drops a hidden unit.
    angles : sequence of int
        Features that are half turns in [-1, 1), of which the network reads cosine and sine.
    reads : sequence of int, optional
        Number of inputs per feature, one by default: a code that is read as a vector has several.
    direct : bool
        Add direct connections from each feature to the parameters of those after it.

    Notes
    -----
    Input (D, N), or (sum of reads, N), and context (C, N); output (P, D, N). The last layer starts
    at zero. Inputs pass through :func:`~densekit.nets.chain.squash`.

    References
    ----------
    M. Germain, K. Gregor, I. Murray and H. Larochelle. MADE: Masked Autoencoder for Distribution
    Estimation. ICML 2015. https://arxiv.org/abs/1502.03509

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
        position = torch.arange(D)
        order = position.flip(0) if reverse else position
        if reverse:
            position = position.flip(0)
        # Without a context a unit of degree 0 would see nothing and be a constant.
        least = 0 if n_context or D == 1 else 1
        degrees = [least + torch.arange(h) * (D - least) // h for h in hidden_sizes]
        # The feature that each input belongs to, in the order of the features.
        owner = torch.arange(D).repeat_interleave(torch.tensor(self.reads))
        owner = torch.cat([owner, torch.tensor(self.angles, dtype=torch.long)])
        self.register_buffer("arrival", position[owner].argsort(stable=True), persistent=False)
        masks = [position[owner] < degrees[0][:, None]]
        masks += [b[:, None] >= a for a, b in itertools.pairwise(degrees)]
        masks += [position[:, None] >= degrees[-1]]
        # These buffers follow from the arguments and are not part of the state.
        self.register_buffer("order", order, persistent=False)
        for i, mask in enumerate(masks):
            self.register_buffer(f"mask{i}", mask.float(), persistent=False)
        self._set_stairs(degrees, position)
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
            below = position[:, None] > position[owner]
            self.register_buffer("direct_mask", below.float(), persistent=False)
            self.direct = nn.Parameter(torch.zeros(n_params, D, len(owner)))

    def _set_stairs(self, degrees: list[Tensor], position: Tensor) -> None:
        """Find which columns each row of a masked product uses: hidden units of at most its degree."""
        places = torch.arange(len(position))
        self._known = [torch.searchsorted(d, places, right=True).tolist() for d in degrees]
        self._stairs = [
            stairs(torch.searchsorted(a, b, right=True).tolist())
            for a, b in itertools.pairwise(degrees)
        ]
        known = [k for p in position.tolist() for k in [self._known[-1][p]] * self.n_params]
        self._last_stairs = stairs(known)

    def _masked(self) -> list[Tensor]:
        weights = [*self.weights, self.last]
        return [w * self.get_buffer(f"mask{i}") for i, w in enumerate(weights)]

    def _first_bias(self, context: Tensor | None) -> Tensor:
        if context is None:
            return self.bias[0]
        return torch.addmm(self.bias[0], self.context, squash(context))

    def _plan(self) -> Plan:
        """The plan of the network in its current state, since buffers may move to another device."""
        random, first = self.dropout > 0 and self.training, self.get_buffer("mask0")
        if self._kept is None or self._kept.random != random or self._kept.masks[0] is not first:
            masks = [self.get_buffer(f"mask{i}") for i in range(len(self.weights) + 1)]
            masks[-1] = masks[-1][:, None]
            steps = [None, *self._stairs, self._last_stairs]
            self._kept = Plan(self.name, self.activation, random, masks, steps)
        return self._kept

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Features (D, N) and context (C, N) to parameters (P, D, N).

        In memory the parameters of a feature are adjacent, (D, P, N), so that the last mask is a
        block triangle.
        """
        _, *biases = self.bias
        biases = [self._first_bias(context), *biases, self.last_bias.transpose(0, 1)]
        x = expand_angles(x, self.angles)
        out = chain(x, [*self.weights, self.last.transpose(0, 1)], biases, self._plan())
        if self.direct is not None:
            direct = (self.direct * self.get_buffer("direct_mask")).transpose(0, 1)
            out = out.addmm(direct.flatten(0, 1), squash(x))
        return out.view(len(out) // self.n_params, self.n_params, x.shape[1]).transpose(0, 1)

    def can_record(self) -> bool:
        """Whether :meth:`record` is available."""
        return self._plan().can_record() and self.direct is None and not self.angles

    def record(self, tape: Any, x: Any, context: Any = None) -> Any:
        """Record the network on a ``kernels.tape.Tape``.

        Maps rows (D) and asinh of the context (C) to rows (D P), in which those of a feature are
        adjacent.
        """
        weights, side_product = [*self.weights, self.last], None
        if context is not None:
            side_product = (self.context, context)
        biases = [*self.bias, self.last_bias]
        return record(
            tape, x, weights, biases, self._plan(), transposed=True, side_product=side_product
        )

    def record_solve(
        self, tape: Any, step: Callable[[int, Any], Any], context: Any = None
    ) -> None:
        """Record :meth:`solve` on a tape.

        ``step`` takes the number of a feature and its parameters, rows (P), and returns the row of
        the feature.
        """
        plan, D, P = self._plan(), len(self._known[0]), self.n_params
        *hidden, last = [
            tape.matrix(w, mask, transposed=w is self.last)
            for w, mask in zip([*self.weights, self.last], plan.masks, strict=True)
        ]
        side_product = None if context is None else tape.matrix(self.context)
        # Features that are not computed yet are zero, and their weights are zero as well.
        read, raw = tape.zero(D, "kept"), tape.rows(D * P)
        sums, active = ([tape.rows(len(b)) for b in self.bias] for _ in range(2))
        done = [0] * len(hidden)
        for position, d in enumerate(self.order.tolist()):
            for i, (matrix, bias) in enumerate(zip(hidden, self.bias, strict=True)):
                first, stop = done[i], self._known[i][position]
                if first == stop:
                    continue
                below, reads = (active[i - 1], done[i - 1]) if i else (read, D)
                tape.partial_product(matrix, first, stop, reads, below, sums[i], False)
                if i == 0 and side_product is not None:
                    tape.partial_product(
                        side_product, first, stop, context.n, context, sums[0], True
                    )
                same_width = i > 0 and sums[i].n == sums[i - 1].n
                residual = sums[i - 1] if same_width else None
                tape.partial_activate(self.name, sums[i], bias, residual, active[i], first, stop)
                done[i] = stop
            own = range(d * P, (d + 1) * P)
            tape.fill(self.last_bias, own.start, own.stop, True, raw)
            if done[-1]:
                tape.partial_product(last, own.start, own.stop, done[-1], active[-1], raw, True)
            tape.asinh(step(d, raw.part(own.start, P)), into=read.part(d, 1))

    def solve(
        self,
        step: Callable[[int, Tensor], Tensor],
        n: int,
        context: Tensor | None = None,
        read: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Compute features (D, n) one after another.

        ``step(d, parameters)`` is called in the order of the features; it takes the parameters (P,
        n) of feature d and returns the feature, (n,). ``read(d, feature)`` returns its inputs,
        (reads[d], n), if these are not the feature itself. The result is differentiable.
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
        for position, d in enumerate(order):
            for i, layer in enumerate(layers):
                new = slice(len(layer), self._known[i][position])
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
            if position + 1 < len(order):
                if read is None:
                    inputs = expand_angles(found[-1][None], (0,) if d in self.angles else ())
                else:
                    inputs = read(d, found[-1])
                x.append(squash(inputs))
        return torch.stack([found[p] for p in self.order.argsort().tolist()])


class _Growing:
    """Rows that are appended block by block: in place, or by concatenation if gradients are needed."""

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
