import pytest
import torch

from densekit.nets.recurrent import Recurrent

VOCAB = 9
ROWS = torch.tensor([[0, 0, 1, 3, 4], [1, 4, 5, 6, 7], [0, 1, 8, 0, 0], [1, 0, 0, 0, 0]])


@pytest.fixture(params=["lstm", "gru"])
def net(request):
    torch.manual_seed(0)
    net = Recurrent(VOCAB, 12, 2, request.param, dropout=0.5)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.5)
    return net.double().eval()


def test_padding_and_neighbors_change_nothing(net):
    alone = [net(row[row != 0].unsqueeze(0)) for row in ROWS]
    torch.testing.assert_close(net(ROWS), torch.cat(alone))


def test_cached_steps_give_the_logits_of_one_pass(net):
    tail = torch.randint(1, VOCAB, (4, 6))
    logits, state = net.start(ROWS)
    found = [logits]
    for tokens in tail.T:
        logits, state = net.step(tokens, state)
        found.append(logits)
    for i, row in enumerate(ROWS):
        whole = net(torch.cat([row[row != 0], tail[i]]).unsqueeze(0))[-7:]
        torch.testing.assert_close(torch.stack([f[i] for f in found]), whole)


def test_a_text_in_two_parts_is_read_as_one(net):
    x = torch.randint(1, VOCAB, (3, 10))
    whole, _ = net.hidden(x)
    first, state = net.hidden(x[:, :4])
    second, _ = net.hidden(x[:, 4:], state)
    again = torch.cat([first.view(3, 4, -1), second.view(3, 6, -1)], 1)
    torch.testing.assert_close(again.flatten(0, 1), whole)
    third, _ = net.hidden(x[:, 4:], state.forget(torch.tensor([True, False, True])))
    alone, _ = net.hidden(x[:, 4:])
    torch.testing.assert_close(third.view(3, 6, -1)[[0, 2]], alone.view(3, 6, -1)[[0, 2]])
    torch.testing.assert_close(third.view(3, 6, -1)[1], second.view(3, 6, -1)[1])


def test_padding_is_never_predicted(net):
    assert (net(ROWS).softmax(-1)[:, 0] == 0).all()


def test_dropout_is_the_same_at_all_places(net):
    x = torch.ones(2, 50, 12, dtype=torch.double)
    dropped = net.train()._drop(x)
    assert (dropped == dropped[:, :1]).all()
    assert (dropped[0] != dropped[1]).any()
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_tied_weights_read_and_write():
    tied, free = Recurrent(VOCAB, 12, 1), Recurrent(VOCAB, 12, 1, tied=False)
    count = [sum(p.numel() for p in net.parameters()) for net in (tied, free)]
    assert count[1] - count[0] == VOCAB * 12
    h = torch.randn(3, 12)
    torch.testing.assert_close(
        tied.to_logits(h)[:, 1:], (h @ tied.embed.weight.T + tied.bias)[:, 1:]
    )
