"""`Distiller` with features: stages, regressors, discriminators, schedules, caches, other resolutions, two stages."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfcompress as tc
from tfcompress import Distiller
from tfcompress.distillation import features
from tfcompress.distillation.margin import MarginCrossEntropy, MarginSoftmax
from tfcompress.distillation.resolution import at_resolution, downsample, resolution_aware
from tfcompress.distillation.two_stage import classification_stage, embedding_of, representation_stage, two_stage
from tfcompress.stages import staged

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(width=4, seed=0, classes=3, size=8):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([
        keras.Input((size, size, 2)), layers.Conv2D(width, 3, padding="same", activation="relu", name="first"),
        layers.Conv2D(2 * width, 3, padding="same", activation="relu", name="second"),
        layers.GlobalAveragePooling2D(name="average"), layers.Dense(classes, name="logits")])


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).standard_normal((64, 8, 8, 2)).astype("float32")
    return x, np.arange(64) % 3


def copy(model):
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


@pytest.mark.parametrize("loss", ["hint", "attention", "similarity", "relation", "mmd", "representation"])
def test_identical_nets_have_nothing_to_learn(data, loss):
    teacher = net()
    layer = "second" if loss in ("hint", "attention") else "average"
    distiller = Distiller(copy(teacher), teacher, alpha=None, features=[(layer, layer, loss, 1.0)])
    distiller.compile()
    assert distiller.evaluate(data[0], verbose=0, return_dict=True)[loss] == pytest.approx(0, abs=1e-6)


def test_stage_one_moves_only_what_lies_below_the_guided_layer(data):
    student = net(seed=1)
    before = [w.copy() for w in student.get_weights()]
    distiller = Distiller(student, net(8), alpha=None, features=[("second", "first", "hint", 1.0)])
    distiller.compile("sgd")
    distiller.fit(data[0], verbose=0)
    moved = [not np.array_equal(a, b) for a, b in zip(before, student.get_weights(), strict=True)]
    assert moved == [True, True, False, False, False, False]
    regressor, = (term.regressor for term in distiller.terms)
    assert regressor.kernel.shape == (4, 16) and any(
        v is regressor.kernel for v in distiller.optimizer._trainable_variables)
    assert distiller.student.count_params() == net().count_params()


def test_exported_student_is_the_student(data, tmp_path):
    distiller = Distiller(net(seed=2), net(8), features=[("second", "second", "hint", 10.0),
                                                         ("average", "average", "adversarial", 0.1)])
    distiller.compile("adam", SPARSE, metrics=["accuracy"])
    logs = distiller.fit(*data, epochs=2, verbose=0).history
    assert {"hint", "adversarial", "soft_loss", "accuracy", "loss"} == set(logs)
    distiller.save(tmp_path / "s.keras")
    loaded = keras.models.load_model(tmp_path / "s.keras")
    assert loaded.count_params() == net().count_params() and type(loaded) is keras.Sequential
    np.testing.assert_array_equal(loaded.predict(data[0], verbose=0), distiller.predict(data[0], verbose=0))
    assert tc.inspect(tc.convert(distiller.student)).macs == tc.inspect(tc.convert(net())).macs


def test_total_is_the_sum_of_its_terms(data):
    student, teacher = net(seed=3), net(8, seed=4)
    asked = [("second", "first", "attention", 7.0), ("average", "average", "relation", 3.0),
             ("average", "average", lambda t, s: ops.mean(t) - ops.mean(s), 2.0)]
    distiller = Distiller(student, teacher, 3.0, 0.4, features=asked)
    distiller.compile("sgd", SPARSE)
    got = distiller.evaluate(*data, batch_size=64, verbose=0, return_dict=True)

    def of(model, name):
        return keras.Model(model.inputs, model.get_layer(name).output).predict(data[0], verbose=0)

    attention = float(features.attention_transfer(of(teacher, "second"), of(student, "first")))
    relation = float(features.pairwise_relation(of(teacher, "average"), of(student, "average")))
    own = float(of(teacher, "average").mean() - of(student, "average").mean())
    assert got["attention"] == pytest.approx(attention, rel=1e-5)
    assert got["relation"] == pytest.approx(relation, rel=1e-5)
    hard = float(SPARSE(data[1], student.predict(data[0], verbose=0)))
    total = 0.4 * got["soft_loss"] + 0.6 * hard + 7 * attention + 3 * relation + 2 * own
    assert got["loss"] == pytest.approx(total, rel=1e-5)


def test_features_alone_beside_the_labels_at_alpha_0(data):
    distiller = Distiller(net(seed=3), net(8), alpha=0.0, features=[("average", "average", "similarity", 5.0)])
    distiller.compile("sgd", SPARSE)
    got = distiller.evaluate(*data, batch_size=64, verbose=0, return_dict=True)
    hard = float(SPARSE(data[1], distiller.predict(data[0], verbose=0)))
    assert got["loss"] == pytest.approx(hard + 5 * got["similarity"], rel=1e-5) and "soft_loss" not in got


def test_discriminator_and_student_pull_apart(data):
    """The discriminator learns to tell them, and never from the student's gradient, nor the student from its."""
    student, teacher = net(seed=5), net(seed=6)
    distiller = Distiller(student, teacher, alpha=None, features=[("average", "average", "adversarial", 0.0)])
    distiller.compile(keras.optimizers.Adam(0.01))
    before = [w.copy() for w in student.get_weights()]
    judged = distiller.fit(data[0], epochs=30, verbose=0).history["adversarial"]
    assert judged[-1] > judged[0]                                  # surer that the student is the student
    assert all(np.array_equal(a, b) for a, b in zip(before, student.get_weights(), strict=True))
    judge = [w.copy() for w in distiller.terms[0].judge.get_weights()]
    x = data[0]
    import tensorflow as tf
    with tf.GradientTape() as tape:
        y = distiller(x, training=True)
        fooled, _ = distiller.terms[0](teacher_average(teacher, x), distiller._taps[0][1].take())
    grads = tape.gradient(fooled, [v.value for v in distiller.trainable_variables])
    names = [v.path for v in distiller.trainable_variables]
    for name, grad in zip(names, grads, strict=True):
        assert (grad is None) == (("discriminator" in name) or ("logits" in name)), name
    assert y is not None and all(np.array_equal(a, b) for a, b in zip(
        judge, distiller.terms[0].judge.get_weights(), strict=True))


