import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfcompress.distillation import Distiller, recover_logits, soft_targets
from tfcompress.distillation.losses import head_of
from tfcompress.schedules import Linear

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(units=8, classes=3, activation=None, seed=0, regularizer=None, dropout=0.0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([
        keras.Input((4,)), layers.Dense(units, activation="relu", kernel_regularizer=regularizer),
        layers.Dropout(dropout), layers.Dense(classes, activation=activation)])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((96, 4)).astype("float32")
    return x, (x[:, :3]).argmax(-1)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def reference(teacher, student, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


# ---- losses: the known answers of Hinton et al. ----
def test_soft_targets_is_zero_where_student_equals_teacher():
    z = np.random.default_rng(1).standard_normal((16, 10)).astype("float32") * 5
    assert np.abs(soft_targets(z, z, 4.0)).max() < 1e-7


def test_soft_targets_is_the_formula_and_does_not_see_a_constant():
    v, z = np.random.default_rng(2).standard_normal((2, 8, 5))
    np.testing.assert_allclose(soft_targets(v, z, 3.0), reference(v, z, 3.0), rtol=1e-10)
    np.testing.assert_allclose(soft_targets(v + 7, z - 3, 3.0), reference(v, z, 3.0), rtol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_gradient_is_t_times_q_minus_p(temperature):
    v, z = np.random.default_rng(3).standard_normal((2, 1, 6)) * 3
    expected = 0.9 * temperature * (softmax(z / temperature) - softmax(v / temperature))
    step = 1e-5 * np.eye(6)[:, None, :]
    finite = [(0.9 * (reference(v, z + h, temperature) - reference(v, z - h, temperature)) / 2e-5)[0] for h in step]
    np.testing.assert_allclose(finite, expected[0], atol=1e-8)
    z = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = 0.9 * soft_targets(v, z, temperature)
    np.testing.assert_allclose(tape.gradient(loss, z), expected, atol=1e-9)


def test_high_temperature_is_regression_of_centred_logits():
    v, z = np.random.default_rng(4).standard_normal((2, 3, 7)) * 4
    difference = (z - z.mean(-1, keepdims=True)) - (v - v.mean(-1, keepdims=True))
    limit = (difference**2).sum(-1) / (2 * 7)
    np.testing.assert_allclose(soft_targets(v, z, 2e4), limit, rtol=1e-3)


def test_other_number_of_classes_is_an_error():
    with pytest.raises(ValueError, match="teacher with 4 outputs and a student with 3"):
        soft_targets(np.zeros((2, 4)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="recover_logits"):
        soft_targets(np.zeros((2, 1)), np.zeros((2, 1)))


def test_logits_behind_probabilities():
    z = np.random.default_rng(5).standard_normal((4, 6)) * 3
    for temperature in (1.0, 5.0):
        p = softmax(ops.convert_to_numpy(recover_logits(softmax(z), "softmax")) / temperature)
        np.testing.assert_allclose(p, softmax(z / temperature), atol=1e-12)
    one = ops.convert_to_numpy(recover_logits(1 / (1 + np.exp(-z[:, :1])), "sigmoid"))
    np.testing.assert_allclose(one, np.concatenate([0 * z[:, :1], z[:, :1]], -1), atol=1e-9)
    np.testing.assert_allclose(recover_logits(z[:, :1]), one, atol=1e-9)
    assert recover_logits(np.full((2, 5), 0.5), "sigmoid").shape == (2, 5, 2)
    hard = ops.convert_to_numpy(recover_logits(np.array([[0.0, 1.0]], "float16"), "softmax"))
    assert hard.dtype == "float32" and np.isfinite(hard).all() and abs(hard[0, 0] - np.log(1e-12)) < 1e-4
    assert np.isfinite(ops.convert_to_numpy(recover_logits(np.array([[0.0], [1.0]]), "sigmoid"))).all()


def test_head_is_read_from_the_graph():
    inner = net(activation="softmax")
    inputs = keras.Input((4,))
    cast = layers.Activation("linear", dtype="float32")
    shaped = layers.Reshape((3, 1))(layers.Dense(3, activation="sigmoid")(inputs))
    cases = {
        "logits": [net(), keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu")])],
        "softmax": [inner, keras.Model(inputs, inner(inputs)), keras.Model(inputs, cast(inner(inputs))),
                    keras.Model(inputs, layers.Softmax()(inputs)), keras.Model(inputs, ops.softmax(inputs)),
                    keras.Sequential([keras.Input((5, 4)), layers.TimeDistributed(layers.Dense(3, "softmax"))]),
                    keras.Sequential([keras.Input((5, 4)), layers.TimeDistributed(inner)])],
        "sigmoid": [keras.Model(inputs, shaped), keras.Model(inputs, layers.Activation("sigmoid")(inputs))],
    }
    assert {kind: {head_of(model) for model in models} for kind, models in cases.items()} == {k: {k} for k in cases}
    assert head_of(keras.Sequential([layers.Dense(3)])) is None


# ---- Distiller ----
def fit(model, data, loss=SPARSE, epochs=2, **kwargs):
    keras.utils.set_random_seed(7)
    if not model.compiled:
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model.fit(*data, batch_size=32, epochs=epochs, verbose=0, **kwargs).history


@pytest.mark.parametrize("weighted", [False, True])
def test_alpha_0_is_plain_training_bit_for_bit(data, weighted):
    x, y = data
    extra = {"sample_weight": np.linspace(0, 2, len(x)).astype("float32")} if weighted else {}
    plain, student = net(seed=1, dropout=0.3, regularizer="l2"), net(seed=1, dropout=0.3, regularizer="l2")
    first = fit(plain, data, **extra)
    second = fit(Distiller(student, net(16), alpha=0), data, **extra)
    assert first["loss"] == second["loss"] and first["accuracy"] == second["accuracy"]
    for a, b in zip(plain.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_student_equal_to_teacher_learns_nothing_from_it_and_teacher_stays(data):
    teacher = keras.Sequential([net(seed=2), layers.BatchNormalization()])
    before = [w.copy() for w in teacher.get_weights()]
    student = keras.models.clone_model(teacher)
    student.set_weights(before)
    distiller = Distiller(student, teacher, alpha=0.5)
    distiller.compile(keras.optimizers.SGD(0.1), SPARSE)
    assert distiller.evaluate(*data, verbose=0, return_dict=True)["soft_loss"] < 1e-7
    distiller.fit(*data, epochs=2, verbose=0)
    assert not np.allclose(student.get_weights()[0], before[0])
    assert all(np.array_equal(a, b) for a, b in zip(teacher.get_weights(), before, strict=True))
    assert teacher.trainable and len(distiller.trainable_variables) == len(student.trainable_variables)


def test_loss_is_the_formula_with_weights_and_regularizers(data):
    x, y = data
    student, teacher = net(seed=3, regularizer="l2"), net(16, seed=4, activation="softmax")
    weight = np.linspace(0.0, 3.0, len(x)).astype("float32")
    distiller = Distiller(student, teacher, temperature=3.0, alpha=0.7)
    distiller.compile("sgd", SPARSE, weighted_metrics=["accuracy"])
    got = distiller.evaluate(x, y, sample_weight=weight, batch_size=len(x), verbose=0, return_dict=True)
    z, v = student.predict(x, verbose=0), np.log(teacher.predict(x, verbose=0))
    soft = (weight * reference(v, z, 3.0)).mean()
    hard = (weight * -np.log(softmax(z)[np.arange(len(x)), y])).mean()
    penalty = 0.01 * (student.get_weights()[0] ** 2).sum()
    assert got["soft_loss"] == pytest.approx(soft, rel=1e-5)
    assert got["loss"] == pytest.approx(0.7 * soft + 0.3 * hard + penalty, rel=1e-5)
    right = z.argmax(-1) == y
    assert got["accuracy"] == pytest.approx((weight * right).sum() / weight.sum(), rel=1e-5)
    np.testing.assert_array_equal(distiller.predict(x, verbose=0), z)


def test_class_weight_counts(data):
    histories = [fit(Distiller(net(seed=5), net(16), alpha=0.5), data, class_weight=w, epochs=1)
                 for w in (None, {0: 1.0, 1: 1.0, 2: 1.0}, {0: 0.0, 1: 0.0, 2: 0.0})]
    assert histories[0]["loss"] == pytest.approx(histories[1]["loss"])
    assert histories[2]["loss"] == [0.0]


def test_alpha_1_needs_no_labels(data):
    teacher = net(16, seed=6)
    fit(teacher, data, epochs=10)
    distiller = Distiller(net(seed=7), teacher, temperature=2.0, alpha=1)
    distiller.compile(keras.optimizers.Adam(0.03))
    loss = distiller.fit(data[0], batch_size=32, epochs=15, verbose=0).history["loss"]
    assert loss[-1] < 0.2 * loss[0]
    same = distiller.predict(data[0], verbose=0).argmax(-1) == teacher.predict(data[0], verbose=0).argmax(-1)
    assert same.mean() > 0.9


def test_temperature_schedule_is_read_every_step(data):
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(self.model._current))

    distiller = Distiller(net(seed=8), net(16), temperature=Linear(target=2.0, begin=0, end=4, initial=10.0))
    fit(distiller, data, callbacks=[Spy()])                        # 2 epochs of 3 steps
    assert seen == [10.0, 8.0, 6.0, 4.0, 2.0, 2.0]
    fit(distiller, data, epochs=1, callbacks=[Spy()])              # goes on, does not start again
    assert seen[6:] == [2.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="at step 0"):
        Distiller(net(), net(), temperature=Linear(target=2.0, begin=0, end=4))


def test_saved_is_the_student_with_its_optimizer_and_resume_is_exact(data, tmp_path):
    teacher = net(16, seed=9)

    def start(student, optimizer):
        distiller = Distiller(student, teacher, alpha=0.5)
        distiller.compile(optimizer, SPARSE, metrics=["accuracy"])
        return distiller

    once = start(net(seed=10), keras.optimizers.Adam(0.01))
    once.fit(*data, epochs=4, batch_size=32, shuffle=False, verbose=0)
    half = start(net(seed=10), keras.optimizers.Adam(0.01))
    half.fit(*data, epochs=2, batch_size=32, shuffle=False, verbose=0)
    half.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert type(loaded) is keras.Sequential and loaded.count_params() == half.student.count_params()
    rest = start(loaded, loaded.optimizer)
    rest.fit(*data, epochs=2, batch_size=32, shuffle=False, verbose=0)
    for a, b in zip(once.student.get_weights(), rest.student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert once.student.evaluate(*data, verbose=0)[1] == once.evaluate(*data, verbose=0, return_dict=True)["accuracy"]


def test_keras_callbacks_save_and_restore_the_student(data, tmp_path):
    path = tmp_path / "best.keras"
    callbacks = [keras.callbacks.ModelCheckpoint(path, save_best_only=True),
                 keras.callbacks.BackupAndRestore(tmp_path / "backup"),
                 keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)]
    distiller = Distiller(net(seed=11), net(16))
    fit(distiller, data, validation_data=data, callbacks=callbacks)
    assert keras.models.load_model(path).name == distiller.student.name
    distiller.save_weights(tmp_path / "w.weights.h5")
    other = net(seed=12)
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(other.get_weights()[0], distiller.student.get_weights()[0])


def test_mixed_precision_computes_the_loss_in_float32(data):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    half = keras.Model(inputs, layers.Dense(3, dtype="mixed_float16")(layers.Dense(8, dtype="mixed_float16")(inputs)))
    distiller = Distiller(half, net(16, seed=1), alpha=0.9, temperature=20.0)
    distiller.compile("adam", SPARSE)
    loss = distiller.compute_loss(data[0], data[1], half(data[0]), None)
    assert half(data[0]).dtype == "float16" and loss.dtype == "float32"
    expected = 0.9 * reference(net(16, seed=1).predict(data[0], verbose=0), np.asarray(half(data[0]), "float64"), 20.0)
    assert float(distiller._soft_tracker.result()) == pytest.approx(expected.mean() / 0.9, rel=1e-4)
    assert np.isfinite(fit(distiller, data)["loss"]).all()


def test_binary_sigmoid_heads(data):
    x, y = data[0], (data[1] == 0).astype("float32")[:, None]
    teacher = net(16, classes=1, activation="sigmoid", seed=2)
    for activation in ("sigmoid", None):
        student = net(classes=1, activation=activation, seed=3)
        distiller = Distiller(student, teacher)
        loss = keras.losses.BinaryCrossentropy(from_logits=activation is None)
        assert np.isfinite(fit(distiller, (x, y), loss=loss)["soft_loss"]).all()


def test_steps_per_execution_and_xla(data):
    plain, several, xla = (Distiller(net(seed=13), net(16, seed=14)) for _ in range(3))
    for model, kwargs in ((plain, {}), (several, {"steps_per_execution": 3}), (xla, {"jit_compile": True})):
        model.compile(keras.optimizers.SGD(0.1), SPARSE, **kwargs)
        fit(model, data)
    for other in (several, xla):
        np.testing.assert_allclose(plain.student.get_weights()[0], other.student.get_weights()[0], atol=1e-5)


def test_errors_say_what_to_do(data):
    class Subclassed(keras.Model):
        def call(self, inputs):
            return ops.tanh(inputs[:, :3])

    inputs = keras.Input((4,))
    two = keras.Model(inputs, [inputs, inputs])
    for arguments, words in [
        ((net(classes=3), net(classes=4)), "same classes"), ((net(), net(), 4.0, 1.5), "alpha=1.5"),
        ((net(), net(), 0.0), "positive number"), ((net(), Subclassed()), "heads="), ((two, net()), "one output"),
        ((net(), net(activation="sigmoid")), "sigmoid"), ((net(), "teacher.keras"), "Keras 3 model"),
    ]:
        with pytest.raises(ValueError, match=words):
            Distiller(*arguments)
    with pytest.raises(ValueError, match="alpha=1"):
        Distiller(net(), net()).compile("adam")
    taught = Distiller(net(), Subclassed(), heads=("logits", "logits"))
    assert np.isfinite(fit(taught, data)["loss"]).all()


# ---- compressed students ----
def test_student_is_pruned_while_it_is_taught(data, tmp_path):
    from tfcompress import Chain, CompressionCallback, Polynomial, Prune, Uniform, compress, strip

    teacher = compress(net(16, seed=20), Uniform(4))               # a compressed teacher is left alone
    before = teacher.get_weights()
    student = compress(net(8, seed=21), Chain((Prune(Polynomial(0.75, 0, 9)), Uniform(8))))
    distiller = Distiller(student, teacher, temperature=Linear(2.0, 0, 12, initial=8.0))
    callback = CompressionCallback()
    history = fit(distiller, data, epochs=4, callbacks=[callback])
    assert history["sparsity"][-1] == 0.75 and len(callback.tensors) == 1
    plain = strip(distiller.student)
    assert (plain.get_weights()[0] == 0).mean() == 0.75
    np.testing.assert_allclose(plain.predict(data[0], verbose=0), distiller.predict(data[0], verbose=0), atol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(teacher.get_weights(), before, strict=True))
    distiller.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(again.predict(data[0], verbose=0), distiller.predict(data[0], verbose=0))


def test_penalty_of_the_students_methods_is_in_the_loss(data):
    from dataclasses import dataclass

    from tfcompress import Method, compress

    @dataclass(frozen=True)
    class Small(Method):
        def penalty(self, w, state):
            return ops.sum(ops.square(w))

    student = compress(net(seed=22), Small())
    distiller = Distiller(student, net(seed=22), alpha=1.0)        # the teacher equals the student: only the penalty
    distiller.compile("sgd")
    expected = (student.layers[0].latent("kernel") ** 2).sum()
    assert distiller.evaluate(data[0], verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_quantization_aware_student(data, activation):
    from tfcompress import CompressionCallback, OneShot, Prune, compress, quantize_aware

    teacher = net(16, seed=23, activation=activation)
    fit(teacher, data, epochs=20, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None))
    student = quantize_aware(net(seed=24, activation=activation))
    assert head_of(student) == (activation or "logits")
    student = compress(student, Prune(OneShot(0.5)))
    distiller = Distiller(student, teacher, temperature=2.0, alpha=0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
    history = fit(distiller, data, loss=loss, epochs=8, callbacks=[CompressionCallback()])
    assert history["soft_loss"][-1] < history["soft_loss"][0]
    assert history["sparsity"][-1] == 16 / 56                      # half of the hidden kernel, none of the head
    assert len(np.unique(distiller.predict(data[0], verbose=0))) <= 256
