import pytest
import torch

from densekit.nets.encoder_decoder import EncoderDecoder


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = EncoderDecoder(7, 9, width=16, n_layers=2, n_heads=2)
    with torch.no_grad():  # an untrained net adds nothing in its blocks
        for p in net.parameters():
            p.normal_(std=0.4)
    return net.double().eval()


SOURCES = torch.tensor([[3, 4, 5, 1], [6, 1, 0, 0], [1, 0, 0, 0]])
TOKENS = torch.tensor([[1, 4, 5, 6], [0, 0, 1, 3], [0, 1, 8, 8]])


def rows(net, sources, tokens):
    """Hidden states, a tensor for each row."""
    hidden, _ = net.hidden(tokens, net.encode(sources))
    return hidden.split((tokens != 0).sum(1).tolist())


def test_padding_and_neighbors_change_nothing(net):
    together = rows(net, SOURCES, TOKENS)
    for i, found in enumerate(together):
        source, tokens = SOURCES[i][SOURCES[i] != 0], TOKENS[i][TOKENS[i] != 0]
        torch.testing.assert_close(found, rows(net, source[None], tokens[None])[0])


def test_the_whole_source_is_seen_and_no_future(net):
    before = rows(net, SOURCES, TOKENS)[0]
    for place in range(4):
        changed = SOURCES.clone()
        changed[0, place] = changed[0, place] % 5 + 2
        after = rows(net, changed, TOKENS)
        assert ((after[0] - before).abs().amax(1) > 1e-3).all()
        torch.testing.assert_close(after[1], rows(net, SOURCES, TOKENS)[1])
    tokens = TOKENS.clone()
    tokens[0, 2] = 7
    changed = ((rows(net, SOURCES, tokens)[0] - before).abs().amax(1) > 1e-9).tolist()
    assert changed == [False, False, True, True]


def test_the_order_of_the_source_matters(net):
    turned = SOURCES.clone()
    turned[0, :3] = SOURCES[0, :3].flip(0)
    assert (rows(net, turned, TOKENS)[0] - rows(net, SOURCES, TOKENS)[0]).abs().max() > 0.01


def test_cached_steps_give_the_logits_of_one_pass(net):
    sources = net.encode(SOURCES)
    whole = [net.to_logits(h) for h in rows(net, SOURCES, TOKENS[:, 2:])]
    given = torch.tensor([[0, 5], [0, 1], [8, 8]])  # begins of different lengths
    logits, state = net.start(given, sources)
    tokens = torch.tensor([[6, 3], [3, 4], [8, 2]])
    for t in range(2):
        full = torch.cat([given, tokens[:, :t]], 1)
        one = torch.stack([net.to_logits(h)[-1] for h in rows(net, SOURCES, full)])
        torch.testing.assert_close(logits, one)
        logits, state = net.step(tokens[:, t], state)
    assert whole[0].shape == (2, 9)
    twice = state.keep(torch.tensor([2, 0, 0]))
    again, _ = net.step(torch.tensor([4, 5, 5]), twice)
    straight, _ = net.step(torch.tensor([5, 5, 4]), state)
    torch.testing.assert_close(again, straight[[2, 0, 0]])