def teacher_average(teacher, x):
    return keras.Model(teacher.inputs, teacher.get_layer("average").output)(x)


def test_schedules_of_alpha_and_weights_are_read_every_step(data):
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([float(v) for v in self.model._scheduled.values()])

    distiller = Distiller(net(seed=7), net(8), alpha=tc.Linear(0.0, 0, 2, initial=0.5),
                          features=[("average", "average", "relation", tc.Linear(0.0, 0, 2, initial=4.0))])
    distiller.compile("sgd", SPARSE)
    distiller.fit(*data, batch_size=16, verbose=0, callbacks=[Spy()])
    assert seen == [[0.5, 4.0], [0.25, 2.0], [0.0, 0.0], [0.0, 0.0]]
    got = distiller.evaluate(*data, batch_size=64, verbose=0, return_dict=True)
    hard = float(SPARSE(data[1], distiller.predict(data[0], verbose=0)))
    assert got["loss"] == pytest.approx(hard, rel=1e-5)            # both weights are 0 by now


def test_cached_teacher_gives_the_same_student(data):
    students = []
    for cached in (False, True):
        teacher = net(8, seed=8)
        distiller = Distiller(net(seed=9), teacher, features=[("second", "second", "hint", 1.0)])
        distiller.terms[0].regressor.set_weights([np.ones((8, 16)) / 8, np.zeros(16)])
        distiller.compile("sgd", SPARSE)
        x = distiller.cache(data[0]) if cached else data[0]
        if cached:
            for weight in teacher.weights:                         # nobody asks it again
                weight.assign(weight * np.nan)
        distiller.fit(x, data[1], epochs=2, batch_size=16, shuffle=False, verbose=0)
        students.append(distiller.student.get_weights())
    for a, b in zip(*students, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_cache_of_several_inputs(data):
    def two(seed):
        keras.utils.set_random_seed(seed)
        ins = [keras.Input((8, 8, 2)), keras.Input((3,))]
        joined = layers.Concatenate()([layers.GlobalAveragePooling2D()(ins[0]), ins[1]])
        return keras.Model(ins, layers.Dense(3)(joined))

    x = [data[0], np.random.default_rng(1).standard_normal((64, 3)).astype("float32")]
    teacher, losses = two(1), []
    for given in (lambda one: x, lambda one: one.cache(x, batch_size=10)):
        distiller = Distiller(two(2), teacher, alpha=0.5)
        distiller.compile("sgd", SPARSE)
        losses.append(distiller.fit(given(distiller), data[1], shuffle=False, verbose=0).history["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("options", [dict(alpha=lambda step: 5.0), dict(alpha=lambda step: float(step == 0) - step)])
def test_a_schedule_out_of_range_is_refused(data, options):
    with pytest.raises(ValueError, match="Alpha must be from 0 to 1"):
        distiller = Distiller(net(), net(8), **options)
        distiller.compile("sgd", SPARSE)
        distiller.fit(*data, batch_size=16, verbose=0)


@pytest.mark.parametrize("factor", [0, -1, 1.5, 2.0])
def test_factors_of_resolution(factor):
    for call in (lambda: at_resolution(net(), factor), lambda: downsample(np.zeros((1, 8, 8, 2)), factor),
                 lambda: resolution_aware(net(size=4), net(), factor)):
        with pytest.raises(ValueError, match=r"`factor` is an int >= 1"):
            call()
    with pytest.raises(ValueError, match="Weights are 0 or above"):
        resolution_aware(net(size=4), net(), 2, weights=(-1, 1, 1, 1))


def test_other_inputs_and_missing_labels_are_told(data):
    with pytest.raises(ValueError, match="take the same input.*see tfcompress.resolution_aware"):
        Distiller(net(size=4), net())
    distiller = Distiller(net(), net(8))
    distiller.compile("sgd", SPARSE)
    with pytest.raises(ValueError, match="needs labels"):
        distiller.fit(data[0], verbose=0)


def test_self_distillation_keeps_what_the_student_knew(data):
    student = tc.compress(net(seed=10), tc.Prune(tc.OneShot(0.5)))
    before = net(seed=10).predict(data[0], verbose=0)
    distiller = Distiller(student, "self", alpha=1.0)
    distiller.compile(keras.optimizers.Adam(0.01))
    distiller.fit(data[0], epochs=5, verbose=0, callbacks=[tc.CompressionCallback()])
    np.testing.assert_allclose(distiller.teacher.predict(data[0], verbose=0), before, atol=1e-6)


def test_nested_shared_and_compressed_layers_can_be_named(data):
    inner = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(4, 3, name="conv")], name="body")
    inputs = keras.Input((8, 8, 2))
    student = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(inner(inputs))))
    student = tc.compress(student, [("body/conv", tc.Ternary())])
    distiller = Distiller(student, net(8), features=[("first", "body/conv", "attention", 1.0)])
    distiller.compile("adam", SPARSE)
    distiller.fit(*data, verbose=0)
    assert len(np.unique(tc.strip(distiller.student).get_layer("body").get_layer("conv").kernel.numpy())) <= 3 * 4
    aware = tc.quantize_aware(net(seed=11))
    distiller = Distiller(aware, net(8), features=[("average", "average", "relation", 1.0)])
    distiller.compile("adam", SPARSE)
    assert np.isfinite(distiller.fit(*data, verbose=0).history["loss"]).all()


