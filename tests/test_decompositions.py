"""B6's known answers: planted kernels come back, errors fall with the rank, data-aware factors suit data best."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcompress.lowrank import conv
from tfcompress.lowrank.items import Item
from tfcompress.lowrank.layers import chain
from tfcompress.lowrank.options import cost, factors, joined, lost, options, tucker_losses
from tfcompress.lowrank.ranks import ebic_rank, energy_rank, vbmf_rank
from tfcompress.lowrank.svd import data_aware_svd, tails, truncated_svd

L = keras.layers
rng = np.random.default_rng


def planted(kind, shape, ranks, seed=0):
    """A random kernel that the kind decomposes exactly at these ranks."""
    draw = rng(seed).standard_normal
    *space, inputs, outputs = shape
    if kind == "svd":
        return (draw((int(np.prod(space)) * inputs, ranks[0])) @ draw((ranks[0], outputs))).reshape(shape)
    if kind == "tucker":
        core, left, right = draw((*space, *ranks)), draw((inputs, ranks[0])), draw((ranks[1], outputs))
        return np.einsum("...ab,ia,bo->...io", core, left, right)
    if kind == "separable":
        return np.einsum("yir,xro->yxio", draw((space[0], inputs, ranks[0])), draw((space[1], ranks[0], outputs)))
    return conv.composed([draw((n, ranks[0])) for n in shape])


def item_of(layer, shape):
    layer.build(shape)
    out = layer.compute_output_shape(shape)
    space = len(shape) - 2 if isinstance(layer, (L.Conv1D, L.Conv2D)) else 0
    inputs = int(np.prod(shape[1:1 + space])) if space else 1
    columns = int(np.prod((out[1], *shape[2:-1]))) if space else 1
    outputs = int(np.prod(out[1:1 + space])) if space else 1
    return Item("layer", layer, "kernel", layer.kernel.numpy().astype("float64"), inputs, columns, outputs)


CASES = [
    (L.Dense(20), (None, 24), "svd", (3,)),
    (L.Conv2D(20, 3, padding="same"), (None, 9, 10, 12), "svd", (4,)),
    (L.Conv2D(20, 1, strides=2), (None, 9, 10, 12), "svd", (4,)),
    (L.Conv2D(20, 3, padding="same", activation="relu"), (None, 9, 10, 12), "tucker", (3, 4)),
    (L.Conv2D(20, (3, 5), strides=2, padding="same"), (None, 9, 10, 12), "tucker", (3, 4)),
    (L.Conv2D(20, 3, padding="valid", dilation_rate=2), (None, 9, 10, 12), "tucker", (3, 4)),
    (L.Conv2D(20, 3, padding="same"), (None, 9, 10, 12), "separable", (3,)),
    (L.Conv2D(20, 3, strides=(2, 1), padding="same"), (None, 9, 10, 12), "separable", (3,)),
    (L.Conv2D(20, (5, 3), strides=2, padding="valid", use_bias=False), (None, 9, 10, 12), "separable", (3,)),
    (L.Conv2D(20, 3, padding="same"), (None, 9, 10, 12), "cp", (4,)),
    (L.Conv2D(20, 3, strides=2, padding="same"), (None, 9, 10, 12), "cp", (4,)),
    (L.Conv2D(20, 3, padding="same", dilation_rate=2), (None, 9, 10, 12), "cp", (4,)),
    (L.Conv1D(20, 5, padding="same"), (None, 30, 12), "svd", (3,)),
    (L.Conv1D(20, 5, strides=2, padding="causal"), (None, 30, 12), "tucker", (3, 4)),
    (L.Conv1D(20, 5, strides=2, padding="same"), (None, 30, 12), "cp", (3,)),
]


@pytest.mark.parametrize(("layer", "shape", "kind", "ranks"), CASES)
def test_planted_kernel_gives_the_same_outputs_with_the_predicted_weights(layer, shape, kind, ranks):
    layer = type(layer).from_config(layer.get_config())
    item = item_of(layer, shape)
    kernel = planted(kind, item.kernel.shape, ranks)
    if kind == "cp" and item.strided and kernel.ndim == 4:     # its taps are one axis there
        kernel = planted("cp", (kernel.shape[0] * kernel.shape[1], *kernel.shape[2:]), ranks).reshape(kernel.shape)
    kernel /= np.abs(kernel).max() * np.sqrt(kernel[..., 0].size)
    layer.kernel.assign(kernel)
    item.kernel = kernel
    parts = chain(layer, kind, factors(item, kind, ranks), shape)
    x = rng(1).standard_normal((3, *shape[1:])).astype("float32")
    y, made = layer(x), x
    for part in parts:
        made = part(made)
    np.testing.assert_allclose(made, y, atol=1e-5 * float(np.abs(y).max()))
    kernels = sum(int(np.prod(part.kernel.shape)) for part in parts)
    assert kernels == cost(item, kind, ranks)[1]
    assert sum(part.count_params() for part in parts) == kernels + (20 if layer.use_bias else 0)
    assert [part.name for part in parts][-1] == layer.name and parts[-1].activation is layer.activation
    assert all(part.activation is keras.activations.linear for part in parts[:-1])


@pytest.mark.parametrize(("kind", "ranks"), [("svd", (16,)), ("tucker", (6, 16)), ("separable", (18,))])
def test_full_rank_is_the_kernel_itself(kind, ranks):
    item = item_of(L.Conv2D(16, 3), (None, 9, 9, 6))
    np.testing.assert_allclose(joined(kind, factors(item, kind, ranks), item.kernel.shape), item.kernel, atol=1e-10)


@pytest.mark.parametrize("kind", ["svd", "tucker", "separable"])
def test_more_rank_never_loses_more(kind):
    item = item_of(L.Conv2D(16, 3), (None, 9, 9, 8))
    most = {"svd": 16, "separable": 24, "tucker": 8}[kind]
    found = [lost(item, joined(kind, factors(item, kind, (r,) * (2 if kind == "tucker" else 1)), item.kernel.shape))
             for r in range(1, most + 1)]
    assert all(b <= a + 1e-12 for a, b in zip(found, found[1:], strict=False))


def test_predicted_losses_are_the_real_ones():
    item = item_of(L.Conv2D(16, 3, padding="same"), (None, 9, 9, 8))
    for one in options(item, ("svd", "tucker", "separable")):
        real = lost(item, joined(one.kind, factors(item, one.kind, one.ranks), item.kernel.shape))
        if one.kind == "tucker":                               # told without the sweeps
            assert real <= one.error + 1e-12
        else:
            assert real == pytest.approx(one.error, abs=1e-10)
    bases = conv.tucker2(item.kernel, (4, 6), sweeps=0)
    kernel = np.einsum("...ab,ia,bo->...io", bases[1], bases[0], bases[2])
    assert tucker_losses(item.kernel)[4, 6] == pytest.approx(lost(item, kernel), abs=1e-10)


def test_each_budget_has_the_tucker_ranks_of_the_least_loss():
    item = item_of(L.Conv2D(12, 3, padding="same"), (None, 9, 9, 8))
    table = tucker_losses(item.kernel)
    for one in options(item, ("tucker",)):
        same = [(table[a, b], a, b) for a in range(1, 9) for b in range(1, 13)
                if cost(item, "tucker", (a, b))[0] <= one.macs]
        assert table[one.ranks] == pytest.approx(min(same)[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 40), st.integers(0, 10_000))
def test_data_aware_factors_never_lose_more_on_their_data(m, n, count, seed):
    draw = rng(seed)
    w, x = draw.standard_normal((m, n)), draw.standard_normal((count, m)) * draw.uniform(0.01, 3, m)
    moment = x.T @ x / count
    for rank in range(min(m, n) + 1):
        plain, aware = truncated_svd(w, rank), data_aware_svd(w, moment, rank)
        gaps = [np.linalg.norm(x @ (w - left @ right)) for left, right in (plain, aware)]
        assert gaps[1] <= gaps[0] * (1 + 1e-9) + 1e-9
        assert aware[0].shape == (m, rank) and aware[1].shape == (rank, n)


def test_data_aware_factors_are_the_closed_form():
    draw = rng(0)
    w, x = draw.standard_normal((9, 7)), draw.standard_normal((200, 9)) * np.linspace(0.1, 3, 9)
    c = x.T @ x / 200
    upper = np.linalg.cholesky(c).T
    u, s, vt = np.linalg.svd(upper @ w, full_matrices=False)
    left, right = data_aware_svd(w, c, 3)
    np.testing.assert_allclose(left @ right, np.linalg.solve(upper, u[:, :3] * s[:3] @ vt[:3]), atol=1e-10)


def test_anisotropic_inputs_gain_much():
    draw = rng(3)
    w, x = draw.standard_normal((64, 48)), draw.standard_normal((500, 64)) * np.geomspace(0.01, 3, 64)
    gaps = [np.linalg.norm(x @ (w - left @ right)) / np.linalg.norm(x @ w)
            for left, right in (truncated_svd(w, 12), data_aware_svd(w, x.T @ x / 500, 12))]
    assert gaps[1] < 0.5 * gaps[0]


def test_ranks_by_rule():
    draw = rng(0)
    for rank in (0, 1, 5):
        noisy = draw.standard_normal((80, rank)) @ draw.standard_normal((rank, 60)) + draw.standard_normal((80, 60))
        s = np.linalg.svd(noisy, compute_uv=False)
        assert vbmf_rank(s, noisy.shape) == rank and ebic_rank(s, noisy.shape) == rank
    assert energy_rank([3.0, 0.0], 0.9) == 1 and energy_rank([1.0, 1.0], 1.0) == 2 and energy_rank([0.0], 0.5) == 1
    assert vbmf_rank([0.0, 0.0], (2, 3)) == 0
    np.testing.assert_allclose(tails([4.0, 1.0]), [1.0, 0.2, 0.0])
    assert tails([0.0, 0.0]).tolist() == [0.0, 0.0, 0.0]


def test_vbmf_finds_the_rank_at_many_sizes_and_noise_levels():
    hits = 0
    for seed in range(20):
        draw = rng(seed)
        m, n, rank = (int(v) for v in (draw.integers(30, 120), draw.integers(30, 120), draw.integers(1, 8)))
        low = draw.standard_normal((m, rank)) @ draw.standard_normal((rank, n))
        noisy = low + draw.uniform(0.05, 0.5) * draw.standard_normal((m, n))
        hits += vbmf_rank(np.linalg.svd(noisy, compute_uv=False), (m, n)) == rank
    assert hits >= 19


def test_cp_components_are_balanced_and_zero_stays_zero():
    found = conv.canonical(planted("cp", (3, 3, 5, 7), (2,)), 2)
    lengths = np.array([np.linalg.norm(f, axis=0) for f in found])
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[:1], lengths.shape), rtol=1e-9)
    assert all(not f.any() for f in conv.canonical(np.zeros((3, 3, 2, 2)), 2))


@pytest.mark.parametrize(("call", "words"), [
    (lambda: truncated_svd(np.ones(3), 1), "matrix"), (lambda: truncated_svd(np.ones((2, 3)), 3), "from 0 to 2"),
    (lambda: truncated_svd(np.full((2, 2), np.nan), 1), "NaN"),
    (lambda: data_aware_svd(np.eye(2), np.eye(3), 1), "covariance"),
    (lambda: conv.tucker2(np.ones((3, 3, 2, 2)), (3, 1)), "1..2"),
    (lambda: conv.separable(np.ones((3, 2, 2)), 1), "kh, kw"),
    (lambda: conv.canonical(np.ones((3, 2, 2)), 0), "int >= 1"), (lambda: energy_rank([1.0], 2.0), "at most 1"),
    (lambda: vbmf_rank([1.0], (2, 3)), "2 singular values"),
])
def test_errors_say_what_was_wanted(call, words):
    with pytest.raises(ValueError, match=words):
        call()
