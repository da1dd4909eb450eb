"""Rounding a kernel so that what it computes changes least: coordinate descent on the second moments of its inputs.

The nearest integers are the best ones only where inputs are uncorrelated. With inputs of second moments ``H``, an
error ``E`` of the weights changes the outputs by ``trace(E' H E)`` in the mean square. Weights are visited one after
another, and each gets the integer that is best given all the others, in all columns at once; the error never rises.
The problem is that of GPTQ (Frantar et al., arXiv:2210.17323) and QuantEase (Behdin et al., arXiv:2309.01885), whose
descent this is. Without data ``H`` comes from synthetic inputs.
"""

import numpy as np

BLOCK = 32  # weights whose gradient is kept up to date one by one; those behind follow in one matrix product
CUTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the largest weight that scales of few bits reach


def scales_of(kernel, bits=8, importance=None):
    """The scale of each column: its largest weight is the last code. Columns of zeros have scale 1.

    Of few bits, where it pays to cut off the largest weights, a column's scale is the one of ``CUTS`` that loses least.

    Args:
        kernel: (blocks, inputs, columns); blocks are parts of the same columns.
        bits: of a code, 2 to 8; codes are ``-(2**(bits-1) - 1) .. 2**(bits-1) - 1``.
        importance: (blocks, inputs), mean square of each input; None: all alike.

    >>> scales_of(np.float32([[[0.5, 0.0], [-1.27, 0.0]]])).tolist()
    [0.009999999776482582, 1.0]
    """
    top = 2 ** (bits - 1) - 1
    largest = np.abs(kernel).max(axis=(0, 1))
    plain = np.where(largest > 0, largest / top, 1).astype("float32")
    if bits >= 8:
        return plain
    weight = np.ones(kernel.shape[:2], "float32") if importance is None else importance
    losses = []
    for cut in CUTS:
        codes = np.clip(np.rint(kernel / (cut * plain)), -top, top)
        losses.append(np.einsum("gk,gkm->m", weight, (codes * cut * plain - kernel) ** 2))
    return plain * np.float32(CUTS)[np.argmin(losses, axis=0)]


def round_kernel(kernel, moments, scales, bits=8, sweeps=2, damping=1.0):
    """Codes of a kernel for inputs of these moments. Weights at or beyond the last code stay there.

    Args:
        kernel: float, (groups, inputs, columns); groups are kernels of their own, as a depthwise convolution has them.
        moments: float, (groups, inputs, inputs), second moments or covariances of the inputs.
        scales: float, (groups, columns).
        bits: of a code.
        sweeps: over all weights.
        damping: in units of the mean moment, what is added to the diagonal; it stands for what a few samples don't
            show.

    Returns:
        float32 codes, whole numbers of the kernel's shape.

    >>> kernel, moments = np.float32([[[0.4], [0.4], [3.0]]]), np.ones((1, 3, 3), "float32")  # inputs are always equal
    >>> round_kernel(kernel, moments, np.ones((1, 1)), bits=3, damping=0.01)[0, :, 0].tolist()  # so the sum counts: 3.8
    [1.0, 0.0, 3.0]
    """
    top = 2 ** (bits - 1) - 1
    scales = np.asarray(scales, "float32")[:, None, :]
    exact = np.asarray(kernel, "float32") / scales  # in steps
    codes = np.clip(np.rint(exact), -top, top)
    size = exact.shape[1]
    diagonal = np.einsum("gkk->gk", moments)
    ridge = damping * diagonal.mean(axis=1) + 1e-12
    hessian = moments + ridge[:, None, None] * np.eye(size, dtype="float32")
    free = np.abs(exact) < top - 1e-3
    error = codes - exact
    for _ in range(sweeps):
        gradient = hessian @ error
        for start in range(0, size, BLOCK):
            block = slice(start, min(start + BLOCK, size))
            before = error[:, block].copy()
            _descend(hessian, exact, codes, error, gradient, free, block, top)
            gradient[:, block.stop:] += hessian[:, block.stop:, block] @ (error[:, block] - before)
    return codes.astype("float32")


def _descend(hessian, exact, codes, error, gradient, free, block, top):
    """One visit to the weights of a block, in place; the gradient of the block alone follows."""
    for at in range(block.start, block.stop):
        own = hessian[:, at, at][:, None]
        wished = codes[:, at] - gradient[:, at] / own
        chosen = np.clip(np.rint(wished), -top, top)
        step = np.where(free[:, at], chosen - codes[:, at], 0)
        if step.any():
            codes[:, at] += step
            error[:, at] += step
            gradient[:, block] += hessian[:, block, at][:, :, None] * step[:, None, :]
