"""The training loop: objective, stopping, and selection of weights."""

import itertools
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from densekit import clock
from densekit.kernels import compiled
from densekit.training import Batches, Player, gain, train


def options(**changes):
    base = {
        "max_epochs": None,
        "max_steps": 300,
        "max_time": None,
        "batch_size": 32,
        "learning_rate": 0.05,
        "weight_decay": 0.0,
        "gradient_clip": None,
        "warmup": 0.05,
        "ema_decay": 0.9,
        "validation_fraction": 0.2,
        "patience": None,
        "mixed_precision": False,
        "compile": False,
        "callbacks": (),
    }
    return SimpleNamespace(**{**base, **changes})


class Mean(nn.Module):
    """One parameter per column; the squared loss has the mean of the rows as its optimum."""

    def __init__(self, d=2):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(d, dtype=torch.float64))


def squared(module, events, context):
    return (events - module.loc).square().sum(-1)


def rows(n=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator, dtype=torch.float64) + torch.tensor([3.0, -1.0])


def run(loss=squared, events=None, module=None, default_steps=2000, **changes):
    module = module or Mean()
    o = options(**changes)
    events = rows() if events is None else events
    batches = Batches(events, None, lambda t: t, validation_fraction=o.validation_fraction, seed=5)
    players = [Player("model", list(module.parameters()), loss)]
    history = train(module, players, batches, o, seed=5, default_steps=default_steps)
    return module, history, batches


def test_the_optimum_of_a_quadratic_is_found():
    events = rows()
    module, history, _ = run(events=events, validation_fraction=0.0, batch_size=200)
    assert torch.allclose(module.loc, events.mean(0), atol=0.02)
    assert history.stop_reason == "all 300 steps are done"
    assert history.step[-1] == 300


def test_every_epoch_is_a_permutation_and_a_function_of_seed_and_epoch():
    def first_two_epochs():
        batches = Batches(rows(64), None, lambda t: t, validation_fraction=0.25, seed=9)
        stream = batches.epochs(12)
        return [torch.cat([next(stream) for _ in range(4)]) for _ in range(2)], batches

    (one, two), batches = first_two_epochs()
    again, _ = first_two_epochs()
    held_out = torch.cat(list(batches.held_out(batches.n_valid, 5)))
    assert sorted(one.tolist() + held_out.tolist()) == list(range(64))
    assert sorted(two.tolist()) == sorted(one.tolist())
    assert one.tolist() != two.tolist()
    assert torch.equal(one, again[0])
    assert torch.equal(two, again[1])


def test_index_batches_go_on_from_any_place():
    batches = Batches(rows(64), None, lambda t: t, validation_fraction=0.25, seed=9)
    whole = batches.epochs(10)
    taken = [next(whole) for _ in range(11)]
    for done in range(10):
        assert torch.equal(next(batches.epochs(10, done)), taken[done])


def test_a_constant_learning_rate_neither_warms_up_nor_decays():
    """AdamW's step on a constant gradient is the learning rate: 20 of them in all."""

    def linear(module, events, context):
        return -module.loc.sum().expand(len(events))

    module, batches = Mean(), Batches(rows(), None, lambda t: t, validation_fraction=0.0, seed=5)
    o = options(learning_rate=0.01, max_steps=20, ema_decay=0.0)
    player = Player("model", [module.loc], linear)
    history = train(module, [player], batches, o, seed=5, constant=True)
    assert module.loc[0].item() == pytest.approx(0.2, rel=1e-4)
    assert set(history.learning_rate) == {0.01}


@pytest.mark.parametrize("steps", [1, 2, 5, 19])
def test_a_short_run_never_exceeds_its_learning_rate(steps):
    # A step of Adam is the learning rate long, wherever the gradient has one sign.
    start = run(max_steps=steps, learning_rate=1e-12)[0].loc.detach()
    module, *_ = run(max_steps=steps, warmup=0.05, learning_rate=0.01, ema_decay=0.0)
    assert (module.loc - start).abs().max() <= 1.01 * 0.01 * steps


