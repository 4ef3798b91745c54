"""A recurrent language model."""

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

_RESET_PROBABILITY = 0.1
"""Probability that a carried state is reset, so that the model also learns strings without a
predecessor.
"""


class _StatefulNet(NextTokenNet):
    """A network that keeps, in training, the state at the end of the previous batch."""

    carried: State | None = None


class RecurrentLanguageModel(LanguageModel, NeuralTokenModel):
    r"""A recurrent language model of LSTM or GRU cells.

    .. math:: \log P(x) = \sum_{t=1}^{T} \log \operatorname{softmax}(E\, h_t + b)_{x_t},
              \qquad h_t, s_t = \text{cells}(E_{x_{t-1}}, s_{t-1}), \qquad x_T = \text{end}

    One matrix E both embeds tokens and computes logits, and dropout is variational.
    ``score_samples`` is the exact log-probability of each string in nats, including the end of the
    string; the probabilities of all strings of at most ``max_length`` tokens sum to one. Sampling
    keeps the state s, whose size does not depend on the length, and computes one token per step.

    X is a list or Series of strings, one per sample. With ``carry`` the rows are consecutive
    windows of one text, separated by the end symbol (a line feed, for example). Training then does
    not shuffle rows, starts each row with the state at the end of the row before it, and truncates
    gradients there (truncated backpropagation through time). The score of a string is still that
    of the string alone; ``score_in_order`` scores consecutive rows, as papers on the Penn Treebank
    do. Prompts work as in :class:`TransformerLanguageModel`.

    Parameters
    ----------
    cell : {"lstm", "gru"}
        Type of the recurrent cells.
    width : int
        Width of all layers.
    n_layers : int
        Number of layers.
    dropout : float
        Probability with which training drops an entry between layers, at all positions of a
        string.
    tied : bool
        Whether one matrix embeds tokens and computes logits.
    carry : bool
        Whether rows are consecutive. Checkpoints do not hold the carried states, so ``carry``
        excludes ``checkpoint_dir``.

    Raises
    ------
    ValueError
        In ``fit``, if both ``carry`` and ``checkpoint_dir`` are set.

    Notes
    -----
    Without a budget, training takes 3000 steps.

    References
    ----------
    T. Mikolov, M. Karafiát, L. Burget, J. Cernocký and S. Khudanpur. Recurrent Neural Network
    Based Language Model. Interspeech 2010. https://doi.org/10.21437/Interspeech.2010-343

    W. Zaremba, I. Sutskever and O. Vinyals. Recurrent Neural Network Regularization. 2014.
    https://arxiv.org/abs/1409.2329

    Y. Gal and Z. Ghahramani. A Theoretically Grounded Application of Dropout in Recurrent Neural
    Networks. NeurIPS 2016. https://arxiv.org/abs/1512.05287

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
        """Log-probability of each string given all strings before it in X.

        The state is carried from one string to the next, as in a fit with ``carry``. The sum over
        X is the log-probability of the whole text, with an end symbol after each string.

        Parameters
        ----------
        X : list, Series or array of str
            Strings of any length.

        Returns
        -------
        ndarray of shape (n,)
            Log-probabilities in nats.

        Raises
        ------
        TypeError, ValueError
            If X is not valid input of ``score_samples``.

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
                log_probs = net.to_logits(hidden).log_softmax(-1)
                logp.append(log_probs.gather(1, x.unsqueeze(1)).sum().cpu())
        return (torch.stack(logp).double() + ladj).numpy().astype(self.dtype_)

    @property
    def _in_order(self) -> bool:
        return self.carry

    def _loss(self, module: nn.Module, events: Tensor, context: Tensor | None) -> Tensor:
        if not (self.carry and module.training):
            return super()._loss(module, events, context)
        assert isinstance(module, _StatefulNet)
        given = begin(events[:, :0] if context is None else context)
        state = module.carried
        if state is not None and len(state.layers[0][0]) != len(events):
            state = None
        if state is not None:
            state = state.forget(
                torch.rand(len(events), device=events.device) < _RESET_PROBABILITY
            )
        logp, new_state = module.log_probs_and_state(given, events, state)
        module.carried = new_state.detach()
        return -logp.sum(1)

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        if self.carry and self.checkpoint_dir is not None:
            raise ValueError(
                f"checkpoint_dir={self.checkpoint_dir!r} with carry=True: a checkpoint does not "
                "hold the carried states, so a resumed fit would differ from an uninterrupted one; "
                "set carry=False or checkpoint_dir=None"
            )
        net = Recurrent(
            schema.vocab_size, self.width, self.n_layers, self.cell, self.dropout, self.tied
        )
        return _StatefulNet(net, schema.vocab_size, schema.event_shape[0] - 1)
