"""Metrics of the tasks: answers that a pencil finds, too."""

import numpy as np
import pytest

from tfcompress.tasks import (
    boxes,
    classification,
    detection,
    multi_label,
    ocr,
    regression,
    segmentation,
    sequence_labelling,
    verification,
)

UNIT = [0.0, 0.0, 1.0, 1.0]
LEFT, RIGHT = [0.0, 0.0, 1.0, 0.4], [0.0, 0.6, 1.0, 1.0]


def found(*rows):
    return np.array(rows, float).reshape(-1, 6)


def real(*rows):
    return np.array(rows, float).reshape(-1, 5)


def test_accuracy_and_mean_absolute_error():
    assert classification.accuracy([np.eye(4)], [0, 1, 2, 0]) == 0.75
    assert regression.mean_absolute_error([[[1.0, 2.0], [3.0, 8.0]]], [[1.0, 4.0], [3.0, 4.0]]) == 1.5
    with pytest.raises(ValueError, match=r"Expected an output of shape \(2, 1\)"):
        regression.mean_absolute_error([np.zeros((2, 3))], [1.0, 2.0])


def test_map_of_one_class_by_hand():
    """Two real boxes; found in this order: right, wrong, right. Precisions 1, 1/2, 2/3; envelope 1, 2/3, 2/3."""
    detections = [found([0, 0.9, *LEFT], [0, 0.8, 0.4, 0.4, 0.6, 0.6], [0, 0.7, *RIGHT])]
    assert boxes.mean_average_precision(detections, [real([0, *LEFT], [0, *RIGHT])]) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_map_counts_a_double_wrong_and_a_missing_class_zero():
    twice = [found([0, 0.9, *UNIT], [0, 0.8, *UNIT], [0, 0.7, *LEFT])]
    assert boxes.mean_average_precision(twice, [real([0, *UNIT], [0, *LEFT])]) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert boxes.mean_average_precision([found([0, 0.9, *UNIT])], [real([0, *UNIT], [1, *UNIT])]) == 0.5
    assert boxes.mean_average_precision([found()], [real([3, *UNIT])]) == 0
    other_class = [found([0, 0.9, *UNIT], [2, 0.9, *UNIT])]          # class 2 is in no image: left out
    assert boxes.mean_average_precision(other_class, [real([0, *UNIT])]) == 1


def test_map_ranks_over_all_images_and_needs_half_an_overlap():
    """A surer wrong one in another image comes first: precision 1/2 at recall 1."""
    detections, truth = [found([0, 0.5, *UNIT]), found([0, 0.6, *UNIT])], [real([0, *UNIT]), real()]
    assert boxes.mean_average_precision(detections, truth) == 0.5
    half, less = [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 0.49]
    assert boxes.mean_average_precision([found([0, 1, *half])], [real([0, *UNIT])]) == 1
    assert boxes.mean_average_precision([found([0, 1, *less])], [real([0, *UNIT])]) == 0
    with pytest.raises(ValueError, match="No image has a box"):
        boxes.mean_average_precision([found()], [real()])


def test_suppression_keeps_the_best_of_each_heap_and_what_the_removed_one_covered():
    row = [[0, x, 1, x + 1] for x in (0.0, 0.3, 0.6)]                # neighbours overlap by 0.54, ends by 0.25
    assert boxes.suppress(row, [0.9, 0.8, 0.7]).tolist() == [0, 2]
    assert boxes.suppress(row, [0.7, 0.9, 0.8]).tolist() == [1]
    assert boxes.suppress(np.zeros((0, 4)), []).tolist() == []


class Net:
    """What `detection.targets` looks at of a model: two outputs of a grid of 4 x 4 with two anchors each."""

    outputs = [np.zeros((1, 32, 4)), np.zeros((1, 32, 3))]


def test_targets_decoded_are_the_boxes_and_perfect_scores_give_a_map_of_one():
    y = np.full((2, 3, 5), -1.0)
    y[0, 0], y[0, 1] = [2, 0.1, 0.1, 0.4, 0.35], [0, 0.6, 0.7, 0.9, 0.8]
    y[1, 0] = [1, 0.45, 0.3, 0.8, 0.55]
    offsets, classes = detection.targets(Net, y)
    assert sorted(set(classes[0][classes[0] >= 0].tolist())) == [0, 2] and (classes[1] != 2).all()
    assert ((classes >= 0) == (offsets[..., 4] == 1)).all()
    scores = np.eye(3)[np.maximum(classes, 0)] * (classes >= 0)[..., None]
    assert detection.score([offsets[..., :4], scores], y) == 1
    at = boxes.decode(offsets[1, :, :4], boxes.anchors(32, detection.SHAPES))[classes[1] >= 0]
    np.testing.assert_allclose(at, np.tile(y[1, 0, 1:], (len(at), 1)), atol=1e-6)
    with pytest.raises(ValueError, match="boxes .examples, anchors, 4., then scores"):
        detection.score([scores, offsets[..., :4]], y)


def test_an_image_without_boxes_is_all_background():
    offsets, classes = detection.targets(Net, np.full((1, 3, 5), -1.0))
    assert (classes == detection.NEGATIVE).all() and not offsets.any()