def test_the_learning_rate_warms_up_and_follows_half_a_cosine():
    seen = []
    run(
        max_steps=100,
        warmup=0.2,
        learning_rate=1.0,
        callbacks=(lambda s: seen.append((s.step / 100, s.learning_rate)) and None,),
        validation_fraction=0.0,
        batch_size=200,
    )
    for done, rate in seen:
        expected = done / 0.2 if done < 0.2 else 0.5 * (1 + math.cos(math.pi * (done - 0.2) / 0.8))
        assert rate == pytest.approx(expected, abs=1e-9)
    assert len(seen) >= 10


def test_the_best_weights_are_kept_and_not_the_last():
    """The training rows pull away from the held-out rows: the held-out loss has its minimum on the
    way, and that is where the fit must end."""
    events = torch.zeros(100, 2, dtype=torch.float64)
    batches = Batches(events, None, lambda t: t, validation_fraction=0.3, seed=0)
    train_rows = torch.cat([next(batches.epochs(70))])
    events[train_rows] = 4.0
    events[torch.cat(list(batches.held_out(batches.n_valid, 100)))] = 2.0
    module = Mean()
    history = train(
        module,
        [Player("model", [module.loc], squared)],
        batches,
        options(batch_size=70, learning_rate=0.05, patience=8, max_steps=600),
        seed=0,
    )
    assert "no better held-out loss for 8 evaluations" in history.stop_reason
    assert history.step[-1] < 600
    assert torch.allclose(module.loc, torch.full((2,), 2.0, dtype=torch.float64), atol=0.3)
    best = min(range(len(history.step)), key=lambda i: history.valid_loss[i])
    assert history.best_step == history.step[best]


def test_the_average_of_the_weights_is_an_exponential_one():
    """With a gradient of one and plain steps, the average lags behind the weights by decay/(1-decay)
    steps; AdamW's step on a constant gradient is the learning rate."""

    def linear(module, events, context):
        return -module.loc.sum().expand(len(events))

    module, _, _ = run(
        linear,
        learning_rate=0.01,
        warmup=0.0,
        ema_decay=0.5,
        max_steps=40,
        validation_fraction=0.0,
    )
    steps = [0.01 * 0.5 * (1 + math.cos(math.pi * s / 40)) for s in range(40)]
    raw, average = 0.0, 0.0
    for i, step in enumerate(steps):
        raw += step
        decay = min(0.5, (i + 1) / (i + 11))
        average = decay * average + (1 - decay) * raw
    assert module.loc[0].item() == pytest.approx(average, rel=1e-4)


def test_a_non_finite_loss_names_its_step_and_keeps_the_best_weights():
    calls = []

    def fails_late(module, events, context):
        calls.append(1)
        loss = squared(module, events, context)
        return loss * torch.nan if module.training and len(calls) > 150 else loss

    module = Mean()
    batches = Batches(rows(), None, lambda t: t, validation_fraction=0.2, seed=1)
    with pytest.warns(RuntimeWarning, match=r"loss of 'model' was not finite at step \d+"):
        history = train(
            module, [Player("model", [module.loc], fails_late)], batches, options(), seed=1
        )
    assert "non-finite loss" in history.stop_reason
    assert torch.isfinite(module.loc).all()
    assert history.valid_loss[-1] < history.valid_loss[0]


def test_a_loss_that_is_never_finite_is_an_error_with_a_remedy():
    with pytest.raises(FloatingPointError, match=r"(?s)step 1 .*lower learning_rate"):
        run(lambda module, events, context: squared(module, events, context) * torch.nan)