def test_steps_per_execution_and_xla_give_the_same(data):
    found = []
    for options in ({}, {"steps_per_execution": 2}, {"jit_compile": True}):
        distiller = Distiller(net(seed=12), net(8, seed=13), features=[("second", "first", "attention", 10.0)])
        distiller.compile(keras.optimizers.SGD(0.1), SPARSE, **options)
        distiller.fit(*data, epochs=2, batch_size=16, shuffle=False, verbose=0)
        found.append(distiller.student.get_weights()[0])
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, atol=1e-5)


@pytest.mark.parametrize(("asked", "words"), [
    ([("nothing", "first", "hint", 1.0)], "no layer at 'nothing'"),
    ([("first", "first", "hints", 1.0)], "Unknown loss"),
    ([("first", "first")], "feature is"),
])
def test_errors_of_features(asked, words):
    with pytest.raises(ValueError, match=words):
        Distiller(net(), net(), features=asked)
    with pytest.raises(ValueError, match="features"):
        Distiller(net(), net(), alpha=None)


# ---- resolution -------------------------------------------------------------------------------------------------
def test_half_resolution_costs_exactly_a_quarter():
    whole = net(seed=14, size=16)
    small = at_resolution(whole, 2)
    kernels = sum(int(np.prod(layer.kernel.shape)) for layer in whole.layers if layer.name in ("first", "second"))
    ratio = [tc.inspect(tc.convert(model)).macs - 3 * 8 for model in (whole, small)]
    assert ratio[0] == 256 * kernels and ratio[1] * 4 == ratio[0]
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 2)).astype("float32")
    wide = net(seed=14, size=8)
    np.testing.assert_allclose(small.predict(x, verbose=0), wide.predict(x, verbose=0), atol=1e-6)
    np.testing.assert_allclose(downsample(np.ones((1, 5, 5, 1)), 2), np.ones((1, 2, 2, 1)))
    flat = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match="global average"):
        at_resolution(flat, 2)


