import pytest
import torch
from torch.nn import functional as F

from densekit.nets.tokenwise import rms_norm, rotary
from densekit.nets.transformer import Layout, Transformer

VOCAB = 11


@pytest.fixture(params=[None, 1])
def net(request):
    torch.manual_seed(0)
    net = Transformer(VOCAB, width=16, n_layers=3, n_heads=2, n_kv_heads=request.param)
    with torch.no_grad():  # an untrained net adds nothing in its blocks
        for p in net.parameters():
            p.normal_(std=0.4)
    return net.double().eval()


def ragged(lengths, width, left):
    torch.manual_seed(1)
    tokens = torch.randint(1, VOCAB, (len(lengths), width))
    place = torch.arange(width)
    for row, length in zip(tokens, lengths, strict=True):
        row[place < width - length if left else place >= length] = 0
    return tokens


def test_rms_norm_is_torchs():
    x = torch.randn(5, 7, dtype=torch.float64)
    torch.testing.assert_close(rms_norm(x), F.rms_norm(x, (7,), eps=1e-6))


def test_rotary_products_depend_on_the_distance_only(net):
    q, k = torch.randn(2, 1, 2, 8, dtype=torch.float64)
    gain = q.new_ones(2)

    def product(i, j):
        turns = [net.rotation(torch.tensor([at])) for at in (i, j)]
        return (rotary(q, turns[0], gain)[0] * rotary(k, turns[1], gain)[0]).sum(-1)

    torch.testing.assert_close(product(9, 4), product(105, 100))
    assert not torch.allclose(product(9, 4), product(9, 5))


@pytest.mark.parametrize("left", [True, False])
def test_padding_and_neighbors_change_nothing(net, left):
    lengths = [6, 1, 4]
    tokens = ragged(lengths, 8, left)
    alone = [net(row[row != 0].unsqueeze(0)) for row in tokens]
    torch.testing.assert_close(net(tokens), torch.cat(alone))


def test_layout_pads_and_unpads():
    tokens = ragged([3, 5, 1], 5, left=True)
    at = Layout.of(tokens)
    x = tokens[tokens != 0].unsqueeze(1)
    rows = at.pad(x)
    assert rows.shape == (3, 5, 1)
    assert rows[0, :, 0].tolist() == [*tokens[0, 2:].tolist(), 0, 0]
    assert torch.equal(at.unpad(rows), x)


def test_the_future_is_not_seen(net):
    tokens = ragged([7, 7], 7, left=True)
    changed = tokens.clone()
    changed[:, 4] = changed[:, 4] % (VOCAB - 1) + 1
    a, b = (net(t).view(2, 7, VOCAB) for t in (tokens, changed))
    assert torch.equal(a[:, :4], b[:, :4])
    assert (a[:, 4:] != b[:, 4:]).any(-1).all()


def test_padding_is_never_predicted(net):
    assert (net(ragged([4], 4, left=True)).softmax(-1)[:, 0] == 0).all()


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 2, 1]])
def test_cached_steps_give_the_logits_of_one_pass(net, lengths):
    tokens, tail = ragged(lengths, 5, left=True), ragged([20, 20, 20], 20, left=True)
    whole = net(torch.cat([tokens, tail], 1)).split([n + 20 for n in lengths])
    logits, cache = net.start(tokens)
    for t in range(20):
        now = torch.stack([w[n - 1 + t] for w, n in zip(whole, lengths, strict=True)])
        torch.testing.assert_close(logits, now)
        logits, cache = net.step(tail[:, t], cache)


def test_a_cache_of_some_rows_goes_on_alike(net):
    tokens, rows = ragged([5, 2, 4], 5, left=True), torch.tensor([2, 0])
    _, cache = net.start(tokens)
    _, few = net.start(tokens)
    few = few.keep(rows)
    for token in (3, 7, 2):
        logits, cache = net.step(torch.full((3,), token), cache)
        some, few = net.step(torch.full((2,), token), few)
        torch.testing.assert_close(some, logits[rows])


def test_gradients_reach_every_parameter(net):
    net(ragged([4, 2], 4, left=True))[:, 1:].logsumexp(-1).sum().backward()
    assert all((p.grad != 0).any() for p in net.parameters())


def test_dropout_acts_in_training_only(net):
    tokens = ragged([4], 4, left=True)
    for block in net.blocks:
        block.dropout = 0.5
    assert torch.equal(net(tokens), net(tokens))
    net.train()
    assert not torch.equal(net(tokens), net(tokens))


def test_an_untrained_net_is_its_embedding():
    # No block adds anything: what is read is what is written.
    net, tokens = Transformer(VOCAB, 16, 3, 2), ragged([4, 2], 4, left=True)
    x = net.embed.weight[tokens[tokens != 0]]
    torch.testing.assert_close(net(tokens)[:, 1:], (rms_norm(x) @ net.embed.weight.T)[:, 1:])


def test_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"width=10 must be a multiple of 2 \* n_heads = 4"):
        Transformer(VOCAB, width=10, n_layers=1, n_heads=2)


def test_groups_of_queries_share_keys_and_values():
    torch.manual_seed(0)
    few, all_ = (Transformer(VOCAB, 24, 2, n_heads=6, n_kv_heads=k).double() for k in (2, None))
    all_.load_state_dict(
        {k: v for k, v in few.state_dict().items() if "qkv" not in k}, strict=False
    )
    with torch.no_grad():
        for a, b in zip(few.blocks, all_.blocks, strict=True):
            for block in (a, b):
                block.merge.weight.copy_(torch.eye(24))
            q, k, v = a.qkv.weight.split([24, 8, 8])
            repeated = [u.view(2, 4, 24).repeat_interleave(3, 0).flatten(0, 1) for u in (k, v)]
            b.qkv.weight.copy_(torch.cat([q, *repeated]))
    tokens = ragged([7, 4], 7, left=True)
    torch.testing.assert_close(few(tokens), all_(tokens))
    _, cache = few.start(tokens)
    assert cache.keys[0].shape == (2, 2, 7, 4)


def test_groups_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"n_kv_heads=4 must divide n_heads=6"):
        Transformer(VOCAB, 24, 1, n_heads=6, n_kv_heads=4)


def test_cached_steps_and_one_reading_agree_in_float32_too():
    """The way that users take, compiled loops and all."""
    torch.manual_seed(0)
    net = Transformer(VOCAB, width=32, n_layers=3, n_heads=4)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    tokens = torch.randint(1, VOCAB, (5, 40))
    with torch.no_grad():
        whole = net(tokens).view(5, 40, VOCAB)
        logits, cache = net.start(tokens[:, :1])
        found = [logits]
        for t in range(1, 40):
            logits, cache = net.step(tokens[:, t], cache)
            found.append(logits)
    a, b = torch.stack(found, 1)[..., 1:], whole[..., 1:]
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max().clamp_min(1)))
