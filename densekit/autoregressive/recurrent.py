"""A recurrent network over tokens: the mass of a string by the chain rule."""

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from densekit import codecs
from densekit.autoregressive.language import LanguageModel, NeuralTokenModel, NextTokenNet
from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.sequence import END, begin
from densekit.nets.recurrent import Recurrent, State
from densekit.params import Interval, OneOf

_FORGETS = 0.1
"""Share of carried states that begin anew, so that strings that stand alone are known too."""


class _Carrying(NextTokenNet):
    """The network, and in training the state after the batch before."""

    carried: State | None = None


class RecurrentLanguageModel(LanguageModel, NeuralTokenModel):
    r"""A recurrent language model (Mikolov et al. 2010; Zaremba et al. 2014).

    .. math:: \log P(x) = \sum_{t=1}^{T} \log \operatorname{softmax}(E\, h_t + b)_{x_t},
              \qquad h_t, s_t = \text{cells}(E_{x_{t-1}}, s_{t-1}), \qquad x_T = \text{end}

    with LSTM or GRU cells, one matrix E that reads and writes tokens, and variational dropout (Gal
    and Ghahramani 2016). ``score_samples`` is the exact log-mass of each string in nats, end of
    string included; the masses of all strings of at most ``max_length`` tokens sum to one. Sampling
    keeps the state s and reads one token per step, whatever the length.

    Text goes in as a list or Series of strings, one sample each. With ``carry`` the rows are windows
    of one text, in order, and its end symbol is what stands between them (a line feed, say): rows
    are not shuffled, each begins with the state in which the row before it ended, and gradients stop
    there (truncated back-propagation through time). The score of a string is still that of a string
    alone; ``score_in_order`` scores rows that follow each other, as papers on the Penn Treebank
    do. Prompts need no special fit: see :class:`TransformerLanguageModel`.

    Parameters
    ----------
    cell : {"lstm", "gru"}
        What a layer is made of.
    width : int
        Width of all layers.
    n_layers : int
        How many there are.
    dropout : float
        Probability that an entry between layers is dropped in training, at all places of a string.
    tied : bool
        Whether one matrix reads and writes tokens.
    carry : bool
        Whether rows follow each other. Such a fit has no checkpoints, which do not hold its states.
    max_steps : int, optional
        None takes 3000 steps, unless ``max_epochs`` or ``max_time`` is given.

    Raises
    ------
    ValueError
        ``carry`` with a ``checkpoint_dir``, in ``fit``.

    Examples
    --------
    >>> from densekit import RecurrentLanguageModel
    >>> model = RecurrentLanguageModel(width=8, n_layers=1, max_steps=5)
    >>> model.fit(["abba", "baab", "abab", "bb"] * 5).score_samples(["ab", "ba"]).shape
    (2,)
    >>> len(model.sample(2, context="ab", random_state=0))
    2
    """

    cell: Annotated[str, OneOf("lstm", "gru")] = "lstm"
    width: Annotated[int, Interval(ge=1)] = 256
    n_layers: Annotated[int, Interval(ge=1)] = 2
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    tied: bool = True
    carry: bool = False
    batch_size: Annotated[int, Interval(ge=1)] = 16
    learning_rate: Annotated[float, Interval(gt=0)] = 3e-3

    _default_steps: ClassVar[int] = 3000
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="typed",
        modalities=("text",),
        context="prompt",
        flat=False,
        weights=True,
    )

    def score_in_order(self, X: Any) -> np.ndarray:
        """Log-mass of each string given all that come before it in X, in nats, (n,).

        The state is carried from one to the next, as in a fit with ``carry``; the sum over X is the
        log-mass of the whole text, each string closed by its end.

        Parameters
        ----------
        X : list, Series or array of str
            Of any length each.

        Raises
        ------
        TypeError, ValueError
            X as in ``score_samples``.

        Examples
        --------
        >>> from densekit import RecurrentLanguageModel
        >>> lines = ["abba", "baab", "abab", "bb"] * 5
        >>> model = RecurrentLanguageModel(width=8, n_layers=1, carry=True, max_steps=5).fit(lines)
        >>> model.score_in_order(["ab", "ba"]).shape
        (2,)
        """
        self._check_fitted()
        rows, ladj = self.codec_.documents(codecs.for_scoring(X))
        net, state, logp = self.module_.net, None, []
        with torch.no_grad():
            for row in rows:
                x = row.to(self.device_)
                hidden, state = net.hidden(torch.cat([x.new_tensor([END]), x[:-1]])[None], state)
                ahead = net.write(hidden).log_softmax(-1)
                logp.append(ahead.gather(1, x.unsqueeze(1)).sum().cpu())
        return (torch.stack(logp).double() + ladj).numpy().astype(self.dtype_)

    @property
    def _in_order(self) -> bool:
        return self.carry

    def _loss(self, module: nn.Module, events: Tensor, context: Tensor | None) -> Tensor:
        if not (self.carry and module.training):
            return super()._loss(module, events, context)
        assert isinstance(module, _Carrying)
        given = begin(events[:, :0] if context is None else context)
        before = module.carried
        if before is not None and len(before.layers[0][0]) != len(events):
            before = None
        if before is not None:
            before = before.forget(torch.rand(len(events), device=events.device) < _FORGETS)
        logp, after = module.read(given, events, before)
        module.carried = after.detach()
        return -logp.sum(1)

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        if self.carry and self.checkpoint_dir is not None:
            raise ValueError(
                f"checkpoint_dir={self.checkpoint_dir!r} with carry=True: a checkpoint does not "
                "hold the carried states, and a fit that goes on from it would end elsewhere; set "
                "carry=False or checkpoint_dir=None"
            )
        net = Recurrent(
            schema.vocab_size, self.width, self.n_layers, self.cell, self.dropout, self.tied
        )
        return _Carrying(net, schema.vocab_size, schema.event_shape[0] - 1)