class Fake:
    """A clock that losses and evaluations move."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.seconds.now = 0.0

    @property
    def time(self):
        return self.seconds.now

    @time.setter
    def time(self, now):
        self.seconds.now = now

    def loss(self, step=1.0, row=0.0, first=0.0):
        """The squared loss; a step takes ``step`` seconds, the first one ``first`` more, and each row
        that is held out ``row``."""
        calls = itertools.count()

        def loss(module, events, context):
            self.time += step if module.training else row * len(events)
            if module.training and next(calls) == 0:
                self.time += first
            return squared(module, events, context)

        return loss


@pytest.fixture
def fake(request):
    return Fake(request.getfixturevalue("clock"))


def test_a_time_budget_ends_the_run(fake):
    module, history, _ = run(fake.loss(0.01), max_steps=10**7, max_time=5.0)
    # However many steps are allowed, rounds are shares of the time.
    assert 40 <= len(history.step) <= 51
    assert history.stop_reason == "max_time=5 seconds are over"
    assert history.seconds[-1] == pytest.approx(5, rel=0.02)
    assert torch.allclose(module.loc, rows().mean(0), atol=0.3)


def test_a_given_time_replaces_the_default_steps(fake):
    _, history, _ = run(fake.loss(0.5), max_steps=None, max_time=300.0, default_steps=20)
    assert history.step[-1] == pytest.approx(600, rel=0.02)
    assert "max_time" in history.stop_reason


def test_without_a_budget_there_are_default_steps():
    assert (
        run(max_steps=None, learning_rate=1e-30, default_steps=25)[1].stop_reason
        == "all 25 steps are done"
    )


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"max_steps": 30, "max_epochs": 2, "max_time": None}, 10),
        ({"max_steps": 7, "max_epochs": 2, "max_time": None}, 7),
        ({"max_steps": 30, "max_epochs": None, "max_time": 12.0}, 12),
        ({"max_steps": 8, "max_epochs": None, "max_time": 12.0}, 8),
        ({"max_steps": None, "max_epochs": 2, "max_time": 300.0}, 10),
        ({"max_steps": None, "max_epochs": None, "max_time": 13.0}, 13),
        ({"max_steps": None, "max_epochs": 3, "max_time": None}, 15),
    ],
)
def test_the_budget_that_ends_first_ends_the_run(fake, budget, steps):
    """160 rows to train on in batches of 32 are five steps an epoch; a step takes a second."""
    _, history, _ = run(fake.loss(1.0), default_steps=4, **budget)
    assert history.step[-1] == steps


@pytest.mark.parametrize("step", [0.02, 0.7, 9.0, 150.0])
@pytest.mark.parametrize("row", [0.0, 1e-3, 0.2])
def test_the_clock_holds_within_two_percent_or_a_step_and_a_look(fake, step, row):
    run(fake.loss(step, row), max_steps=None, max_time=100.0)
    over = fake.time - 100
    look = 40 * row
    assert -max(2.0, step + look) <= over <= max(2.0, step + look)


def test_compiling_does_not_shorten_the_run(fake, monkeypatch):
    """The first step of a compiled loss compiles it, and counts as much as the second."""
    monkeypatch.setattr(torch, "compile", lambda loss: loss)
    for first in (0.0, 1e4):
        start, loss = fake.time, fake.loss(1.0, first=first)
        _, history, _ = run(loss, max_steps=None, max_time=50.0, compile=True)
        assert history.step[-1] == 50
        assert fake.time - start == 50 + first


def test_loading_kernels_does_not_count(fake, monkeypatch):
    def slow(name):
        fake.time += 20
        return math

    monkeypatch.setattr(compiled, "_has_numba", lambda: True)
    monkeypatch.setattr(compiled.importlib, "import_module", slow)
    monkeypatch.delenv("DENSEKIT_KERNELS", raising=False)
    with clock.running() as running:
        compiled.kernel.__wrapped__("densekit.kernels.of_a_test")
        fake.time += 1
        assert running.elapsed() == 1


def test_imports_do_not_count(fake, monkeypatch):
    made = torch.optim.AdamW

    def slow(*args, **kwargs):
        fake.time += 1000
        return made(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", slow)
    _, history, _ = run(fake.loss(1.0), max_steps=None, max_time=50.0)
    assert history.step[-1] == 50
    assert history.seconds[-1] == pytest.approx(50)


def test_the_schedule_follows_the_time_that_is_left(fake):
    """What a fit did before the loop counts, and the learning rate still falls to zero."""
    with clock.running() as running:
        running.advance(40)
        _, history, _ = run(fake.loss(0.1), max_steps=None, max_time=50.0)
    assert history.step[-1] == pytest.approx(100, abs=2)
    assert history.learning_rate[-1] < 0.01 * 0.05
    for step, rate in zip(history.step[1:], history.learning_rate[1:], strict=True):
        half_a_cosine = 0.5 * (1 + math.cos(math.pi * min(1, (step / 100 - 0.05) / 0.95)))
        assert rate == pytest.approx(0.05 * half_a_cosine, abs=1e-3)


def test_callbacks_get_how_many_steps_the_time_is_enough_for(fake):
    total_steps_seen = []
    run(
        fake.loss(0.1),
        max_steps=None,
        max_time=20.0,
        callbacks=(lambda s: total_steps_seen.append(s.total_steps),),
    )
    assert total_steps_seen[5:] == pytest.approx([200] * len(total_steps_seen[5:]), rel=0.1)


# Warnings of a budget that was too short.


def drifting(module, events, context):
    """A loss without a minimum: every step decreases it equally on all rows."""
    return (events - module.loc).square().sum(-1) + 1000 - 10 * module.loc.sum()


def test_a_default_budget_that_ends_too_soon_is_warned_of():
    with pytest.warns(
        ConvergenceWarning, match=r"budget of 30 steps.*Raise max_steps.*max_steps=120"
    ):
        run(drifting, max_steps=None, default_steps=30)


@pytest.mark.parametrize("budget", [{"max_steps": 30}, {"max_epochs": 6}, {"max_time": 30.0}])
def test_a_given_budget_is_not_warned_of(fake, budget):
    def loss(module, events, context):
        fake.time += module.training
        return drifting(module, events, context)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(loss, **{"max_steps": None, **budget})


def test_a_run_that_has_converged_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, history, _ = run(max_steps=None, default_steps=400)
    assert history.stop_reason == "all 400 steps are done"


def test_the_gain_is_that_of_paired_differences():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 50))
    w, s = rng.integers(1, 4, 50), rng.integers(1, 6, 50)
    ones = np.ones(50)
    fall, error = gain(*(torch.tensor(np.stack([x, ones, ones])) for x in (before, after)))
    assert fall == pytest.approx((before - after).mean())
    assert error == pytest.approx((before - after).std(ddof=1) / np.sqrt(50))
    # A ratio of sums: the spread of it over resampled rows.
    fall, error = gain(*(torch.tensor(np.stack([x, w, s])) for x in (before, after)))
    places = rng.integers(0, 50, (4000, 50))
    ratios = ((w * (before - after))[places]).sum(1) / ((w * s)[places]).sum(1)
    assert fall == pytest.approx((w * (before - after)).sum() / (w * s).sum())
    assert error == pytest.approx(ratios.std(), rel=0.1)


# Weights.


def test_weights_train_as_repeated_rows_do():
    events, w = rows(40), torch.arange(40) % 4 + 1
    both = []
    for given, weights in ((events, w.double()), (events.repeat_interleave(w, 0), None)):
        module = Mean()
        batches = Batches(
            given, None, lambda t: t, validation_fraction=0.0, seed=5, weights=weights
        )
        o = options(max_steps=40, batch_size=1000)
        train(module, [Player("model", [module.loc], squared)], batches, o, seed=5)
        both.append(module.loc.detach())
    assert torch.allclose(*both, rtol=1e-9)


@pytest.mark.parametrize("sized", [False, True])
def test_the_held_out_loss_is_weighted_and_divided_by_sizes(sized):
    events, w = rows(60), torch.arange(60, dtype=torch.float64) % 5 + 1
    sizes = torch.arange(60) % 3 + 1
    place = {tuple(e): i for i, e in enumerate(events.tolist())}

    def size(batch):
        return torch.stack([sizes[place[tuple(e)]] for e in batch.tolist()])

    module, o = Mean(), options(max_steps=1, learning_rate=1e-30, batch_size=1000)
    batches = Batches(events, None, lambda t: t, validation_fraction=0.4, seed=5, weights=w)
    player = Player("model", [module.loc], squared, size=size if sized else None)
    history = train(module, [player], batches, o, seed=5)
    held = torch.cat(list(batches.held_out(batches.n_valid, 7)))
    rest = torch.tensor([i for i in range(60) if i not in held.tolist()])
    for found, of in ((history.valid_loss[-1], held), (history.train_loss[-1], rest)):
        losses, total = (
            squared(module, events[of], None).detach(),
            w[of] * (sizes[of] if sized else 1),
        )
        assert found == pytest.approx(float((w[of] * losses).sum() / total.sum()), rel=1e-6)


def test_a_loss_that_is_no_number_per_row_is_named():
    with pytest.raises(TypeError, match=r"the loss of 'model' has shape \(\).*of shape \(32,\)"):
        run(lambda module, events, context: squared(module, events, context).mean())


def test_a_callback_stops_the_run():
    _, history, _ = run(callbacks=(lambda state: state.step >= 100,))
    assert history.stop_reason == "a callback asked to stop"
    assert 100 <= history.step[-1] < 300


def test_players_move_only_their_own_parameters():
    module = nn.ParameterDict(
        {name: nn.Parameter(torch.zeros(2, dtype=torch.float64)) for name in "ab"}
    )

    def loss_a(m, events, context):
        return ((m["a"] - 1).square().sum() + (m["b"] - 7).square().sum()).expand(len(events))

    def loss_b(m, events, context):
        return ((m["b"] + 1).square().sum() + (m["a"] + 7).square().sum()).expand(len(events))

    batches = Batches(rows(), None, lambda t: t, validation_fraction=0.0, seed=1)
    players = [Player("a", [module["a"]], loss_a), Player("b", [module["b"]], loss_b)]
    train(module, players, batches, options(), seed=1)
    assert torch.allclose(module["a"], torch.ones(2, dtype=torch.float64), atol=0.05)
    assert torch.allclose(module["b"], -torch.ones(2, dtype=torch.float64), atol=0.05)


def test_max_epochs_counts_passes_over_the_training_rows():
    _, history, batches = run(max_steps=None, max_epochs=7, batch_size=32)
    assert history.step[-1] == 7 * (batches.n_train // 32)
    assert history.epoch[-1] == pytest.approx(7)


def test_evaluation_is_a_small_share_of_a_run_on_many_rows():
    _, history, batches = run(events=rows(20_000), batch_size=32, max_steps=2000)
    assert batches.n_valid == 4000
    evaluated = len(history.step) * batches.n_valid / 3
    assert evaluated <= 0.11 * 2000 * 32


def test_weights_do_not_depend_on_the_global_generator():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.manual_seed(1)
        one, _, _ = run(max_steps=20)
        torch.manual_seed(2)
        two, _, _ = run(max_steps=20)
    assert torch.equal(one.loc, two.loc)


def test_a_gradient_that_is_not_finite_is_not_kept():
    """The loss stays finite while its gradient is not: the weights are NaN one step later."""

    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * torch.nan

    calls = []

    def poisoned(module, events, context):
        calls.append(1)
        loc = Root.apply(module.loc) if len(calls) == 150 else module.loc
        return (events - loc).square().sum(-1)

    module = Mean()
    with pytest.warns(RuntimeWarning, match="not finite"):
        run(poisoned, module=module, validation_fraction=0.0)
    assert torch.isfinite(module.loc).all()


def test_a_short_max_time_does_not_look_at_all_held_out_rows(fake):
    looked_at = []
    timed = fake.loss(3e-4 * 32, 3e-4)

    def slow(module, events, context):
        if not module.training:
            looked_at.append(len(events))
        return timed(module, events, context)

    slow_run = {"batch_size": 32, "max_time": 1.0, "validation_fraction": 0.5}
    _, history, batches = run(slow, rows(8000), max_steps=10_000, **slow_run)
    # All 4000 rows would take longer than the fit, at every look.
    assert batches.n_valid == 4000
    assert 64 <= max(looked_at) < 2000
    assert history.stop_reason.startswith("max_time")
    looked_at.clear()
    run(slow, rows(400), max_steps=20, validation_fraction=0.5)
    assert set(looked_at) == {200}


def test_rows_in_order_run_side_by_side_and_the_last_are_held_out():
    events = torch.arange(23).unsqueeze(1)
    batches = Batches(events, None, lambda x: x, validation_fraction=0.1, seed=0, in_order=True)
    assert batches.n_valid == 2
    assert torch.cat(list(batches.held_out(2, 5))).tolist() == [21, 22]
    stream = itertools.islice(batches.epochs(4), 7)
    found = torch.stack(list(stream))
    assert found[:5].tolist() == [[t, 5 + t, 10 + t, 15 + t] for t in range(5)]
    assert found[5:].tolist() == [[0, 5, 10, 15], [1, 6, 11, 16]]
    again = torch.stack(list(itertools.islice(batches.epochs(4, done=3), 2)))
    assert again.tolist() == found[3:5].tolist()
