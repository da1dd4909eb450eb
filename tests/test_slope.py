"""Size and slope against size alone, where inputs have unequal scales and pruning is gradual (methods.md, C1)."""

import keras
import numpy as np
import pytest

from tfcompress import CompressionCallback, Polynomial, Prune, compress, strip

L = keras.layers
SEEDS = (0, 1, 2, 3)


def unequal(seed):
    """Train and test data: 40 inputs of scales 0.1 to 10, the classes a random two-layer net's of the unscaled ones."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((6144, 40))
    y = (np.maximum(z @ rng.standard_normal((40, 12)), 0) @ rng.standard_normal((12, 8))).argmax(1)
    x = (z * 10 ** rng.uniform(-1, 1, 40)).astype("float32")
    return x[:4096], y[:4096], x[4096:], y[4096:]


def accuracies(criterion, target, seeds=SEEDS):
    """Test accuracy of a 40-96-8 net for each seed: 5 epochs dense, 10 of gradual pruning, 5 of fine-tuning."""
    net = keras.Sequential([keras.Input((40,)), L.Dense(96, "relu"), L.Dense(8)])
    method = Prune(Polynomial(target, begin=80, end=240), criterion=criterion)
    model = compress(net, method, include_head=True)
    model.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  steps_per_execution=16)
    model.optimizer.build(model.trainable_variables)
    fresh = [(v, keras.ops.copy(v)) for v in (*model.variables, *model.optimizer.variables)]
    found = []
    for seed in seeds:
        for variable, value in fresh:
            variable.assign(value)
        keras.utils.set_random_seed(seed)
        for layer in model.layers:
            layer.layer.kernel.assign(keras.initializers.GlorotUniform(seed)(layer.layer.kernel.shape))
        x, y, test_x, test_y = unequal(seed)
        model.fit(x, y, batch_size=256, epochs=20, verbose=0, callbacks=[CompressionCallback(16, data=(x, y))])
        plain = strip(model)
        zeros = [int((layer.kernel.numpy() == 0).sum()) for layer in plain.layers]
        assert zeros == ([round(target * 40 * 96), round(target * 96 * 8)] if target else [0, 0])
        found.append(float(np.mean(np.array(plain(test_x)).argmax(1) == test_y)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.9, 0.95])
def test_slope_beats_magnitude_when_pruning_is_gradual(target):
    by_slope, by_size = accuracies("slope", target), accuracies("magnitude", target)
    assert np.mean(by_slope) > np.mean(by_size) + 0.02, (by_slope, by_size)
