"""Distillation: a student matches its teacher, uses no data, and samples in one pass."""

import numpy as np
import pytest
import torch
from scipy import stats

from densekit import (
    Gaussian,
    MaskedAutoregressiveFlow,
    NeuralSplineFlow,
    RealNVP,
    TransformerLanguageModel,
    distill,
)
from densekit.compose import distillation
from densekit.compose.distillation import _divergence
from densekit.distributions.flow import FlowModule

SMALL = {"n_transforms": 4, "hidden_sizes": (32, 32), "random_state": 0, "device": "cpu"}


def student(**more):
    return MaskedAutoregressiveFlow(direction="sample", **SMALL | {"max_steps": 300} | more)


@pytest.fixture(scope="module")
def taught():
    g = np.random.default_rng(0)
    x = g.normal(size=3000)
    X = 100 + 5 * np.c_[x, x**2 / 2 + 0.5 * g.normal(size=3000)]
    teacher = MaskedAutoregressiveFlow(**SMALL, max_steps=600).fit(X)
    return X, teacher, distill(teacher, student())


def test_the_student_scores_as_the_teacher_does(taught):
    X, teacher, learned = taught
    apart = teacher.score_samples(X) - learned.score_samples(X)
    # What is learned is the mean over the student's own draws; over the data it comes near.
    assert abs(apart.mean()) < 0.1
    assert learned.density_kind_ == "exact"
    assert learned.base_measure_ == "lebesgue"


def test_the_divergence_is_what_draws_say(taught):
    _, teacher, learned = taught
    drawn = learned.sample(4000, random_state=0)
    theirs = teacher.sample(4000, random_state=0)
    reverse = learned.score(drawn) - teacher.score(drawn)
    forward = teacher.score(theirs) - learned.score(theirs)
    assert -0.02 < reverse < 0.1
    assert -0.02 < forward < 0.1
    assert reverse + forward == pytest.approx(min(learned.history_["valid_loss"]), abs=0.05)


def test_draws_have_the_teachers_law(taught):
    _, teacher, learned = taught
    ours, theirs = (est.sample(2000, random_state=1) for est in (learned, teacher))
    for column in (0, 1):
        distance = stats.ks_2samp(ours[:, column], theirs[:, column]).statistic
        assert distance < 0.08


def test_a_context_is_learned_too():
    g = np.random.default_rng(0)
    c = g.uniform(-2, 2, size=(2000, 1))
    X = c + 0.3 * g.normal(size=(2000, 2))
    teacher = NeuralSplineFlow(n_transforms=2, hidden_sizes=(32,), max_steps=300, random_state=0)
    learned = distill(teacher.fit(X, context=c), student(), context=c)
    for value in (-1.0, 1.5):
        drawn = learned.sample(500, context=[[value]], random_state=0)
        assert np.allclose(drawn.mean(0), value, atol=0.1)
    with pytest.raises(ValueError, match="context"):
        distill(teacher, student())


def test_the_teacher_stays_as_it_is_and_the_seed_fixes_the_student(taught):
    X, teacher, _ = taught
    before, state = teacher.score_samples(X[:50]), torch.random.get_rng_state()
    one, two = (distill(teacher, student(max_steps=20)) for _ in range(2))
    assert np.array_equal(teacher.score_samples(X[:50]), before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(one.score_samples(X[:50]), two.score_samples(X[:50]))


def test_a_student_is_saved_copied_and_fitted_like_any_flow(taught, tmp_path):
    import pickle

    import densekit

    X, _, learned = taught
    learned.save(tmp_path / "student.densekit")
    again = densekit.load(tmp_path / "student.densekit")
    assert np.allclose(again.score_samples(X[:20]), learned.score_samples(X[:20]), atol=1e-5)
    copy = pickle.loads(pickle.dumps(learned)).set_params(max_steps=5)
    assert copy.fit(X).n_iter_ == 5


@pytest.mark.parametrize(
    ("teacher", "pupil", "named"),
    [
        (Gaussian(), student(), "teacher=Gaussian must be a flow"),
        (
            MaskedAutoregressiveFlow(),
            TransformerLanguageModel(),
            "student=TransformerLanguageModel",
        ),
        (MaskedAutoregressiveFlow(), student(devices=2), "devices=2"),
    ],
)
def test_who_cannot_teach_or_learn_is_named(teacher, pupil, named):
    teacher.set_params(device="cpu")
    if isinstance(teacher, MaskedAutoregressiveFlow):
        teacher.set_params(max_steps=2, hidden_sizes=(8,))
    teacher.fit(np.random.default_rng(0).normal(size=(50, 2)))
    before = dict(vars(pupil))
    with pytest.raises(TypeError, match=named):
        distill(teacher, pupil)
    assert vars(pupil) == before


def test_a_teacher_that_is_not_fitted_is_named():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError, match="RealNVP"):
        distill(RealNVP(), student())


