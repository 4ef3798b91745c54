"""Language models compared with published results, and the speed of training and sampling.

    python benchmarks/text.py --data shared/data                       # all: about five hours
    python benchmarks/text.py --data shared/data --tasks ngram_tinyshakespeare training_speed
    python benchmarks/text.py --list

Plays of Shakespeare: networks learn windows of 256 characters of the first nine tenths. The last
tenth is one document, scored in windows that overlap by half. The n-gram learns blocks of lines.
Penn Treebank: a row is a sentence, whose end is a symbol; the transformer learns its characters in
windows too. Results in results/text.json are not computed again, so the script can be interrupted
and continued; ``--again`` repeats them.
"""

import argparse
import json
import os
import time

import torch
from _record import RESULTS, environment, interleaved, ratio
from torch.nn import functional as F

from densekit import NGram, RecurrentLanguageModel, TransformerLanguageModel, datasets
from densekit.distributions.sequence import TokenSequence
from densekit.metrics import bits_per_character, nats_per_character, perplexity

WINDOW = 256
BUDGET = {"max_steps": 10**7, "patience": None, "random_state": 0, "device": "cpu"}


def plays():
    """Blocks of lines of the first nine tenths, and the last tenth as one string."""
    data = datasets.load("tinyshakespeare")
    return [*data.train, *data.valid], "\n".join(data.test.for_scoring())


def windows(text):
    """A text split into strings of the length of a network's window."""
    return [text[i : i + WINDOW] for i in range(0, len(text), WINDOW)]


def timed(model, X):
    start = time.perf_counter()
    model.fit(X)
    return {"fit_seconds": round(time.perf_counter() - start, 1)}


def of(estimate):
    return {
        estimate.unit: round(estimate.value, 4),
        "standard_error": None
        if estimate.standard_error != estimate.standard_error
        else round(estimate.standard_error, 4),
    }


def tinyshakespeare(model, X, **how):
    _, test = plays()
    found = timed(model, X)
    return found | of(nats_per_character(model.score_documents([test], **how), [test]))


def ngram_tinyshakespeare():
    return tinyshakespeare(NGram(order=6), plays()[0], window=10_000, overlap=5)


def transformer_tinyshakespeare(minutes):
    X = windows("\n".join(plays()[0]))
    model = TransformerLanguageModel(max_time=60 * minutes, max_length=WINDOW, **BUDGET)
    return tinyshakespeare(model, X) | {"steps": model.n_iter_}


def ptb_characters(model):
    data = datasets.load("ptb_characters")
    test = data.test.for_scoring()
    found = timed(model, data.train)
    return found | of(bits_per_character(model.score_samples(test), test))


