"""``ExtraGradient``: look one step ahead, then step from where you were by the gradient found there."""

import keras
from keras import ops

from tfcompress.method import serializable


@serializable
class ExtraGradient(keras.optimizers.Optimizer):
    """Gradient descent that predicts and corrects: ``p = w - rate * g(w)``, then ``w - rate * g(p)``.

    Two optimizer steps, so two batches, make one step of the method: odd ones predict, even ones correct. Korpelevich
    1976; what Leng et al. 2018 (arXiv:1707.09870) train ADMM's weights with. On our least-squares problems it was no
    better than plain gradient descent; it is here to be tried. Who writes a weight between the two steps is undone by
    the second: let ``CompressionCallback(every=...)`` go by an even number.

    Args:
        learning_rate: of both halves, a float or a schedule.

    >>> w = keras.Variable([1.0])
    >>> optimizer = ExtraGradient(0.1)
    >>> for _ in range(2):                                   # f = w ** 2 / 2: p = 0.9, then w = 1 - 0.1 * 0.9
    ...     optimizer.apply([w.value], [w])
    >>> round(float(w[0]), 4)
    0.91
    """

    def __init__(self, learning_rate=1e-3, name="extra_gradient", **options):
        super().__init__(learning_rate=learning_rate, name=name, **options)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.kept = [self.add_variable_from_reference(v, name="kept") for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        kept = self.kept[self._get_variable_index(variable)]
        predicts = ops.equal(self.iterations % 2, 0)
        start = ops.where(predicts, variable, kept)
        self.assign(kept, start)
        step = ops.cast(learning_rate, variable.dtype) * ops.cast(gradient, variable.dtype)
        self.assign(variable, start - step)