def test_resolution_aware_formula_and_training(data):
    teacher = net(8, seed=15)
    student = at_resolution(net(seed=16), 2)
    distiller = resolution_aware(student, teacher, 2, weights=(1.0, 2.0, 3.0, 0.0))
    distiller.compile("adam", SPARSE, metrics=["accuracy"])
    got = distiller.evaluate(*data, batch_size=64, verbose=0, return_dict=True)
    hard = float(SPARSE(data[1], student.predict(np.asarray(downsample(data[0], 2)), verbose=0)))
    formula = hard + got["soft_loss"] + got["representation"] + 2 * got["relation"] + 3 * got["mmd"]
    assert got["loss"] == pytest.approx(formula / 2, rel=1e-4)
    distiller = resolution_aware(student, teacher, 2)
    distiller.compile("adam", SPARSE)
    assert np.isfinite(distiller.fit(*data, epochs=2, verbose=0).history["loss"]).all()
    with pytest.raises(ValueError, match="at_resolution"):
        resolution_aware(net(), teacher, 2)


@pytest.mark.slow
def test_distilled_small_inputs_keep_a_fine_detail():
    """Fine stripes, along or across: a teacher at full size sees them; at half size they are faint traces."""
    def images(count, seed):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 2, count)
        phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
        along = np.arange(16)[None, None, :] * np.ones((1, 16, 1))
        wave = np.sin(2.4 * np.where(y[:, None, None] == 1, along, along.transpose(0, 2, 1)) + phase)
        return (wave + rng.standard_normal((count, 16, 16)))[..., None].astype("float32"), y

    def one(width, seed):
        return staged((16, 16, 1), 2, blocks=(1, 1), channels=(width, 2 * width), logits=True, seed=seed)

    train, test = images(256, 1), images(1000, 2)
    teacher = one(16, 0)
    teacher.compile(keras.optimizers.Adam(3e-3), SPARSE)
    teacher.fit(*images(2000, 3), epochs=3, batch_size=64, verbose=0)
    half = np.asarray(downsample(test[0], 2))
    scores = {}
    for name in ("plain", "taught"):
        student = at_resolution(one(8, 0), 2)
        model = (resolution_aware(student, teacher, 2) if name == "taught" else
                 Distiller(student, teacher, alpha=0.0, view=lambda x: downsample(x, 2)))
        model.compile(keras.optimizers.Adam(3e-3), SPARSE)
        model.optimizer.build(model.trainable_variables)
        start = [(v, v.numpy()) for v in (*model.variables, *model.optimizer.variables)]
        for seed in range(3):                                      # one compilation for all
            for variable, value in start:
                variable.assign(value)
            student.set_weights(one(8, seed).get_weights())
            keras.utils.set_random_seed(seed)
            model.fit(*train, epochs=12, batch_size=32, verbose=0)
            scores.setdefault(name, []).append((student.predict(half, verbose=0).argmax(-1) == test[1]).mean())
    assert np.mean(scores["taught"]) >= np.mean(scores["plain"]), scores


