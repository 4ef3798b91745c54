"""The training loop: what it minimises, when it stops, which weights it keeps."""

import itertools
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from densekit.training import Batches, Player, train


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


def run(loss=squared, events=None, module=None, **changes):
    module = module or Mean()
    o = options(**changes)
    events = rows() if events is None else events
    batches = Batches(events, None, lambda t: t, validation_fraction=o.validation_fraction, seed=5)
    history = train(module, [Player("model", list(module.parameters()), loss)], batches, o, seed=5)
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
def test_a_short_run_never_learns_faster_than_it_was_told(steps):
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


def takes(clock, seconds):
    """The squared loss, of which a row costs so many seconds."""

    def loss(module, events, context):
        clock.advance(seconds * len(events))
        return squared(module, events, context)

    return loss


def test_a_time_budget_ends_the_run(clock):
    begun = clock.now
    module, history, _ = run(takes(clock, 1e-5), max_steps=10**7, max_time=0.5)
    # However many steps are allowed, rounds are shares of the time.
    assert len(history.step) >= 5
    assert "max_time" in history.stop_reason
    # A step is a third of a thousandth of a second here, and so is a look at the held-out rows.
    assert 0.5 <= history.seconds[-1] < 0.51
    assert clock.now - begun == pytest.approx(history.seconds[-1])
    assert torch.allclose(module.loc, rows().mean(0), atol=0.3)


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
    _, history, batches = run(max_epochs=7, batch_size=32)
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


def test_a_short_max_time_does_not_look_at_all_held_out_rows(clock):
    looked_at, costs = [], takes(clock, 3e-4)

    def slow(module, events, context):
        if not module.training:
            looked_at.append(len(events))
        return costs(module, events, context)

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
