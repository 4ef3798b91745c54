"""The velocity's divergence against autodiff, in closed form and along directions."""

import pytest
import torch

from densekit.nets.velocity import VelocityNet

T = torch.tensor(0.3, dtype=torch.float64)


def net(n_features, hidden_sizes, n_context=0, seed=0):
    torch.manual_seed(seed)
    made = VelocityNet(n_features, hidden_sizes, n_context).double()
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made


def jacobian(made, y, context=None):
    """(N, D, D), one column of y at a time."""

    def one(column, given):
        c = None if given is None else given[:, None]
        return made(T, column[:, None], c)[:, 0]

    columns = range(y.shape[1])
    return torch.stack(
        [
            torch.autograd.functional.jacobian(
                lambda v, i=i: one(v, None if context is None else context[:, i]), y[:, i]
            )
            for i in columns
        ]
    )


@pytest.mark.parametrize("hidden_sizes", [(7,), (8, 5), (6, 7, 5), (4, 5, 6, 7)])
@pytest.mark.parametrize("n_features", [1, 2, 5])
@pytest.mark.parametrize("n_context", [0, 3])
def test_divergence_is_the_trace_of_autodiffs_jacobian(hidden_sizes, n_features, n_context):
    made = net(n_features, hidden_sizes, n_context)
    y = torch.randn(n_features, 6, dtype=torch.float64)
    context = torch.randn(n_context, 6, dtype=torch.float64) if n_context else None
    v, divergence = made.with_divergence(T, y, context)
    expected = jacobian(made, y, context).diagonal(dim1=1, dim2=2).sum(1)
    assert expected.abs().max() > 1e-2
    assert divergence.shape == (1, 6)
    assert torch.allclose(divergence[0], expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(v, made(T, y, context))


@pytest.mark.parametrize("hidden_sizes", [(7,), (8, 5), (6, 7, 5)])
def test_probes_are_quadratic_forms_of_the_jacobian(hidden_sizes):
    made = net(4, hidden_sizes)
    y = torch.randn(4, 6, dtype=torch.float64)
    inside = jacobian(made, y)
    shared = torch.randn(4, 3, 1, dtype=torch.float64)
    own = torch.randn(4, 1, 6, dtype=torch.float64)
    _, forms = made.with_divergence(T, y, None, shared)
    e = shared[..., 0]
    assert torch.allclose(forms, torch.einsum("dk,nde,ek->kn", e, inside, e))
    _, forms = made.with_divergence(T, y, None, own)
    e = own[:, 0]
    assert torch.allclose(forms, torch.einsum("dn,nde,en->n", e, inside, e)[None])


def test_the_divergence_has_the_gradient_of_its_finite_differences():
    made = net(3, (5, 4))
    y = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: made.with_divergence(T, y)[1], (y,))
    weights = dict(made.named_parameters())

    def of(*values):
        named = {f"net.{k}": v for k, v in zip(weights, values, strict=True)}
        return torch.func.functional_call(_Divergence(made), named, (y.detach(),))

    values = tuple(w.detach().clone().requires_grad_() for w in weights.values())
    assert torch.autograd.gradcheck(of, values)


class _Divergence(torch.nn.Module):
    def __init__(self, made):
        super().__init__()
        self.net = made

    def forward(self, y):
        return self.net.with_divergence(T, y)[1]


def test_velocity_starts_at_zero_changes_with_time_and_context_and_is_bounded():
    fresh = VelocityNet(2, (8, 8))
    assert not fresh(torch.tensor(0.5), torch.randn(2, 9)).any()
    made = net(2, (8, 8), 1)
    y, c = torch.randn(2, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    assert not torch.allclose(made(T, y, c), made(T + 0.3, y, c))
    assert not torch.allclose(made(T, y, c), made(T, y, c + 1))
    far = made(T, 1e30 * y, 1e30 * c)
    # Gains and biases are sums of cosines, and tanh is one at most.
    gain = made.gain[8:].abs().sum(1)
    limit = (made.last.abs() @ gain)[:, None] + made.last_bias.abs().sum(1, keepdim=True)
    assert (far.abs() <= limit).all()


def test_a_network_without_hidden_layers_is_refused():
    with pytest.raises(ValueError, match="hidden_sizes"):
        VelocityNet(2, ())
