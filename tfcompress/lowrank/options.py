"""What may take a kernel's place: decompositions and ranks, their cost, and how much of the kernel they lose."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.linalg

from tfcompress.lowrank import branches, conv
from tfcompress.lowrank.ranks import ebic_rank, energy_rank, vbmf_rank
from tfcompress.lowrank.svd import data_aware_svd, energies, output_basis, tails, truncated_svd

KINDS = ("svd", "tucker", "separable", "cp", "sparse")
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2, 0.16, 0.13, 0.1, 0.075, 0.05, 0.03)  # of an item's MACs
_CP_SHARES = SHARES[4::2]  # alternating least squares takes seconds each


@dataclass(frozen=True)
class Option:
    """A kernel as factors.

    Attributes:
        kind: one of ``KINDS``; ranks: one number, two for "tucker"; for "sparse" a rank and how many are not zero.
        macs, parameters: of the factors' kernels, the zeros of a sparse one too: TFLite stores and multiplies them.
        error: share of the energy lost, 0..1: of the kernel, or with data of what the layer computes.
        zeros: of the parameters.
        arrays: the factors, where they were found along with the ranks.
    """

    kind: str
    ranks: tuple
    macs: int
    parameters: int
    error: float
    zeros: int = 0
    arrays: list | None = field(default=None, compare=False, repr=False)

    @property
    def nonzeros(self):
        return self.parameters - self.zeros


def cost(item, kind, ranks):
    """``(multiply-accumulates, weights)`` of the factors of ``item``; works on arrays of ranks, too."""
    *space, inputs, outputs = item.kernel.shape
    taps, r = math.prod(space), ranks[0]
    if kind == "svd":
        first = item.outputs if space else item.inputs
        return first * r * taps * inputs + item.outputs * r * outputs, r * (taps * inputs + outputs)
    if kind == "tucker":
        first, core, last = inputs * r, taps * r * ranks[1], ranks[1] * outputs
        return item.inputs * first + item.outputs * (core + last), first + core + last
    if kind == "sparse":
        low = cost(item, "svd", ranks)
        return low[0] + item.macs, low[1] + item.kernel.size
    if kind == "separable":
        column, row = space[0] * inputs * r, space[1] * r * outputs
        return item.columns * column + item.outputs * row, column + row
    ends = item.inputs * inputs * r + item.outputs * r * outputs
    if len(space) == 2 and not item.strided:
        middle, numbers = item.columns * space[0] * r + item.outputs * space[1] * r, sum(space) * r
    else:
        middle, numbers = item.outputs * taps * r, taps * r
    return ends + middle, r * (inputs + outputs) + numbers


def factors(item, kind, ranks, covariance=None, restarts=2):
    """The arrays of one option, float64, in running order; ``covariance`` is of what the kernel is multiplied with.

    ``restarts=0`` are quick ones, for an upper bound of what is lost.
    """
    kernel = item.kernel
    *space, inputs, outputs = kernel.shape
    if kind == "sparse":
        return branches.arrays(kernel, *ranks, sweeps=100 if restarts else 8)
    if kind == "svd":
        flat = kernel.reshape(-1, outputs)
        pair = truncated_svd(flat, ranks[0]) if covariance is None else data_aware_svd(flat, covariance, ranks[0])
        return [pair[0].reshape(*space, inputs, ranks[0]), pair[1].reshape(*(1 for _ in space), *pair[1].shape)]
    if kind == "tucker":
        left, core, right = conv.tucker2(kernel, ranks)
        return [left.reshape(*(1 for _ in space), *left.shape), core, right.reshape(*(1 for _ in space), *right.shape)]
    if kind == "separable":
        return list(conv.separable(kernel, ranks[0]))
    if len(space) == 2 and item.strided:                 # a depthwise kernel of TFLite has one stride for both axes
        *middle, first, last = conv.canonical(kernel.reshape(-1, inputs, outputs), ranks[0], restarts=restarts)
        middle = [middle[0].reshape(*space, ranks[0])]
    else:
        *middle, first, last = conv.canonical(kernel, ranks[0], restarts=restarts)
        middle = [np.expand_dims(m, [a for a in range(len(space)) if a != axis]) for axis, m in enumerate(middle)]
    ones = (1,) * len(space)
    return [first.reshape(*ones, *first.shape), *(m[..., None] for m in middle), last.T.reshape(*ones, *last.T.shape)]


def joined(kind, arrays, shape):
    """The kernel that factors stand for."""
    *space, inputs, outputs = shape
    if kind == "sparse":
        return joined("svd", arrays[:2], shape) + arrays[2]
    if kind == "svd":
        return (arrays[0].reshape(-1, arrays[0].shape[-1]) @ arrays[1].reshape(-1, outputs)).reshape(shape)
    if kind == "tucker":
        left, right = (arrays[i].reshape(arrays[i].shape[-2:]) for i in (0, 2))
        return np.einsum("...ab,ia,bo->...io", arrays[1], left, right, optimize=True)
    if kind == "separable":
        return np.einsum("yair,bxro->yxio", *arrays, optimize=True)
    middle = arrays[1][..., 0] if len(arrays) == 3 else arrays[1][..., 0] * arrays[2][..., 0]
    first, last = (arrays[i].reshape(arrays[i].shape[-2:]) for i in (0, -1))
    return np.einsum("...r,ir,ro->...io", middle, first, last, optimize=True)


def lost(item, kernel, covariance=None):
    """Share of the energy that is lost where ``kernel`` takes the item's place, 0..1 or more."""
    gap, whole = (np.ascontiguousarray(a).reshape(-1, a.shape[-1]) for a in (item.kernel - kernel, item.kernel))
    if covariance is None:
        return float((gap**2).sum() / max((whole**2).sum(), 1e-300))
    energy = [float((a * (covariance @ a)).sum()) for a in (gap, whole)]
    return max(energy[0], 0.0) / max(energy[1], 1e-300)


