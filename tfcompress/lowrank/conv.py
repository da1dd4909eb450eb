"""A convolution kernel as several small ones: Tucker-2, spatially separable, CP. Kernels are (space..., in, out)."""

import warnings

import numpy as np
import scipy.linalg

from tfcompress.lowrank.svd import truncated_svd

_RIDGE = 1e-9  # of the energy: with 1e-6 a planted kernel comes back to 1e-5 only


def tucker2(kernel, ranks, sweeps=3):
    """``kernel ~ core x_in left x_out right``: a 1 x 1 convolution, a small one in space, a 1 x 1 convolution.

    Bases are the leading singular vectors of the kernel's unfoldings along its input and output channels (HOSVD), then
    refined in turn, each for the other fixed (HOOI): the error never grows.

    Args:
        kernel: real (space..., in, out), one or more axes of space.
        ranks: ``(r_in, r_out)``, 1..in and 1..out.
        sweeps: of HOOI; 0 is HOSVD.

    Returns:
        ``left`` (in, r_in), ``core`` (space..., r_in, r_out), ``right`` (r_out, out), float64. They have
        ``in * r_in + space * r_in * r_out + r_out * out`` numbers.

    Raises:
        ValueError: no kernel of finite numbers, or ranks out of range.

    Kim Y-D et al., "Compression of deep convolutional neural networks for fast and low power mobile applications", ICLR
    2016, arXiv:1511.06530.

    >>> left, core, right = tucker2(np.ones((3, 3, 8, 4)), (1, 1))
    >>> left.shape, core.shape, right.shape, round(float(np.abs(core).max()), 6) == round((8 * 4) ** 0.5, 6)
    ((8, 1), (3, 3, 1, 1), (1, 4), True)
    """
    kernel = _kernel(kernel)
    r_in, r_out = ranks
    if not (1 <= r_in <= kernel.shape[-2] and 1 <= r_out <= kernel.shape[-1]):
        raise ValueError(f"Tucker ranks of a kernel {kernel.shape} are 1..{kernel.shape[-2]} and "
                         f"1..{kernel.shape[-1]}. Received: {tuple(ranks)}.")
    flat = kernel.reshape(-1, *kernel.shape[-2:])
    (_, left), (_, right) = channel_bases(kernel)
    left, right = left[:, :r_in], right[:, :r_out]
    for _ in range(sweeps if r_in < flat.shape[1] or r_out < flat.shape[2] else 0):
        left = _leading(np.einsum("sio,or->isr", flat, right, optimize=True), r_in)
        right = _leading(np.einsum("sio,ir->osr", flat, left, optimize=True), r_out)
    core = np.einsum("sio,ia,ob->sab", flat, left, right, optimize=True)
    return left, core.reshape(*kernel.shape[:-2], r_in, r_out), right.T


def channel_bases(kernel):
    """Energies, falling, and orthonormal directions along a kernel's input channels, and along its output channels."""
    flat = _kernel(kernel).reshape(-1, *np.shape(kernel)[-2:])
    found = []
    for axis in (1, 2):
        rows = np.moveaxis(flat, axis, 0).reshape(flat.shape[axis], -1)
        values, vectors = scipy.linalg.eigh(rows @ rows.T)
        found.append((np.maximum(values[::-1], 0.0), np.ascontiguousarray(vectors[:, ::-1])))
    return found


def separable(kernel, rank):
    """A 2-D kernel as a column of height kh, in -> rank, and a row of width kw, rank -> out; nearest in this form.

    The kernel as a matrix of (kh * in) x (kw * out), by its truncated SVD.

    Args:
        kernel: real (kh, kw, in, out).
        rank: 1..min(kh * in, kw * out).

    Returns:
        ``column`` (kh, 1, in, rank), ``row`` (1, kw, rank, out), float64: ``rank * (kh * in + kw * out)`` numbers.

    Raises:
        ValueError: no 2-D kernel of finite numbers, or a rank out of range.

    Jaderberg M, Vedaldi A, Zisserman A, "Speeding up convolutional neural networks with low rank expansions", BMVC
    2014, arXiv:1405.3866, scheme 2.

    >>> column, row = separable(np.ones((3, 5, 2, 4)), 1)
    >>> column.shape, row.shape, bool(np.allclose(np.einsum("yair,bxro->yxio", column, row), 1.0))
    ((3, 1, 2, 1), (1, 5, 1, 4), True)
    """
    kernel = _kernel(kernel)
    if kernel.ndim != 4:
        raise ValueError(f"Expected a kernel (kh, kw, in, out). Received: shape {kernel.shape}.")
    height, width, inputs, outputs = kernel.shape
    left, right = truncated_svd(unfolded(kernel), rank)
    column = left.reshape(height, 1, inputs, rank)
    return column, right.reshape(rank, width, outputs).transpose(1, 0, 2)[None]


