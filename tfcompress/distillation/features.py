"""Distillation losses on features: plain functions of the teacher's and the student's, each one scalar.

Features have shape ``(batch, ..., channels)`` with two axes or more; a loss is computed in float32, also under mixed
precision, or in float64 where either one is. Losses on vectors (``similarity``, ``pairwise_relation``, ``mmd``,
``representation``) flatten what has more axes, one row a sample. Each is differentiable in both arguments and its
gradient is finite for zero and constant features: a caller who trains the student stops the teacher's.
"""

import math

import keras
from keras import layers, ops

from tfcompress.distillation.losses import _wide

TINY = 1e-30  # vectors with no larger value count as zero


def hint(teacher, student):
    """``1/2 * mean((student - teacher)**2)``, the mean over every element: batch, positions and channels.

    The gradient by the student is ``(student - teacher) / elements``. Both have one shape; a student with another
    number of channels first goes through a linear regressor (a 1x1 convolution, ``Dense`` for vectors), which is
    trained with it and not exported. Say yourself whether the features are those before or after the ReLU.

    Raises:
        ValueError: the shapes differ.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550.

    >>> float(hint([[1.0, 2.0]], [[1.0, 4.0]]))
    1.0
    """
    teacher, student = _pair(teacher, student)
    if _differ(teacher.shape, student.shape):
        raise ValueError(
            f"A hint compares features element by element. Received: teacher {tuple(teacher.shape)}, student "
            f"{tuple(student.shape)}. Put a regressor behind the student's features (a 1x1 convolution or Dense with "
            f"{teacher.shape[-1]} outputs; pool positions first), or use attention_transfer, which needs none.")
    return ops.mean(ops.square(student - teacher)) / 2


def attention_transfer(teacher, student):
    """``mean((n(A(student)) - n(A(teacher)))**2)``, with ``A = sum over channels of F**2`` and ``n`` the unit vector.

    The map ``A`` of one sample is flattened before ``n``. Channels may differ. So may positions: along each axis the
    longer map is averaged over the areas of the shorter one's cells (average pooling where the sizes divide). The
    gradient vanishes where a student's features are 0.

    Args:
        teacher, student: ``(batch, positions..., channels)``, one or more axes of positions, as many in both.

    Raises:
        ValueError: vectors, which have no positions, or another number of axes.

    Source: Zagoruyko, Komodakis, "Paying More Attention to Attention", arXiv:1612.03928.

    >>> teacher, student = [[[3.0, 0.0], [0.0, 4.0]]], [[[1.0], [0.0]]]   # maps (9, 16) and (1, 0)
    >>> round(float(attention_transfer(teacher, student)), 4)             # 1 - 9 / hypot(9, 16)
    0.5097
    """
    teacher, student = _pair(teacher, student)
    axes = len(teacher.shape)
    if axes < 3 or axes != len(student.shape):
        raise ValueError(
            f"Attention needs features (batch, positions..., channels), with as many axes in both. Received: teacher "
            f"{tuple(teacher.shape)}, student {tuple(student.shape)}. For vectors use hint or representation.")
    teacher, student = matched(*(ops.sum(ops.square(x), axis=-1, keepdims=True) for x in (teacher, student)))
    return ops.mean(ops.square(unit(_rows(student)) - unit(_rows(teacher))))


def similarity(teacher, student):
    """``||G(student) - G(teacher)||_F**2 / batch**2``, with ``G = F F'``, each row of it made a unit vector.

    ``F`` is ``(batch, features)``, flattened; the number of features may differ. It asks that samples which are alike
    for the teacher are alike for the student. A batch of one has nothing to compare: 0.

    Source: Tung, Mori, "Similarity-Preserving Knowledge Distillation", arXiv:1907.09682.

    >>> teacher, student = [[1.0, 0.0], [0.0, 2.0]], [[1.0], [1.0]]     # Grams [[1, 0], [0, 4]] and [[1, 1], [1, 1]]
    >>> round(float(similarity(teacher, student)), 4)                   # rows (1, 0) and (1, 1) / sqrt(2)
    0.2929
    """
    grams = [ops.matmul(x, ops.transpose(x)) for x in map(_rows, _pair(teacher, student))]
    return ops.mean(ops.square(unit(grams[1]) - unit(grams[0])))


def pairwise_relation(teacher, student):
    """``||R(student) - R(teacher)||_F**2 / batch**2``, with ``R = D / mean(D)`` and ``D`` the distances in the batch.

    ``D`` is ``(batch, batch)``, Euclidean, of the flattened features, and its mean goes over all of it, the zero
    diagonal too. Moving, turning and scaling either one's features changes nothing, and their sizes may differ. Two
    rows closer than rounding lets one tell count as one point: distance 0, gradient 0. A batch of one: 0.

    Source: Feng, Lai, Xie, "Resolution-Aware Knowledge Distillation", IEEE TIP 30, 2021 (the pair-wise constraint).

    >>> far, near = [[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]], [[0.0], [1.0], [2.0]]
    >>> round(float(pairwise_relation(far, near)), 6)
    0.0
    """
    relations = []
    for rows in map(_rows, _pair(teacher, student)):
        squared = _squared_distances(rows, rows)
        apart = squared > 0
        distances = ops.where(apart, ops.sqrt(ops.where(apart, squared, ops.ones_like(squared))), squared)
        mean = ops.mean(distances)
        relations.append(distances / ops.where(mean > 0, mean, ops.ones_like(mean)))
    return ops.mean(ops.square(relations[1] - relations[0]))