def fitting(item, kinds):
    """Those of ``kinds`` that the item's shape has."""
    *space, _, _ = item.kernel.shape
    fits = {"svd": True, "tucker": bool(space), "separable": len(space) == 2 and min(space) > 1,
            "cp": bool(space) and getattr(item.layer, "padding", "") != "causal",
            "sparse": item.key == "kernel"}      # of a Dense or convolution
    if space and math.prod(space) == 1:                  # a matrix
        fits = {"svd": True, "sparse": True}
    return [kind for kind in kinds if fits.get(kind)]


def options(item, kinds, covariance=None, round_to=1):
    """The item's ``Option``s at the ``SHARES``: each kind's best ranks for so many MACs, none that saves nothing."""
    made, table = [], None
    for kind in fitting(item, kinds):
        if kind == "sparse":
            tried = branches.splits(item.kernel, round_to)
        elif kind == "tucker":
            table = tucker_losses(item.kernel)
            tried = _tucker_ranks(item, table, round_to)
        else:
            tried = _one_rank(item, kind, round_to)
        made += [_option(item, kind, ranks) for ranks in tried]
        made = [one for one in made if saves(item, one)]
    return _with_errors(item, made, covariance, table)


def _option(item, kind, ranks, arrays=None):
    zeros = item.kernel.size - ranks[1] if kind == "sparse" else 0
    return Option(kind, ranks, *map(int, cost(item, kind, ranks)), 0.0, zeros, arrays)


def settled(item, option, covariance=None):
    """The option with its arrays and what these lose: tables hold upper bounds of some kinds."""
    arrays = option.arrays or factors(item, option.kind, option.ranks, covariance)
    return replace(option, arrays=arrays, error=lost(item, joined(option.kind, arrays, item.kernel.shape), covariance))


def ruled(item, kinds, rule, share=None, covariance=None, round_to=1):
    """The option of the fewest MACs that a rule picks, or ``None``; what it loses is told once it is ``settled``.

    Rules: "energy" (with its ``share``), "vbmf" and "ebic".
    A rule that finds rank 0, nothing but noise, leaves the kernel whole; so does a sparse branch of no weights.
    """
    made = []
    for kind in fitting(item, kinds):
        if kind == "sparse":
            *ranks, arrays = branches.chosen(item.kernel)    # EBIC's own: rank and nonzeros belong together
            one = _option(item, kind, tuple(ranks), arrays)
        else:
            spectra = _spectra(item, kind, covariance)
            ranks = (_rank(values, shape, rule, share) for values, shape in spectra)
            one = _option(item, kind, tuple(_rounded_up(rank, round_to, len(values))
                                            for rank, (values, _) in zip(ranks, spectra, strict=True)))
        made += [one] if all(one.ranks) and saves(item, one) else []
    return min(made, key=lambda one: one.macs, default=None)