def test_detection_losses_count_what_they_should():
    focal, box = detection.FocalLoss(), detection.BoxLoss()
    background = np.full((1, 2), -1), np.full((1, 2, 1), 0.5)
    assert float(focal(*background)) == pytest.approx(2 * 0.75 * 0.25 * np.log(2))     # two anchors, none positive
    assert float(focal([[0, 0]], [[[1.0], [1.0]]])) == pytest.approx(0, abs=1e-6)
    assert float(box(np.zeros((1, 2, 5)), np.ones((1, 2, 4)))) == 0                   # no anchor has a box
    far = np.zeros((1, 1, 5))
    far[..., 4] = 1
    assert float(box(far, np.full((1, 1, 4), 3.0))) == pytest.approx(2.5)


def test_mean_iou_by_hand_ignores_what_has_no_class():
    """Class 0: 1 of 3; class 1: 2 of 4; class 2 is nowhere. The last pixel does not count."""
    y = np.array([[[0, 0, 1], [1, 1, -1]]])
    called = np.eye(3)[[[[0, 1, 1], [1, 0, 0]]]]
    assert segmentation.mean_iou([called], y) == pytest.approx((1 / 3 + 2 / 4) / 2)
    with pytest.raises(ValueError, match="scores for each pixel"):
        segmentation.mean_iou([called[:, :1]], y)


def test_step_accuracy_leaves_padding_out():
    scores = np.eye(3)[[[0, 1, 2, 0], [2, 2, 0, 0]]]
    assert sequence_labelling.step_accuracy([scores], [[0, 1, 1, -1], [2, -1, -1, -1]]) == 0.75
    with pytest.raises(ValueError, match="all are -1"):
        sequence_labelling.step_accuracy([scores], np.full((2, 4), -1))


def test_ctc_decoding_joins_repeats_unless_a_blank_is_between():
    best = np.array([[0, 1, 1, 0, 1, 2, 2], [0, 0, 0, 0, 0, 0, 0], [3, 3, 3, 3, 3, 3, 3]])
    assert ocr.decode(np.eye(4)[best]) == [[0, 0, 1], [], [2]]


@pytest.mark.parametrize("one, other, distance", [
    ("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("abc", "axc", 1), ("abcd", "bcd", 1), ("ab", "ba", 2),
    ([1, 2, 3], [3, 2, 1], 2),
])  # fmt: skip
def test_edit_distance(one, other, distance):
    assert ocr.edit_distance(one, other) == ocr.edit_distance(other, one) == distance


def test_character_error_rate_weighs_by_characters():
    read = np.eye(3)[[[1, 0, 1], [2, 2, 2], [1, 2, 0]]]              # "aa", "b", "ab"
    y = [[0, 0, -1], [1, -1, -1], [0, 0, 0]]
    assert ocr.character_error_rate([read], y) == pytest.approx(2 / 6)          # "ab" -> "aaa": two edits


def test_ctc_loss_is_the_sum_over_all_paths():
    """Two steps, blank, a, b: text "ab" has one path, text "a" three."""
    p = np.array([[[0.2, 0.5, 0.3], [0.1, 0.6, 0.3]]])
    both = float(ocr.CTC()([[0, 1]], np.log(p))), float(ocr.CTC()([[0, -1]], np.log(p)))
    assert both == pytest.approx((-np.log(0.5 * 0.3), -np.log(0.5 * 0.6 + 0.5 * 0.1 + 0.2 * 0.6)), abs=1e-5)


def test_multi_label_average_precision_takes_equal_scores_as_one_step():
    scores, y = np.array([[3.0, 1], [2, 1], [1, 1], [0, 1]]), np.array([[0, 1], [1, 0], [0, 0], [1, 0]])
    expected = ((1 / 2 + 2 / 4) / 2 + 1 / 4) / 2
    assert multi_label.mean_average_precision([scores], y) == pytest.approx(expected)
    assert multi_label.mean_average_precision([1 / (1 + np.exp(-scores))], y) == pytest.approx(expected)
    alone = np.column_stack([y, np.zeros(4, int)])                   # a label that no example has
    assert multi_label.mean_average_precision([np.column_stack([scores, y[:, 0]])], alone) == pytest.approx(expected)


def test_verification_of_perfect_and_of_useless_embeddings():
    y = np.repeat([4, 7, 9], 20)
    assert verification.accuracy([np.eye(3)[np.searchsorted([4, 7, 9], y)]], y) == 1
    noise = np.random.default_rng(0).normal(size=(60, 8))
    assert 0.35 < verification.accuracy([noise], y) < 0.65
    with pytest.raises(ValueError, match="ten pairs of one class"):
        verification.accuracy([noise[:3]], y[:3])


def test_outputs_that_are_not_finite_or_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        classification.accuracy([np.full((2, 3), np.nan)], [0, 1])
    with pytest.raises(ValueError, match="one output with 2 axes and 2 examples"):
        classification.accuracy([np.zeros((3, 3))], [0, 1])
    with pytest.raises(ValueError, match="one output"):
        classification.accuracy([np.zeros((2, 3)), np.zeros((2, 4))], [0, 1])