def transformer_ptb_characters():
    """Concatenated sentences, as in published results; a line feed ends each."""
    data = datasets.load("ptb_characters")
    test = ["\n".join(data.test.for_scoring())]
    model = TransformerLanguageModel(
        width=256, batch_size=16, max_time=3600, max_length=WINDOW, **BUDGET
    )
    found = timed(model, windows("\n".join(data.train)))
    scores = model.score_documents(test, overlap=3 * WINDOW // 4)
    return found | of(bits_per_character(scores, test)) | {"steps": model.n_iter_}


def ptb_characters_in_order():
    data = datasets.load("ptb_characters")
    test = data.test.for_scoring()
    model = RecurrentLanguageModel(
        width=512, n_layers=1, carry=True, batch_size=32, dropout=0.1, max_time=3600, **BUDGET
    )
    found = timed(model, data.train)
    return found | of(bits_per_character(model.score_in_order(test), test))


def ptb_words(model):
    data = datasets.load("ptb")
    test = data.test.for_scoring()
    found = timed(model, data.train)
    scores = getattr(model, "score_in_order", model.score_samples)(test)
    return found | of(perplexity(scores, model.n_tokens(test)))


def lstm():
    return RecurrentLanguageModel(
        tokens="word",
        width=256,
        n_layers=2,
        dropout=0.2,
        carry=True,
        batch_size=32,
        max_time=500,
        **BUDGET,
    )


def training_speed(steps=3, rounds=5):
    """Speed of the steps of ``fit`` compared with a bare loop over the same network."""
    X = windows("\n".join(plays()[0]))[:400]
    settings = {"max_length": WINDOW, "validation_fraction": 0.0, "ema_decay": 0.0}

    def ours(n):
        return TransformerLanguageModel(**settings, **BUDGET | {"max_steps": n}).fit(X)

    model = ours(1)
    events = model.codec_.encode(X)[0]
    size, net = model.batch_size, model._build(model.schema_, None).net
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.1, fused=True)

    def plain():
        for i in range(steps):
            x = events[size * i : size * (i + 1)]
            read = torch.cat([torch.ones_like(x[:, :1]), x[:, :-1]], 1)
            loss = F.cross_entropy(net(read), x.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    # The difference of two fits with different numbers of steps excludes the work before the first step.
    runs = {"one": lambda: ours(1), "ours": lambda: ours(1 + steps), "plain": plain}
    seconds = interleaved(runs, rounds)
    steps_alone = [b - a for a, b in zip(seconds["one"], seconds["ours"], strict=True)]
    seconds["ours"] = steps_alone
    tokens = steps * size * (WINDOW + 1)
    return {
        "ours_tokens_per_second": round(tokens / sorted(steps_alone)[rounds // 2]),
        "plain_tokens_per_second": round(tokens / sorted(seconds["plain"])[rounds // 2]),
        "ours_over_plain_seconds": round(ratio(seconds, "ours", "plain"), 3),
    }


class Uncached:
    """A model without a cache, which processes its whole string for every token."""

    def __init__(self, model):
        self.model, self.vocab_size, self.device = model, model.vocab_size, model.device

    def start(self, given):
        return self.model.start(given)[0], given

    def step(self, tokens, state):
        state = torch.cat([state, tokens[:, None]], 1)
        return self.model.start(state)[0], state

    def keep(self, state, rows):
        return state[rows]


class Endless(Uncached):
    """A model that never draws the end of a string, so all strings have the same length."""

    def __init__(self, model, cached):
        super().__init__(model)
        self.inner = model if cached else Uncached(model)

    def start(self, given):
        logits, state = self.inner.start(given)
        return logits.index_fill(1, torch.tensor([1]), -torch.inf), state

    def step(self, tokens, state):
        logits, state = self.inner.step(tokens, state)
        return logits.index_fill(1, torch.tensor([1]), -torch.inf), state

    def keep(self, state, rows):
        return self.inner.keep(state, rows)


def sampling_speed(n=64, length=256):
    """Seconds for 64 strings of 256 characters with and without the cache."""
    X = windows("\n".join(plays()[0]))[:400]
    model = TransformerLanguageModel(max_length=length, **BUDGET | {"max_steps": 1}).fit(X)
    seconds = {}
    for cached in (True, False):
        dist = TokenSequence(Endless(model.module_, cached), length)
        start = time.perf_counter()
        drawn = dist.sample((n,))
        seconds[cached] = time.perf_counter() - start
        assert (drawn != 0).all()
    return {
        "cached_seconds": round(seconds[True], 2),
        "uncached_seconds": round(seconds[False], 2),
        "times_faster": round(seconds[False] / seconds[True], 1),
    }


TASKS = {
    "ngram_tinyshakespeare": ngram_tinyshakespeare,
    "ngram_ptb_characters": lambda: ptb_characters(NGram(order=8)),
    "ngram_ptb_words": lambda: ptb_words(NGram(order=5, tokens="word")),
    "training_speed": training_speed,
    "sampling_speed": sampling_speed,
    "transformer_tinyshakespeare_10": lambda: transformer_tinyshakespeare(10),
    "transformer_tinyshakespeare_40": lambda: transformer_tinyshakespeare(40),
    "transformer_ptb_characters": transformer_ptb_characters,
    "lstm_ptb_characters": ptb_characters_in_order,
    "lstm_ptb_words": lambda: ptb_words(lstm()),
}
AT_MOST = {
    "ngram_tinyshakespeare": 1.52,
    "ngram_ptb_characters": 1.48,
    "ngram_ptb_words": 165,
    "training_speed": "within 5 %",
    "sampling_speed": "at least 8 times",
    "transformer_tinyshakespeare_10": 1.50,
    "transformer_tinyshakespeare_40": 1.46,
    "transformer_ptb_characters": 1.42,
    "lstm_ptb_characters": 1.42,
    "lstm_ptb_words": 150,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of data sets, by default DENSEKIT_DATA")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--threads", type=int, help="threads of torch, by default all cores")
    parser.add_argument("--again", action="store_true", help="repeat runs that have a result")
    parser.add_argument("--list", action="store_true", help="list the tasks and their goals")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name}: {AT_MOST[name]}" for name in TASKS))
        return
    if arguments.data:
        os.environ["DENSEKIT_DATA"] = os.path.abspath(arguments.data)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    path = RESULTS / "text.json"
    for name in arguments.tasks:
        table = json.loads(path.read_text()) if path.exists() else {}
        if name in table and not arguments.again:
            continue
        head = environment() | {"threads": torch.get_num_threads()}
        found = {"goal": AT_MOST[name]} | TASKS[name]() | {"environment": head}
        # Another process may have written to the file.
        table = json.loads(path.read_text()) if path.exists() else {}
        table[name] = found
        path.write_text(json.dumps(table, indent=1) + "\n")
        print(name, {k: v for k, v in table[name].items() if k != "environment"}, flush=True)


if __name__ == "__main__":
    main()