def _rounded_up(rank, round_to, most):
    return min(-(-rank // round_to) * round_to, most)


def saves(item, option):
    """Whether factors need fewer multiplications and fewer bytes; with a sparse branch: fewer weights that aren't 0."""
    if option.kind == "sparse":
        return option.nonzeros < item.nonzeros
    return option.macs < item.macs and option.parameters < item.kernel.size


def _with_errors(item, made, covariance, tucker=None):
    """The options, each with what it loses: from singular values where these tell, else from the factors' product."""
    found = []
    for kind in dict.fromkeys(one.kind for one in made):
        table, product = None, None
        if kind == "svd" or kind == "separable" and covariance is None:
            flat = conv.unfolded(item.kernel) if kind == "separable" else branches.matrix(item.kernel)
            table = tails(energies(flat) if covariance is None else output_basis(flat, covariance)[0])
        elif kind == "tucker" and covariance is None:
            table = tucker_losses(item.kernel) if tucker is None else tucker
        else:
            product = _products(item, kind)
        for one in (one for one in made if one.kind == kind):
            error = table[one.ranks] if product is None else lost(item, product(one.ranks), covariance)
            found.append(replace(one, error=float(error)))
    return found


def _products(item, kind):
    """A function from ranks to the kernel they leave; Tucker without sweeps: an upper bound of what is lost."""
    kernel = item.kernel
    if kind == "separable":
        height, width, inputs, outputs = kernel.shape
        left, right = truncated_svd(conv.unfolded(kernel), min(height * inputs, width * outputs))

        def product(ranks):
            flat = left[:, :ranks[0]] @ right[:ranks[0]]
            return flat.reshape(height, inputs, width, outputs).transpose(0, 2, 1, 3)
    elif kind == "tucker":
        (_, left), (_, right) = conv.channel_bases(kernel)

        def product(ranks):
            a, b = left[:, :ranks[0]], right[:, :ranks[1]]
            return np.einsum("...io,ia,ja,ob,pb->...jp", kernel, a, a, b, b, optimize=True)
    else:
        def product(ranks):
            return joined(kind, factors(item, kind, ranks, restarts=0), kernel.shape)
    return product


def tucker_losses(kernel):
    """Share of the energy that Tucker-2 without sweeps loses at ranks (a, b): ``(in + 1, out + 1)``."""
    (_, left), (_, right) = conv.channel_bases(kernel)
    flat = kernel.reshape(-1, *kernel.shape[-2:])
    core = np.einsum("sia,ib->sba", flat @ right, left, optimize=True)
    kept = np.zeros((left.shape[0] + 1, right.shape[0] + 1))
    kept[1:, 1:] = (core**2).sum(axis=0).cumsum(axis=0).cumsum(axis=1)
    return np.maximum(1.0 - kept / max(kept[-1, -1], 1e-300), 0.0)


def _rank(values, shape, rule, share):
    if rule == "energy":
        return energy_rank(values, share)
    return (vbmf_rank if rule == "vbmf" else ebic_rank)(values, shape)


def _spectra(item, kind, covariance):
    """``[(singular values, shape)]`` of the matrices whose ranks a kind has."""
    kernel = item.kernel
    if kind == "svd":
        flat = kernel.reshape(-1, kernel.shape[-1])
        if covariance is None:
            return [(scipy.linalg.svdvals(flat), flat.shape)]
        return [(np.sqrt(output_basis(flat, covariance)[0][:min(flat.shape)]), flat.shape)]
    if kind == "tucker":
        rest = kernel.size // np.array(kernel.shape[-2:])
        return [(np.sqrt(energies[:min(len(energies), other)]), (len(energies), int(other)))
                for (energies, _), other in zip(conv.channel_bases(kernel), rest, strict=True)]
    if kind == "separable":
        flat = conv.unfolded(kernel)
        return [(scipy.linalg.svdvals(flat), flat.shape)]
    raise ValueError(f"The ranks of a {kind!r} decomposition are no singular values: it needs rank='budget'.")


# ---- ranks for so many MACs -------------------------------------------------------------------------------------
def _one_rank(item, kind, round_to):
    """One rank a share of the MACs; in steps of ``round_to``, but never below it, where there are as many."""
    shape = item.kernel.shape
    most = {"svd": min(math.prod(shape[:-1]), shape[-1]), "cp": item.kernel.size // max(shape)}
    if kind == "separable":
        most[kind] = min(shape[0] * shape[2], shape[1] * shape[3])
    each = cost(item, kind, (1,))[0]
    wanted = [int(share * item.macs / each) for share in (_CP_SHARES if kind == "cp" else SHARES)]
    rounded = [rank // round_to * round_to or rank for rank in wanted]
    return [(rank,) for rank in dict.fromkeys(rounded) if 1 <= rank <= most[kind]]


def _tucker_ranks(item, losses, round_to):
    """The pair of ranks that loses least, a share of the MACs."""
    rows, columns = (np.arange(1, size) for size in losses.shape)
    rows, columns = (r[(r % round_to == 0) | (len(r) < round_to)] for r in (rows, columns))
    macs, _ = cost(item, "tucker", (rows[:, None], columns[None]))
    error, chosen = losses[np.ix_(rows, columns)], []
    for share in SHARES:
        within = np.where(macs <= share * item.macs, error, np.inf)
        at = np.unravel_index(int(within.argmin()), within.shape)
        if np.isfinite(within[at]):
            chosen.append((int(rows[at[0]]), int(columns[at[1]])))
    return list(dict.fromkeys(chosen))