# ---- two stages -------------------------------------------------------------------------------------------------
def embedding(width, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((12,)), layers.Dense(width, "relu"), layers.Dense(6, name="embedding")])


def faces(seed=0, people=5, each=40):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(42).standard_normal((people, 12))
    y = np.arange(people * each) % people
    return (centres[y] + 0.4 * rng.standard_normal((len(y), 12))).astype("float32"), y


def trained_teacher():
    body = embedding(32, 0)
    teacher = keras.Model(body.inputs, MarginSoftmax(5, 16.0)(body.outputs[0]))
    teacher.compile(keras.optimizers.Adam(3e-3), MarginCrossEntropy("cosface", 16.0))
    teacher.fit(*faces(), epochs=10, verbose=0)
    return teacher


@pytest.mark.parametrize(("teacher", "data", "words"), [
    (embedding, faces(), "ends in MarginSoftmax"), (None, faces()[0], "samples and as many class numbers"),
    (None, (faces()[0], faces()[1] + 1), "0 to 4 of the teacher's head"),
])
def test_two_stages_of_what_does_not_fit(teacher, data, words):
    given = embedding(4, 0)
    given = given if teacher else keras.Model(given.inputs, MarginSoftmax(5, 16.0)(given.outputs[0]))
    with pytest.raises(ValueError, match=words):
        two_stage(embedding(4, 1), given, data)


def test_two_stages_on_planted_people():
    teacher = trained_teacher()
    student = embedding(32, 1)
    before = teacher.get_weights()
    first = representation_stage(student, teacher)
    first.compile(keras.optimizers.Adam(1e-2))
    first.fit(faces()[0], epochs=60, verbose=0)
    a, b = (m.predict(faces()[0], verbose=0) for m in (embedding_of(teacher), student))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.mean() > 0.99
    flags = [layer.trainable for layer in student.layers]
    second = classification_stage(student, teacher)
    np.testing.assert_array_equal(second.student.layers[-1].kernel, teacher.layers[-1].kernel)
    second.compile(keras.optimizers.Adam(1e-3), MarginCrossEntropy("cosface", 16.0), metrics=["accuracy"])
    logs = second.fit(*faces(), epochs=5, verbose=0).history
    assert logs["accuracy"][-1] > 0.95 and {"cosines", "representation"} <= set(logs)
    assert [layer.trainable for layer in student.layers] == flags
    assert all(np.array_equal(x, y) for x, y in zip(before, teacher.get_weights(), strict=True))
    assert len(student.outputs) == 1 and student.output_shape == (None, 6)


def test_two_stage_is_both_in_turn():
    teacher = trained_teacher()
    student = two_stage(embedding(8, 2), teacher, faces(), epochs=(20, 10), learning_rate=1e-2,
                        loss=MarginCrossEntropy("cosface", 16.0))
    from tfcompress.distillation.verification import cosine_scores, pairs, verification_accuracy
    x, y = faces(seed=9)
    chosen = pairs(y, 400)
    found = verification_accuracy(cosine_scores(student.predict(x, verbose=0), chosen), chosen.same)
    assert found.accuracy > 0.9
    with pytest.raises(ValueError, match="MarginSoftmax"):
        embedding_of(embedding(8, 2))
