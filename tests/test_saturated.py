"""A student whose softmax gives exactly 0 and 1 has no gradient through its probabilities, and still learns."""

import keras
import numpy as np
import pytest

from tfcompress import Constant, Prune, compress, quantize_aware
from tfcompress.distillation import Distiller


@pytest.mark.parametrize("head", [["softmax"], [None, keras.layers.Softmax()]], ids=["activation", "layer"])
@pytest.mark.parametrize(
    "made_by",
    [lambda model: model, lambda model: compress(model, Prune(Constant(0.5)), include_head=True), quantize_aware],
    ids=["plain", "pruned", "aware"],
)
def test_a_student_that_is_sure_and_wrong_learns_from_its_teacher(head, made_by):
    def net():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, head[0], name="top"), *head[1:]])

    teacher, student = net(), made_by(net())
    bias = next(weight for weight in student.trainable_variables if weight.shape == (3,))
    bias.assign([300.0, 0.0, 0.0])
    distiller = Distiller(student, teacher, temperature=1.0, alpha=1.0)
    distiller.compile(keras.optimizers.SGD(1.0))
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    wrong = float(np.mean(1 - teacher.predict(x, verbose=0)[:, 0]))
    history = distiller.fit(x, np.zeros((64, 3)), batch_size=64, verbose=0).history
    assert history["soft_loss"][0] > 100  # not cut off at -log(1e-12)
    assert 300 - float(bias[0]) == pytest.approx(wrong, rel=1e-3)  # SGD's step: q - p, with q = 1