def mmd(teacher, student, bandwidths=(0.25, 0.5, 1, 2, 4)):
    """``mean k(t, t') + mean k(s, s') - 2 mean k(t, s)``, the squared maximum mean discrepancy of two batches.

    ``k(x, y)`` is the sum over ``bandwidths`` of ``exp(-||x - y||**2 / (2 * (bandwidth * median)**2))``, where the
    median of the distances between different rows of both batches together has no gradient (their quadratic mean where
    it is 0). The means go over all pairs, a row with itself too: the estimator is biased upwards by about ``1/batch``,
    never negative beyond rounding, and exactly 0 for two equal batches. The batches may be of different size; below 8
    the estimate says little.

    Raises:
        ValueError: another number of features, or a bandwidth that is not positive.

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012; in distillation Feng, Lai, Xie 2021.

    >>> x = [[0.0], [1.0], [2.0]]
    >>> float(mmd(x, x)), round(float(mmd(x, [[5.0], [6.0]], bandwidths=(1,))), 4)
    (0.0, 0.8754)
    """
    bandwidths = tuple(float(bandwidth) for bandwidth in bandwidths)
    if not bandwidths or not all(0 < bandwidth < float("inf") for bandwidth in bandwidths):
        raise ValueError(f"Bandwidths are positive multiples of the median distance. Received: {bandwidths}.")
    teacher, student = _same_size("mmd", *map(_rows, _pair(teacher, student, same_batch=False)))
    squared = [_squared_distances(a, b) for a, b in ((teacher, teacher), (student, student), (teacher, student))]
    median = ops.stop_gradient(_squared_median(*squared))

    def kernel(distances):
        return sum(ops.mean(ops.exp(-distances / (2 * median * bandwidth**2))) for bandwidth in bandwidths)

    return kernel(squared[0]) + kernel(squared[1]) - 2 * kernel(squared[2])


def representation(teacher, student):
    """``mean over the batch of ||n(student) - n(teacher)||**2``, with ``n`` the unit vector: ``2 * (1 - cosine)``.

    Features are flattened. A zero vector has no direction: ``n(0) = 0``, which is 1 away from any teacher, and its
    gradient, ``-2 n(teacher) / batch``, is the way to it.

    Raises:
        ValueError: another number of features.

    Source: Ni, Shen, Yuan, "Enhanced Knowledge Distillation for Face Recognition", 2019 (stage one), and the second
    term of the resolution-aware loss of Feng, Lai, Xie 2021.

    >>> float(representation([[2.0, 0.0], [0.0, 1.0]], [[7.0, 0.0], [3.0, 0.0]]))
    1.0
    """
    teacher, student = _same_size("representation", *map(_rows, _pair(teacher, student)))
    return ops.mean(ops.sum(ops.square(unit(student) - unit(teacher)), axis=-1))


def discriminator_loss(real_logits, fake_logits):
    """``-mean log D(teacher) - mean log(1 - D(student))`` from the logits of ``D``: what the discriminator minimises.

    ``real_logits`` are those of the teacher's features, ``fake_logits`` of the student's; any shapes. Computed as
    ``softplus(-real) + softplus(fake)``, which can't overflow. Give it features under ``stop_gradient``.

    Source: Goodfellow et al., "Generative Adversarial Networks", arXiv:1406.2661.

    >>> round(float(discriminator_loss([[0.0]], [[0.0]])), 4), float(discriminator_loss([[1e4]], [[1e4]]))
    (1.3863, 10000.0)
    """
    return ops.mean(ops.softplus(-_wide(real_logits))) + ops.mean(ops.softplus(_wide(fake_logits)))


def adversarial(fake_logits):
    """``-mean log D(student)`` from logits: what the student minimises, the form whose gradient does not vanish.

    The gradient by a logit is ``-(1 - D) / number of logits``.

    >>> round(float(adversarial([[0.0]])), 4), float(adversarial([[-1e4]]))
    (0.6931, 10000.0)
    """
    return ops.mean(ops.softplus(-_wide(fake_logits)))


def discriminator(features, units=(64, 64), seed=0):
    """A new Keras model ``(batch, features) -> (batch, 1)``: Dense layers of ``units``, then one logit in float32.

    Positive for the teacher's features, negative for the student's. Same seed, same start weights.

    >>> discriminator(8).count_params() == 9 * 64 + 65 * 64 + 65
    True
    """
    units = tuple(units)
    if not units or any(not isinstance(number, int) or number < 1 for number in (features, *units)):
        raise ValueError(
            f"A discriminator needs a number of features and the units of one or more hidden layers, all above 0. "
            f"Received: features={features!r}, units={units}. Flatten or pool feature maps before it.")
    start = [keras.initializers.HeNormal(seed=1000 * seed + number) for number in range(len(units) + 1)]
    hidden = [layers.Dense(number, activation="leaky_relu", kernel_initializer=initializer)
              for number, initializer in zip(units, start, strict=False)]
    logit = layers.Dense(1, kernel_initializer=start[-1], dtype="float32", name="logit")
    return keras.Sequential([keras.Input((features,)), *hidden, logit], name="discriminator")


