"""Codecs on hostile input: a round trip with a finite Jacobian, or an error that names the culprit.

Nothing is left to chance: the same tests and code draw the same examples. The long run, which prints
what came of them, has 5,000 for each codec:

    pytest tests/hostile --slow -n 0 -s
"""

import re

import numpy as np
import pyarrow as pa
import torch
from hostile_rows import alike, any_table, images, pairs, texts
from hypothesis import strategies as st
from verdicts import cells, dtypes, examples, hold, refusal, unchanged

from densekit.codecs import ImageCodec, TableCodec, TextCodec
from densekit.codecs.context import ContextCodec


def assert_comes_back(codec, X, back):
    """Discrete values exactly; numbers to the rounding of float64 over their spread."""
    if not isinstance(X, list):
        assert type(back) is type(X)
        assert dtypes(back) == dtypes(X)
    for column, x, y in zip(codec.schema.columns, cells(X), cells(back), strict=True):
        if column.kind == "real":
            x, y = x.astype(float), y.astype(float)
            width = re.match(r"(?:f|F)loat(16|32)|half", column.dtype)
            eps = 2e-16 if not width else np.finfo(f"float{width[1] or 16}").eps
            reach = max(abs(column.loc), column.scale, np.abs(x).max())
            np.testing.assert_allclose(y, x, rtol=eps, atol=8e-16 * reach)
        elif column.kind in ("integer", "datetime"):
            x, y = [int(v) for v in x], [int(v) for v in y]
            span = max(x) - min(x)
            assert all(abs(a - b) <= span * 2**-48 for a, b in zip(x, y, strict=True))
        else:
            assert x.tolist() == y.tolist()


def judge_table(drawn):
    """Fit, encode and decode a table."""
    codec = TableCodec()
    with unchanged(drawn.X):
        _, error = refusal(lambda: codec.fit(drawn.X), *drawn.culprits, *alike)
    if error is not None:
        return "refused"
    assert "bad" not in drawn.fates
    typed, ladj = codec.encode(drawn.X)
    assert typed.dtype == ladj.dtype == torch.float64
    assert torch.isfinite(typed).all()
    assert torch.isfinite(ladj).all()
    assert_comes_back(codec, drawn.X, codec.decode(typed))
    # Whatever a model draws is a row.
    wild = torch.tensor([[-1e30], [1e30], [-1.0], [0.0], [1.0]]).double().expand(5, typed.shape[1])
    assert len(codec.decode(wild)) == 5
    return "right"


@examples(200, 5000)
def test_table_codec(n):
    hold("tables", n, judge_table, any_table)


def judge_other_rows(pair):
    """Encode rows that have the names of those fitted, and any values."""
    fitted, other = pair
    codec = TableCodec()
    _, error = refusal(lambda: codec.fit(fitted.X), *fitted.culprits, *alike)
    if error is not None:
        return "not fitted"
    with unchanged(other.X):
        out, error = refusal(
            lambda: codec.encode(other.X), *map(repr, fitted.labels), *other.wrong
        )
    if error is not None:
        return "refused"
    typed, ladj = out
    assert torch.isfinite(typed).all()
    assert (torch.isfinite(ladj) | torch.isneginf(ladj)).all()
    return "right"


@examples(200, 5000)
def test_table_codec_on_other_rows(n):
    hold("other rows of a table", n, judge_other_rows, pairs())


def context_forms(fitted, other):
    """The other rows in each form that a context may have."""
    columns = dict(zip(fitted.labels, cells(other.X), strict=True))
    yield other.X
    yield {k: v.tolist() for k, v in columns.items()}
    if len(other.X):
        yield {k: v[0] for k, v in columns.items()}
        yield [v[0] for v in columns.values()]
    yield {k: v for k, v in columns.items() if k != fitted.labels[0]}
    yield 7


def judge_context(pair, form, apart):
    """Fit a context by the names of its columns, or apart, and encode another, in any form."""
    fitted, other = pair
    codec = ContextCodec(() if apart else tuple(fitted.labels))
    _, error = refusal(lambda: codec.fit(fitted.X), *fitted.culprits, *alike)
    if error is not None:
        return "not fitted"
    context = list(context_forms(fitted, other))[form % len(list(context_forms(fitted, other)))]
    words = (*map(repr, fitted.labels), "context", "empty")
    with unchanged(context):
        features, error = refusal(lambda: codec.encode(context), *words)
    if error is not None:
        return "refused"
    assert features.shape[1] == codec.schema.n_features
    assert torch.isfinite(features).all()
    return "right"


@examples(200, 5000)
def test_context_codec(n):
    hold("contexts", n, judge_context, pairs(), st.integers(0, 5), st.booleans())


def judge_images(drawn):
    """Fit, encode and decode images; score others of their shape."""
    X, good, options = drawn
    codec = ImageCodec(**options)
    words = ("mages", "X ", "of X", "image_shape", "support", "Sparse")
    with unchanged(X):
        _, error = refusal(lambda: codec.fit(X), *([] if good else words))
    if error is not None:
        return "refused"
    typed, ladj = codec.encode(X)
    assert torch.isfinite(typed).all()
    assert torch.isfinite(ladj).all()
    back = codec.decode(typed)
    assert (back.dtype, back.shape) == (X.dtype, X.shape)
    # (The sliver at the edges of the interval, 1e-6 wide, comes back as the edge.)
    tolerance = 0 if X.dtype.kind != "f" else max(np.finfo(X.dtype).eps, 1.1e-6)
    np.testing.assert_allclose(back.astype(float), X.astype(float), atol=tolerance, rtol=tolerance)
    assert np.isfinite(codec.decode(torch.full_like(typed, 1e30)).astype(float)).all()
    if X.dtype.kind in "iuf":
        wild = np.where(X.max() == X, -1 if X.dtype.kind != "u" else 200, X).astype(X.dtype)
        _, ladj = codec.encode(wild)
        assert (torch.isfinite(ladj) | torch.isneginf(ladj)).all()
    return "right"


@examples(100, 5000)
def test_image_codec(n):
    hold("images", n, judge_images, images())


def listed(X):
    return X.to_pylist() if isinstance(X, pa.Array | pa.ChunkedArray) else list(X)


def judge_texts(drawn):
    """Fit, encode and decode strings; score others."""
    X, options = drawn
    codec = TextCodec(**options)
    with unchanged(X):
        _, error = refusal(lambda: codec.fit(X), "X[", "X is empty", *options)
    if error is not None:
        strange = [v for v in listed(X) if not isinstance(v, str) or "\ud800" in v]
        assert strange or len(options) > 1 or not len(X), f"good strings were refused: {error}"
        return "refused"
    ids, ladj = codec.encode(X)
    assert ids.dtype == torch.int64
    assert (ids >= 0).all()
    assert (ids < codec.schema.vocab_size).all()
    assert torch.isfinite(ladj).all()
    back, texts = codec.decode(ids), [v.decode() if isinstance(v, bytes) else v for v in listed(X)]
    assert type(back) is type(X)
    if options["tokens"] == "character":
        texts = ["".join(c if c in codec.symbols else "\ufffd" for c in t) for t in texts]
    assert listed(back) == texts
    _, ladj = codec.encode(["\u4e2d\x00", ""][: 2 if codec.longest > 8 else 0] or X)
    assert torch.isfinite(ladj).all()
    noise = torch.arange(3 * codec.schema.vocab_size).reshape(3, -1) % codec.schema.vocab_size
    assert len(codec.decode(noise)) == 3
    return "right"


@examples(100, 5000)
def test_text_codec(n):
    hold("texts", n, judge_texts, texts())