def unfolded(kernel):
    """The kernel (kh, kw, in, out) as a matrix (kh * in, kw * out)."""
    height, width, inputs, outputs = kernel.shape
    return np.transpose(kernel, (0, 2, 1, 3)).reshape(height * inputs, width * outputs)


def canonical(kernel, rank, *, restarts=2, iterations=200, tolerance=1e-9, seed=0):
    """CP: the kernel as a sum of ``rank`` outer products, one vector an axis, by alternating least squares.

    The best of a start from singular vectors and of ``restarts`` random ones, by ``tensorly``'s ``parafac``. A tiny
    ridge keeps components that grow against each other apart.

    Args:
        kernel: real (space..., in, out).
        rank: 1 or more.
        restarts, seed: random starts beside the first.
        iterations, tolerance: at most so many rounds, or until the relative error changes by less.

    Returns:
        One factor an axis, in the kernel's order, ``(size, rank)``, float64: ``rank * (sum of sizes)`` numbers. All
        vectors of a component are of one length.

    Raises:
        ValueError: no kernel of finite numbers, or a rank below 1.

    Lebedev V et al., "Speeding-up convolutional neural networks using fine-tuned CP-decomposition", ICLR 2015,
    arXiv:1412.6553.

    >>> factors = canonical(np.ones((3, 3, 2, 4)), 1)
    >>> [f.shape for f in factors], bool(np.allclose(composed(factors), 1.0))
    ([(3, 1), (3, 1), (2, 1), (4, 1)], True)
    """
    from tensorly.decomposition import parafac  # takes a second to import

    kernel = _kernel(kernel)
    if not isinstance(rank, (int, np.integer)) or rank < 1:
        raise ValueError(f"The rank is an int >= 1. Received: {rank!r}.")
    size = np.linalg.norm(kernel)
    if size == 0:
        return [np.zeros((n, rank)) for n in kernel.shape]
    best, least = None, np.inf
    for start in range(1 + restarts):
        with warnings.catch_warnings():                  # it fills up with random vectors where an axis has too few
            warnings.simplefilter("ignore", UserWarning)
            found = parafac(kernel / size, rank, n_iter_max=iterations, init="random" if start else "svd",
                            tol=tolerance, l2_reg=_RIDGE, random_state=seed + start)
        factors = [found.factors[0] * found.weights, *found.factors[1:]]
        error = np.linalg.norm(composed(factors) - kernel / size)
        if np.isfinite(error) and error < least:
            best, least = factors, error
    if best is None:
        raise ValueError(f"Alternating least squares found no CP decomposition of rank {rank} for a kernel "
                         f"{kernel.shape} from {1 + restarts} starts. Ask for a lower rank.")
    return _balanced(best, size)


def composed(factors):
    """The array that CP factors stand for."""
    array = factors[0]
    for factor in factors[1:]:
        array = array[..., None, :] * factor
    return array.sum(axis=-1)


def _balanced(factors, size):
    """The same components, times ``size``, all vectors of one component of one length."""
    lengths = np.array([np.linalg.norm(f, axis=0) for f in factors])
    each = (size * lengths.prod(axis=0)) ** (1 / len(factors))
    return [f * each / np.where(length > 0, length, 1.0) for f, length in zip(factors, lengths, strict=True)]


def _leading(tensor, rank):
    """Orthonormal directions of the most energy along the first axis."""
    rows = tensor.reshape(len(tensor), -1)
    return np.ascontiguousarray(scipy.linalg.eigh(rows @ rows.T)[1][:, ::-1][:, :rank])


def _kernel(kernel):
    kernel = np.asarray(kernel, "float64")
    if kernel.ndim < 3 or not kernel.size or not np.isfinite(kernel).all():
        raise ValueError(f"Expected a kernel (space..., in, out) of finite numbers. Received: shape {kernel.shape}.")
    return kernel
