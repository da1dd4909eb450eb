"""Before channels go: the layers that read them learn to do with the others. Neural unification, Kamma et al. 2020."""

import keras
import numpy as np

from tfcompress.graph import call
from tfcompress.pruning.behaviour import POSITIONS, absorb, emulate, gram
from tfcompress.pruning.dead import pads
from tfcompress.pruning.rules import CONV
from tfcompress.wrapper import read

SAMPLES, WIDEST = 256, 4096  # samples looked at; inputs of a layer beyond which its Gram matrix is too large
RIDGES = (1e-9, 1e-3, 1e-1)  # with few samples for many channels, codes would fit themselves and nothing else


def compensate(channels, keep, x):
    """Rewrite the kernels in ``channels``' graph so that the channels of ``keep`` do the work of those that go.

    Every Dense and ungrouped convolution that reads channels that go emulates each of them by least squares from those
    it goes on reading (and a constant, where it has a bias and no padding). No training, no labels.

    Args:
        channels: ``Channels``; its layers are changed.
        keep: bool by label.
        x: samples, one array or a structure of them; 256 are looked at.
    """
    grams = {}
    tensors = channels.graph.feed(keras.tree.map_structure(lambda a: np.asarray(a)[:SAMPLES], x))
    records = {id(node): record for node, record in channels.calls}
    for node in channels.graph.steps(tensors):
        if id(node) in records and _reads(node.layer, records[id(node)], keep):
            tensor = tensors[node.inputs[0]]
            halves = np.stack([gram(read_codes(tensor[0::2])), gram(read_codes(tensor[1::2]))])
            grams[id(node.layer)] = grams.get(id(node.layer), 0.0) + halves
        call(node, tensors)
    for record in channels.records.values():
        if id(record.layer) in grams:
            _take_over(record, keep, grams[id(record.layer)])


def _reads(layer, record, keep):
    plain = isinstance(layer, keras.layers.Dense) or isinstance(layer, CONV) and layer.groups == 1
    stays = keep[record.given[0]]
    return plain and stays.any() and not stays.all() and len(stays) <= WIDEST


def read_codes(tensor):
    """``(samples * positions, channels)`` of a tensor, at most 64 positions a sample."""
    maps = keras.ops.convert_to_numpy(tensor)
    maps = maps.reshape(len(maps), -1, maps.shape[-1])
    if maps.shape[1] > POSITIONS:
        maps = maps[:, np.random.default_rng(0).choice(maps.shape[1], POSITIONS, replace=False)]
    return maps.reshape(-1, maps.shape[-1])


def _take_over(record, keep, halves):
    layer, stays = record.layer, keep[record.given[0]]
    removed, left = np.flatnonzero(~stays), np.flatnonzero(stays)
    constant = layer.bias is not None and not (isinstance(layer, CONV) and pads(layer))
    ridge = min(RIDGES, key=lambda ridge: _missed(halves, removed, left, ridge, constant))
    c, d, _ = emulate(halves.sum(0), removed, left, ridge=ridge, constant=constant)
    bias = read(layer.bias) if layer.bias is not None else np.zeros(layer.kernel.shape[-1])
    kernel, bias = absorb(read(layer.kernel), bias, removed, left, c, d)
    layer.kernel.assign(kernel)
    if layer.bias is not None:
        layer.bias.assign(bias)


def _missed(halves, removed, left, ridge, constant):
    """The squared error on one half of the samples with coefficients from the other half."""
    c, d, _ = emulate(halves[0], removed, left, ridge=ridge, constant=constant)
    inside, own = np.append(left, len(halves[1]) - 1), np.concatenate([c, d[:, None]], 1)
    cross, among = halves[1][np.ix_(removed, inside)], halves[1][np.ix_(inside, inside)]
    return float((np.sum(own @ among * own) - 2 * np.sum(own * cross)) + halves[1][removed, removed].sum())
