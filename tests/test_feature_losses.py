import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfcompress.distillation.features import (
    adversarial,
    attention_transfer,
    discriminator,
    discriminator_loss,
    hint,
    mmd,
    pairwise_relation,
    representation,
    similarity,
    unit,
)

LOSSES = [hint, attention_transfer, similarity, pairwise_relation, mmd, representation]


def features(loss, seed=0, batch=6, dtype="float64"):
    shape = (batch, 3, 2, 4) if loss in (hint, attention_transfer) else (batch, 5)
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def gradient(loss, teacher, student):
    student = tf.constant(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(teacher, student)
    return value.numpy(), tape.gradient(value, student).numpy()


def distances(a, b):
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def normalised(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def median_distance(teacher, student):
    both = np.concatenate([teacher, student])
    pairs = np.sort(distances(both, both)[np.triu_indices(len(both), 1)])
    return pairs[len(pairs) // 2]


def reference_mmd(teacher, student, median, bandwidths=(0.25, 0.5, 1, 2, 4)):
    def kernel(a, b):
        return sum(np.exp(-(distances(a, b) ** 2) / (2 * (w * median) ** 2)).mean() for w in bandwidths)

    return kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(teacher, student)


def reference(loss, teacher, student):
    """The formula in NumPy, word for word."""
    rows = [x.reshape(len(x), -1) for x in (teacher, student)]
    if loss is hint:
        return 0.5 * ((student - teacher) ** 2).mean()
    if loss is attention_transfer:
        maps = [normalised((x**2).sum(-1).reshape(len(x), -1)) for x in (teacher, student)]
        return ((maps[1] - maps[0]) ** 2).mean()
    if loss is similarity:
        grams = [normalised(x @ x.T) for x in rows]
        return ((grams[1] - grams[0]) ** 2).sum() / len(teacher) ** 2
    if loss is pairwise_relation:
        relations = [distances(x, x) / distances(x, x).mean() for x in rows]
        return ((relations[1] - relations[0]) ** 2).sum() / len(teacher) ** 2
    if loss is representation:
        return ((normalised(rows[1]) - normalised(rows[0])) ** 2).sum(-1).mean()
    return reference_mmd(*rows, median_distance(*rows))


# ---- every loss ----
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
def test_identical_features_cost_nothing(loss, dtype):
    x = features(loss, dtype=dtype, batch=33)
    value = loss(x, x.copy())
    assert value.shape == () and value.dtype == dtype and float(value) == 0.0


@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradient_are_those_of_the_formula(loss):
    teacher, student = features(loss, 1), features(loss, 2)
    value, found = gradient(loss, teacher, student)
    np.testing.assert_allclose(value, reference(loss, teacher, student), rtol=1e-12)
    fixed = median_distance(teacher, student) if loss is mmd else None      # the median has no gradient
    finite = np.zeros_like(student)
    for index in np.ndindex(student.shape):
        sides = []
        for step in (1e-5, -1e-5):
            moved = student.copy()
            moved[index] += step
            sides.append(reference_mmd(teacher, moved, fixed) if fixed else reference(loss, teacher, moved))
        finite[index] = (sides[0] - sides[1]) / 2e-5
    np.testing.assert_allclose(found, finite, atol=1e-9)
    assert np.abs(found).max() > 1e-4


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", ["zeros", "constant", "equal rows", "one sample", "huge", "tiny"])
def test_degenerate_features_have_finite_gradients(loss, case):
    teacher, student = features(loss, 1, dtype="float32"), features(loss, 2, dtype="float32")
    teacher, student = {
        "zeros": (teacher, 0 * student), "constant": (np.ones_like(teacher), np.ones_like(student)),
        "equal rows": (teacher, np.repeat(student[:1], 6, 0)), "one sample": (teacher[:1], student[:1]),
        "huge": (teacher, 1e8 * student), "tiny": (teacher, 1e-12 * student)}[case]  # fmt: skip
    for pair in ((teacher, student), (student, teacher)):
        value, found = gradient(loss, *pair)
        assert np.isfinite(value) and np.isfinite(found).all()
    if case == "one sample" and loss in (similarity, pairwise_relation):
        assert value == 0 and not found.any()
    if case == "zeros" and loss is representation:
        np.testing.assert_allclose(gradient(loss, teacher, student)[1], -2 * normalised(teacher) / 6, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_float32(loss):
    teacher, student = features(loss, 1, dtype="float16"), features(loss, 2, dtype="float16")
    value, found = gradient(loss, teacher, student)
    assert value.dtype == "float32" and found.dtype == "float16"
    np.testing.assert_allclose(value, loss(teacher.astype("float32"), student.astype("float32")), rtol=1e-6)
    big = np.full_like(teacher, 3e4)
    assert np.isfinite(loss(big, -big)) and loss(teacher, features(loss, 2)).dtype == "float64"


@pytest.mark.parametrize("loss", LOSSES)
def test_a_compiled_step_with_an_unknown_batch_gives_the_same(loss):
    teacher, student = features(loss, 1, dtype="float32"), features(loss, 2, dtype="float32")
    spec = tf.TensorSpec((None, *teacher.shape[1:]), "float32")
    compiled = tf.function(lambda t, s: gradient_in_graph(loss, t, s), input_signature=[spec, spec])
    for found, expected in zip(compiled(teacher, student), gradient(loss, teacher, student), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def gradient_in_graph(loss, teacher, student):
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(teacher, student)
    return value, tape.gradient(value, student)


@pytest.mark.parametrize("loss", LOSSES)
def test_wrong_shapes_are_refused(loss):
    x = features(loss)
    with pytest.raises(ValueError, match="batch"):
        loss(x[0, 0, 0] if x.ndim > 2 else x[0], x)
    if loss is not mmd:
        with pytest.raises(ValueError, match="same batch.*Received: teacher"):
            loss(x, x[:4])


# ---- hints ----
def test_hint_tells_that_a_regressor_is_needed():
    with pytest.raises(ValueError, match="regressor.*16 outputs"):
        hint(np.zeros((2, 4, 4, 16)), np.zeros((2, 4, 4, 8)))


def test_planted_linear_student_costs_nothing_after_least_squares():
    random = np.random.default_rng(3)
    teacher = random.standard_normal((64, 4, 4, 12))
    student = teacher @ random.standard_normal((12, 16))            # a linear map of the teacher's features
    assert hint(teacher, student[..., :12]) > 0.1
    flat = student.reshape(-1, 16).astype("float32")
    weights = np.linalg.lstsq(flat, teacher.reshape(-1, 12).astype("float32"), rcond=1e-6)[0]
    regressor = layers.Conv2D(12, 1, use_bias=False)
    regressor.build((None, 4, 4, 16))
    regressor.set_weights([weights[None, None]])
    assert hint(teacher.astype("float32"), regressor(student)) < 1e-6


def test_layers_above_the_guided_one_get_no_gradient():
    x = keras.Input((4,))
    guided = layers.Dense(3, name="guided")(x)
    model = keras.Model(x, [guided, layers.Dense(2, name="head")(guided)])
    with tf.GradientTape() as tape:
        loss = hint(np.ones((5, 3)), model(np.ones((5, 4)))[0])
    found = tape.gradient(loss, model.trainable_variables)
    assert [g is not None for g in found] == [True, True, False, False]


# ---- attention ----
def test_attention_pools_the_larger_map_and_ignores_channels():
    random = np.random.default_rng(4)
    small = random.standard_normal((3, 4, 2, 5))
    large = np.repeat(np.repeat(small, 2, 1), 3, 2)
    assert attention_transfer(large, np.concatenate([small, small], -1)) < 1e-15
    assert attention_transfer(small, 7 * large) < 1e-15
    maps = random.standard_normal((3, 6, 1))
    pooled = np.sqrt((maps**2).reshape(3, 3, 2, 1).mean(2))         # 1-D: cells of two
    assert attention_transfer(maps, pooled) < 1e-15
    uneven = np.sqrt([[[1.0], [2.0], [3.0]]])                       # 3 -> 2: means of 1, 2/2 and 2/2, 3
    assert attention_transfer(uneven, np.sqrt([[[4 / 3], [8 / 3]]])) < 1e-15


def test_attention_of_unknown_sizes_and_of_vectors():
    teacher, student = features(attention_transfer, 1), np.random.default_rng(5).standard_normal((6, 2, 2, 3))
    spec = tf.TensorSpec((None, None, None, None), "float64")
    compiled = tf.function(attention_transfer, input_signature=[spec, spec])
    np.testing.assert_allclose(compiled(teacher, student), attention_transfer(teacher, student), rtol=1e-12)
    for wrong in (np.zeros((2, 8)), np.zeros((2, 4, 8))):
        with pytest.raises(ValueError, match="Attention needs features.*use hint or representation"):
            attention_transfer(wrong, np.zeros((2, 4, 4, 8)) if wrong.ndim == 3 else wrong)


# ---- relations in a batch ----
def rotated(x, seed=6):
    return x @ np.linalg.qr(np.random.default_rng(seed).standard_normal((x.shape[1],) * 2))[0].astype(x.dtype)


@pytest.mark.parametrize("dtype, within", [("float64", 1e-12), ("float32", 1e-6)])
def test_relations_see_neither_rotation_scale_nor_place(dtype, within):
    x, y = np.random.default_rng(7).standard_normal((2, 32, 16)).astype(dtype)
    assert pairwise_relation(x, 100 * rotated(x) + 3) < within
    np.testing.assert_allclose(pairwise_relation(x, 0.01 * rotated(y) - 1), pairwise_relation(x, y), atol=within)
    np.testing.assert_allclose(similarity(x, 3 * rotated(y)), similarity(x, y), atol=within)
    assert pairwise_relation(x, y) > 0.01 and similarity(x, y) > 1e-3


def test_sizes_of_teacher_and_student_may_differ_where_only_relations_count():
    teacher = np.random.default_rng(8).standard_normal((8, 3, 3, 2))
    padded = np.concatenate([teacher.reshape(8, -1), np.zeros((8, 5))], -1)
    assert pairwise_relation(teacher, padded) < 1e-15 and similarity(teacher, padded) < 1e-15
    for loss in (mmd, representation):
        with pytest.raises(ValueError, match=r"teacher 18, student 23 a sample.*Dense\(18\)"):
            loss(teacher, padded)


# ---- MMD ----
def test_mmd_grows_with_a_planted_shift_of_the_mean():
    x, y = np.random.default_rng(9).standard_normal((2, 128, 8))
    found = [float(mmd(x, y + shift)) for shift in (0, 0.25, 0.5, 1, 2, 4)]
    assert found == sorted(found) and found[0] < 0.1 and found[2] > 2 * found[0] and found[-1] > 1


def test_mmd_of_batches_of_other_sizes_and_of_other_bandwidths():
    teacher, student = np.random.default_rng(10).standard_normal((2, 9, 4))
    student = student[:4]
    found = mmd(teacher, student, bandwidths=(1, 3))
    expected = reference_mmd(teacher, student, median_distance(teacher, student), (1, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(mmd(1e3 * teacher, 1e3 * student, (1, 3)), expected, rtol=1e-9)
    assert mmd(teacher[:1], student[:1]) > 0
    dead = np.repeat(np.eye(1, 4), 20, 0)
    assert mmd(dead, dead) == 0 and mmd(dead, np.concatenate([dead[2:], 1 + dead[:2]])) > 0
    for wrong in ((), (0,), (1, -1)):
        with pytest.raises(ValueError, match="positive multiples"):
            mmd(teacher, student, wrong)


# ---- representation and the adversary ----
def test_representation_is_two_minus_two_cosines():
    teacher, student = np.random.default_rng(11).standard_normal((2, 12, 7))
    cosine = (normalised(teacher) * normalised(student)).sum(-1).mean()
    np.testing.assert_allclose(representation(teacher, student), 2 * (1 - cosine), rtol=1e-12)
    np.testing.assert_allclose(representation(teacher, 5 * teacher), 0, atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(unit(1e-20 * teacher.astype("float32")), axis=-1), 1, rtol=1e-6)


def test_adversarial_losses_are_the_formula_and_stay_finite():
    real, fake = np.random.default_rng(12).standard_normal((2, 9, 1))
    one, other = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    np.testing.assert_allclose(discriminator_loss(real, fake), -np.log(one).mean() - np.log(1 - other).mean())
    value, found = gradient(lambda _, logits: adversarial(logits), None, fake)
    np.testing.assert_allclose(value, -np.log(other).mean())
    np.testing.assert_allclose(found, -(1 - other) / 9)
    for logits in (np.float32([[1e4]]), np.float16([[-6e4]])):
        assert np.isfinite(adversarial(logits)) and np.isfinite(discriminator_loss(logits, -logits))


def test_discriminator_repeats_from_its_seed_and_refuses_nonsense():
    x = np.random.default_rng(13).standard_normal((4, 6)).astype("float32")
    first, again, other = (ops.convert_to_numpy(discriminator(6, seed=seed)(x)) for seed in (1, 1, 2))
    assert first.shape == (4, 1) and np.array_equal(first, again) and not np.array_equal(first, other)
    assert [layer.units for layer in discriminator(6, (8, 4)).layers] == [8, 4, 1]
    for wrong in ({"features": 0}, {"features": 6, "units": ()}, {"features": 6, "units": (0,)}, {"features": (4, 4)}):
        with pytest.raises(ValueError, match="A discriminator needs"):
            discriminator(**wrong)


def test_discriminator_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        net = discriminator(6, (8,))
    finally:
        keras.config.set_dtype_policy("float32")
    logits = net(np.ones((4, 6), "float16"))
    assert logits.dtype == "float32" and adversarial(logits).dtype == "float32"


@pytest.mark.slow
def test_student_trained_on_representation_alone_reaches_the_teacher():
    random = np.random.default_rng(14)
    x = random.standard_normal((256, 6)).astype("float32")
    teacher = np.maximum(x @ random.standard_normal((6, 8)), 0) @ random.standard_normal((8, 5))
    student = keras.Sequential([keras.Input((6,)), layers.Dense(48, "relu"), layers.Dense(5)])
    student.compile(keras.optimizers.Adam(0.02), representation, jit_compile=False)
    student.fit(np.tile(x, (50, 1)), np.tile(teacher, (50, 1)), batch_size=128, verbose=0)
    cosine = (normalised(teacher) * normalised(student.predict(x, verbose=0))).sum(-1)
    assert cosine.mean() > 0.99


@pytest.mark.slow
def test_adversarial_steps_move_the_student_to_the_teacher():
    random = np.random.default_rng(15)
    teacher = random.standard_normal((64, 4)).astype("float32") + 2
    shift = tf.Variable(tf.zeros(4))
    start = random.standard_normal((64, 4)).astype("float32")
    judge, ours, theirs = discriminator(4, (16,)), keras.optimizers.Adam(0.05), keras.optimizers.Adam(0.02)
    before = float(mmd(teacher, start + shift))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = discriminator_loss(judge(teacher), judge(ops.stop_gradient(start + shift)))
        theirs.apply(tape.gradient(loss, judge.trainable_variables), judge.trainable_variables)
        with tf.GradientTape() as tape:
            loss = adversarial(judge(start + shift))
        ours.apply([tape.gradient(loss, shift)], [shift])

    for _ in range(150):
        step()
    assert mmd(teacher, start + shift) < before / 4
