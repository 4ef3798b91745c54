"""A masked autoregressive network on columns: features first, samples last."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from densekit.nets.mlp import activation_layer
from densekit.nets.residual import check_hidden, squash, uniform_weight
from densekit.nets.triangular import masked_product, stairs


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
        Width of each hidden layer, one at least; any width serves any D. Neighbouring layers of
        equal width are joined by a residual sum.
    n_context : int
        Number of context features C, seen by all.
    reverse : bool
        Take the features in reversed order.
    activation : str
        A name that :func:`densekit.nets.mlp.activation_layer` knows.
    dropout : float
        Probability with which a hidden unit is left out while training.
    reads : sequence of int, optional
        How many numbers stand for each feature in the input, one each where not given: a code that is
        read as a vector has several.
    direct : bool
        Connect each feature with those after it directly, too, beside the hidden layers.

    Notes
    -----
    Input (D, N), or (sum of reads, N), and context (C, N), output (P, D, N). The last layer starts
    at zero. The net reads its input through :func:`~densekit.nets.residual.squash`.

    Examples
    --------
    >>> net = MaskedNet(3, 2, (16, 16))
    >>> net(torch.ones(3, 10)).shape
    torch.Size([2, 3, 10])
    """

    order: Tensor

    def __init__(
        self,
        n_features: int,
        n_params: int,
        hidden_sizes: Sequence[int],
        n_context: int = 0,
        reverse: bool = False,
        activation: str = "silu",
        dropout: float = 0.0,
        reads: Sequence[int] | None = None,
        direct: bool = False,
    ) -> None:
        super().__init__()
        check_hidden(hidden_sizes)
        D, self.n_params = n_features, n_params
        self.reads = [1] * D if reads is None else list(reads)
        place = torch.arange(D)
        order = place.flip(0) if reverse else place
        if reverse:
            place = place.flip(0)
        least = 0 if n_context or D == 1 else 1  # a unit that sees nothing would be a mere bias
        degrees = [least + torch.arange(h) * (D - least) // h for h in hidden_sizes]
        masks = [(place < degrees[0][:, None]).repeat_interleave(torch.tensor(self.reads), 1)]
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

        self.activation = activation_layer(activation, dropout)
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
            below = place[:, None] > place
            below = below.repeat_interleave(torch.tensor(self.reads), 1)
            self.register_buffer("direct_mask", below.float(), persistent=False)
            self.direct = nn.Parameter(torch.zeros(n_params, D, sum(self.reads)))

    def _masked(self) -> list[Tensor]:
        weights = [*self.weights, self.last]
        return [w * self.get_buffer(f"mask{i}") for i, w in enumerate(weights)]

    def _first_bias(self, context: Tensor | None) -> Tensor:
        if context is None:
            return self.bias[0]
        return torch.addmm(self.bias[0], self.context, squash(context))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Features (D, N) and context (C, N) to parameters (P, D, N).

        In memory the parameters of a feature lie together, (D, P, N): what they read makes stairs then.
        """
        masks = [self.get_buffer(f"mask{i}") for i in range(len(self.weights) + 1)]
        read = squash(x)
        h = torch.addmm(self._first_bias(context), self.weights[0] * masks[0], read)
        for weight, bias, mask, steps in zip(
            list(self.weights)[1:], list(self.bias)[1:], masks[1:-1], self._stairs, strict=True
        ):
            step = masked_product(self.activation(h), weight, bias, mask, steps)
            h = h + step if h.shape == step.shape else step
        bias = self.last_bias.transpose(0, 1).flatten(0, 1)
        out = masked_product(
            self.activation(h),
            self.last.transpose(0, 1),
            bias,
            masks[-1][:, None],
            self._last_stairs,
        )
        if self.direct is not None:
            direct = (self.direct * self.get_buffer("direct_mask")).transpose(0, 1)
            out = out.addmm(direct.flatten(0, 1), read)
        return out.view(-1, self.n_params, x.shape[1]).transpose(0, 1)

    def _in_order(self, weight: Tensor) -> Tensor:
        """The columns of a weight that reads the input, by the order of the features."""
        parts = weight.split(self.reads, -1)
        return torch.cat([parts[d] for d in self.order.tolist()], -1)

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
        first = self._in_order(first)
        direct = None if self.direct is None else self._in_order(self.direct)
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
                x.append(squash(found[-1][None] if read is None else read(d, found[-1])))
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