def matched(teacher, student):
    """Both with the smaller number of positions along each axis but the first and last: the longer one is averaged."""
    for axis in range(1, len(teacher.shape) - 1):
        sizes = [ops.shape(x)[axis] for x in (teacher, student)]
        if not all(isinstance(size, int) for size in sizes) or sizes[0] != sizes[1]:
            smaller = ops.minimum(*sizes)
            teacher, student = (_average(x, smaller, axis) for x in (teacher, student))
    return teacher, student


def unit(x, axis=-1):
    """``x`` divided by its Euclidean norm along ``axis``; a zero vector stays 0, with the identity as its gradient.

    Divided by its largest value first, so that no square overflows or vanishes.

    >>> [[round(float(v), 6) for v in row] for row in unit([[3e30, 4e30], [0.0, 0.0]])]
    [[0.6, 0.8], [0.0, 0.0]]
    """
    x = _wide(x)
    largest = ops.stop_gradient(ops.max(ops.abs(x), axis=axis, keepdims=True))
    x = x / ops.where(largest > TINY, largest, ops.ones_like(largest))
    square = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return x * ops.rsqrt(ops.where(square > 0, square, ops.ones_like(square)))


def _pair(teacher, student, same_batch=True):
    """Both as tensors of one width, their axes checked."""
    teacher, student = _wide(teacher), _wide(student)
    if teacher.dtype != student.dtype:
        teacher, student = ops.cast(teacher, "float64"), ops.cast(student, "float64")
    shapes = tuple(teacher.shape), tuple(student.shape)
    if min(map(len, shapes)) < 2:
        raise ValueError(f"Features have shape (batch, ..., channels). Received: teacher {shapes[0]}, student "
                         f"{shapes[1]}. Add the axis of the batch: features[None].")
    if same_batch and _differ(shapes[0][:1], shapes[1][:1]):
        raise ValueError(f"Teacher and student must see the same batch. Received: teacher {shapes[0]}, student "
                         f"{shapes[1]}. The first axis counts the samples.")
    return teacher, student


def _differ(ours, theirs):
    return len(ours) != len(theirs) or any(a != b for a, b in zip(ours, theirs, strict=True) if None not in (a, b))


def _same_size(name, teacher, student):
    if _differ(teacher.shape[1:], student.shape[1:]):
        raise ValueError(
            f"{name} needs as many features of the student as of the teacher. Received: teacher {teacher.shape[1]}, "
            f"student {student.shape[1]} a sample. Put a Dense({teacher.shape[1]}) behind the student's for training.")
    return teacher, student


def _rows(x):
    """``(batch, features)``."""
    known = None not in x.shape[1:]
    return ops.reshape(x, (-1, math.prod(x.shape[1:])) if known else (ops.shape(x)[0], -1))


def _average(x, size, axis):
    """``x`` with ``size`` cells along ``axis``, each the mean of the share of ``x`` that lies in it."""
    share = ops.cast(ops.shape(x)[axis], x.dtype) / ops.cast(size, x.dtype)
    low, old = (ops.cast(ops.arange(count), x.dtype) for count in (size, ops.shape(x)[axis]))
    low = low[:, None] * share
    overlap = ops.maximum(ops.minimum(low + share, old + 1) - ops.maximum(low, old), 0)
    return ops.moveaxis(ops.tensordot(x, overlap / share, axes=[[axis], [1]]), -1, axis)


def _squared_distances(a, b):
    """``(rows of a, rows of b)``; what rounding can't tell from 0 is 0 and has no gradient."""
    centre = ops.stop_gradient((ops.mean(a, axis=0) + ops.mean(b, axis=0)) / 2)
    a, b = a - centre, b - centre
    norms = ops.sum(ops.square(a), axis=1)[:, None] + ops.sum(ops.square(b), axis=1)[None, :]
    squared = norms - 2 * ops.matmul(a, ops.transpose(b))
    precision = 2.0**-52 if keras.backend.standardize_dtype(a.dtype) == "float64" else 2.0**-23
    noise = precision * max(4.0, (a.shape[1] or 1) ** 0.5)
    return ops.where(squared > noise * norms, squared, ops.zeros_like(squared))


def _squared_median(teacher, student, across):
    """Squared median distance of different rows (the upper one of an even number), or the mean square, or 1."""
    flat = [ops.reshape(x, (-1,)) for x in (teacher, student, across, across)]
    flat = ops.sort(ops.concatenate(flat))
    rows = ops.shape(across)[0] + ops.shape(across)[1]      # as many zeros come first: a row and itself
    median, mean = ops.take(flat, rows + (rows * rows - rows) // 2), ops.mean(flat)
    fallback = ops.where(mean > 0, mean, ops.ones_like(mean))
    return ops.where(median > 0, median, fallback)