def test_the_kind_of_a_score_is_the_students_own():
    from densekit import ContinuousFlow

    X = np.random.default_rng(0).normal(size=(60, 3))
    estimate = ContinuousFlow(hidden_sizes=(8,), n_steps=2, exact_dims=2, max_steps=2)
    exact = MaskedAutoregressiveFlow(n_transforms=1, hidden_sizes=(8,), max_steps=2)
    assert distill(exact.fit(X), estimate).density_kind_ == "estimate"
    assert distill(estimate, exact).density_kind_ == "exact"


def test_nothing_is_left_of_what_the_student_knew_before():
    import pandas as pd

    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 4)), columns=list("abcd"))
    small = {"n_transforms": 1, "hidden_sizes": (8,), "max_steps": 2, "device": "cpu"}
    pupil = MaskedAutoregressiveFlow(direction="sample", **small).fit(frame)
    X = frame.to_numpy()[:, :3]
    learned = distill(MaskedAutoregressiveFlow(**small).fit(X), pupil)
    assert not hasattr(learned, "feature_names_in_")
    assert learned.score_samples(X).shape == (60,)


def test_a_transformer_teaches_a_flow_that_draws_at_once():
    from densekit import TarFlow

    X = np.random.default_rng(0).normal(size=(60, 2))
    teacher = TarFlow(n_transforms=1, width=8, n_heads=2, max_steps=2, dtype="float64").fit(X)
    before = teacher.score_samples(X)
    distill(teacher, student(max_steps=2))
    assert np.array_equal(teacher.score_samples(X), before)


def test_a_checkpoint_is_refused(taught, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_dir"):
        distill(taught[1], student(checkpoint_dir=str(tmp_path)))


def test_the_teachers_draws_bring_the_student_nearer_to_its_law(taught):
    X, teacher, _ = taught
    near, far = (
        distill(teacher, student(max_steps=60), forward_weight=weight) for weight in (1.0, 0.0)
    )
    assert near.score(X) > far.score(X) + 0.05


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_named(taught, weight):
    with pytest.raises(ValueError, match="forward_weight"):
        distill(taught[1], student(), forward_weight=weight)


def rows_of_starts(monkeypatch):
    """Shapes of the events that flows are initialized from, as a list that grows."""
    shapes, start = [], FlowModule.start

    def recorded(self, rows, *args):
        shapes.append(tuple(rows.shape))
        start(self, rows, *args)

    monkeypatch.setattr(FlowModule, "start", recorded)
    return shapes


@pytest.fixture(scope="module")
def teacher_of_three():
    g = np.random.default_rng(0)
    X = g.normal(size=(300, 3)) @ [[3, 1, 0], [0, 2, 1], [0, 0, 0.5]]
    return X, NeuralSplineFlow(n_transforms=2, hidden_sizes=(16,), max_steps=100).fit(X)


def test_few_rows_initialize_the_student_without_the_scores_beside_them(
    monkeypatch, teacher_of_three
):
    X, teacher = teacher_of_three
    shapes = rows_of_starts(monkeypatch)
    learned = distill(teacher, student(max_steps=1), n_rows=450)
    assert shapes == [(405, 3)]
    # One step from the Gaussian of the teacher's draws, and not from the standard normal.
    assert learned.score(X) > teacher.score(X) - 0.3


def test_a_budget_that_few_rows_divide_adds_no_noise_to_scores(monkeypatch, teacher_of_three):
    _, teacher = teacher_of_three
    shapes, rows = rows_of_starts(monkeypatch), []

    def recorded(teacher, weight, module, batch, context):
        rows.append(batch)
        return _divergence(teacher, weight, module, batch, context)

    monkeypatch.setattr(distillation, "_divergence", recorded)
    distill(teacher, student(max_steps=1200, batch_size=64), n_rows=100)
    assert set(shapes) == {(80, 3), (100, 3)}
    # As drawn: each of the hundred rows is the same in every batch.
    assert len(torch.unique(torch.cat(rows), dim=0)) == 100


def test_without_draws_of_the_teacher_few_rows_are_enough(monkeypatch, teacher_of_three):
    X, teacher = teacher_of_three
    shapes = rows_of_starts(monkeypatch)
    learned = distill(teacher, student(), n_rows=450, forward_weight=0)
    assert not shapes
    assert learned.score(X) > teacher.score(X) - 0.3
