"""What a phone is given and what this computer makes of it; then the same on emulated phones, to the last bit."""

import dataclasses
import zipfile

import numpy as np
import pytest
import small_files
import tiny_files
from ai_edge_litert.interpreter import Interpreter
from emulated_phone.personalities import PIXEL
from phone_farm import farm

from android_bench.accuracy import Pack, score
from android_bench.reference import make

X = np.array([[1, 0], [0, 1], [3, 1], [2, 2], [5, 4]], np.float32)
ANSWERS = [[1, 0, 2], [0, 1, -1], [3, 1, 5], [2, 2, 2], [5, 4, 6]]


@pytest.fixture
def made(tmp_path):
    """Makes the reference of a file's content."""

    def make_it(content: bytes, inputs, **options):
        path = tmp_path / "model.tflite"
        path.write_bytes(content)
        return make(path, inputs, **options)

    return make_it


@pytest.mark.parametrize("xnnpack", [True, False])
def test_a_dynamic_file_takes_all_samples_in_one_run(made, xnnpack):
    found = made(tiny_files.matmul(), X, xnnpack=xnnpack)
    assert found.scores.tolist() == ANSWERS
    assert (found.samples, found.chunk, found.chunks, found.dynamic) == (5, 5, 1, True)
    assert found.how == "5 samples a process, checked against single ones here"
    assert found.packs == (X.tobytes(),) and found.chunk_bytes == 5 * 3 * 4
    assert (found.inputs[0].shape, found.outputs[0].shape) == ((5, 2), (5, 3))


def test_single_asks_for_one_sample_a_run_with_the_same_answers(made):
    found = made(tiny_files.matmul(), X, single=True)
    assert (found.chunk, found.chunks, found.how) == (1, 5, "one sample a process")
    assert found.scores.tolist() == ANSWERS


def test_the_last_chunk_is_filled_up_with_the_last_sample(made):
    many = np.arange(600, dtype=np.float32).reshape(300, 2)
    found = made(tiny_files.matmul(), many)
    assert (found.samples, found.chunk, found.chunks) == (300, 256, 2)
    pack = np.frombuffer(found.packs[0], np.float32).reshape(512, 2)
    assert (pack[:300] == many).all() and (pack[300:] == [598, 599]).all()
    assert found.scores.shape == (300, 3) and found.scores[-1].tolist() == [598, 599, 597]


def test_a_batch_holds_no_more_than_some_megabytes(made):
    found = made(tiny_files.total(), np.ones((2, 1_500_000), np.float32))  # 6 MB each
    assert found.chunk == 1 and found.scores.tolist() == [[1_500_000], [1_500_000]]


@pytest.mark.parametrize("batch, chunks, how", [
    (1, 5, "one sample a process: the file's batch is fixed"),
    (2, 3, "2 samples a process: the file's batch is fixed"),
])  # fmt: skip
def test_a_fixed_batch_is_kept(made, batch, chunks, how):
    found = made(tiny_files.matmul(batch), X)
    assert (found.chunk, found.chunks, found.dynamic, found.how) == (batch, chunks, False, how)
    assert found.scores.tolist() == ANSWERS


def test_a_file_that_mixes_its_batch_gets_one_sample_a_run(made):
    found = made(tiny_files.minus_mean(), X)
    assert found.chunk == 1 and found.how == "one sample a process: a batch gives other outputs than its samples alone"
    assert found.scores.tolist() == [[0, 0]] * 5


def test_a_file_whose_layers_refuse_a_batch_gets_one_sample_a_run(made):
    found = made(tiny_files.one_by_one(), X)
    assert found.chunk == 1 and found.how.startswith("one sample a process: ")
    assert found.scores.tolist() == (2 * X).tolist()


def test_several_inputs_go_by_name_or_in_the_files_order(made):
    left, right = np.array([[1, 2, 3], [4, 5, 6]], np.float32), np.array([[10, 20], [30, 40]], np.float32)
    named = made(small_files.two_inputs(), {"left": left, "right": right})
    assert named.scores.tolist() == [[36], [85]]
    places = {layer.name.split("_")[-1].split(":")[0]: index for index, layer in enumerate(named.inputs)}
    assert named.packs[places["left"]] == left.tobytes() and named.packs[places["right"]] == right.tobytes()
    ordered = [left, right] if places["left"] == 0 else [right, left]
    assert made(small_files.two_inputs(), ordered).packs == named.packs


def test_int8_inputs_are_quantized_and_outputs_given_in_their_unit(made):
    content, x = small_files.tflite("int8_io"), small_files.X[:3]
    net = Interpreter(model_content=content)
    net.allocate_tensors()
    (given,), (left,) = net.get_input_details(), net.get_output_details()
    found = made(content, x)
    assert (found.inputs[0].dtype, found.outputs[0].dtype, found.chunk_bytes) == ("int8", "int8", 3 * 4)
    scale, zero = given["quantization"]
    codes = np.clip(np.round(x / scale) + zero, -128, 127).astype(np.int8)
    assert found.packs == (codes.tobytes(),)
    for sample, scores in zip(codes, found.scores, strict=True):
        net.set_tensor(given["index"], sample[None])
        net.invoke()
        scale, zero = left["quantization"]
        codes_out = net.get_tensor(left["index"])[0].astype(np.float32)
        assert scores.tolist() == ((codes_out - zero) * np.float32(scale)).tolist()


@pytest.mark.parametrize("inputs, words", [
    (np.ones((3, 5), np.float32), r"takes \(-1, 2\) \(-1: any\). Received: \(3, 5\)"),
    (np.ones(3, np.float32), r"Received: \(3,\)"),
    ({"other": X}, r"Expected one array for each input: .* Received: \['other'\]"),
    ([X, X], "Expected one array for each input"),
    ([X, X[:2]], r"Expected as many samples in each array, one or more. Received: \[2, 5\]"),
    (X[:0], r"Received: \[0\]"),
])  # fmt: skip
def test_inputs_that_do_not_fit_are_refused_in_words(made, inputs, words):
    with pytest.raises(ValueError, match=words):
        made(tiny_files.matmul(), inputs)


def test_files_that_can_not_be_run_are_refused_in_words(made):
    with pytest.raises(ValueError, match="single number"):
        made(tiny_files.number(), np.float32([1, 2]))
    with pytest.raises(ValueError, match="NaN"):
        made(tiny_files.square_root(), -X)
    with pytest.raises(RuntimeError, match="LiteRT can't run"):
        made(b"\x1c\0\0\0TFL3" + b"rubbish" * 30, X)


def test_all_outputs_are_compared_with_this_computers(made):
    found = made(tiny_files.two_outputs(), X)
    sizes = [int(np.prod(layer.shape)) for layer in found.outputs]
    assert sizes == [15, 10] and found.differences(found.content) == dict.fromkeys((o.name for o in found.outputs), 0)
    there = np.frombuffer(found.content, np.float32).copy()
    there[3] += 2  # of the first output
    there[-1] += 0.5  # of the second
    assert list(found.differences(there.tobytes()).values()) == [2, 0.5]
    there[-1] = np.nan
    assert list(found.differences(there.tobytes()).values()) == [2, None]


@pytest.mark.parametrize("content", [b"", bytes(59), bytes(61)])
def test_outputs_of_another_size_are_refused(made, content):
    with pytest.raises(ValueError, match=rf"Expected 1 x 60 bytes of outputs. Received: {len(content)}"):
        made(tiny_files.matmul(), X).read(content)


def test_score_has_accuracy_by_the_labels_and_agreement_with_this_computer(made):
    expected = made(tiny_files.matmul(), X)  # the largest of each row: 2, 1, 2, 0 (all equal), 2
    there = expected.scores.copy()
    there[0] = [9, 0, 2]  # the phone says 0
    found = score(expected, there, Pack({}, np.array([2, 1, 2, 0, 2]), "ab"))
    assert found["accuracy"] == 0.8 and found["recalls"] == {"0": 1.0, "1": 1.0, "2": pytest.approx(2 / 3)}
    assert found["facts"] == {"eval_samples": 5, "eval_how": expected.how, "eval_sha256": "ab",
                              "host_max_difference": 8.0, "host_agreement": 0.8}  # fmt: skip


def test_score_says_why_there_is_no_accuracy(made):
    expected = made(tiny_files.matmul(), X)
    assert score(expected, expected.scores, Pack({}, None))["facts"]["accuracy_note"] == "the data has no labels (y)"
    assert "0..2" in score(expected, expected.scores, Pack({}, np.array([0, 1, 2, 3, 9])))["facts"]["accuracy_note"]
    layer = dataclasses.replace(expected.outputs[0], shape=(5, 1, 3))
    boxes = dataclasses.replace(expected, outputs=(layer,))
    found = score(boxes, boxes.scores, Pack({}, np.arange(5)))
    assert "accuracy" not in found and "(5, 1, 3)" in found["facts"]["accuracy_note"]


def test_a_pack_is_inputs_and_labels_and_may_be_limited(tmp_path):
    np.savez(tmp_path / "one.npz", x=X, y=np.arange(5))
    pack = Pack.read(tmp_path / "one.npz", 2)
    assert pack.feeds.tolist() == X[:2].tolist() and pack.labels.tolist() == [0, 1]
    np.savez(tmp_path / "two.npz", left=X, right=X)
    pack = Pack.read(tmp_path / "two.npz")
    assert set(pack.feeds) == {"left", "right"} and pack.labels is None


def bad_packs(folder):
    np.savez(folder / "good.npz", x=X, y=np.arange(5))
    good = (folder / "good.npz").read_bytes()
    changed = good.replace(X.tobytes(), bytes(X.nbytes))
    for name, content in {"empty": b"", "cut": good[:100], "noise": b"noise" * 50, "changed": changed}.items():
        (folder / f"{name}.npz").write_bytes(content)
    for name, entry in {"text": "a.txt", "no_header": "x.npy"}.items():
        with zipfile.ZipFile(folder / f"{name}.npz", "w") as file:
            file.writestr(entry, "hello")
    arrays = {
        "only_labels": dict(y=np.arange(5)), "lengths": dict(x=X, y=np.arange(4)), "no_samples": dict(x=X[:0]),
        "scalar": dict(x=np.float32(1)), "objects": dict(x=np.array([{}, 1], object)), "words": dict(x=np.array(["a"])),
        "word_labels": dict(x=X, y=np.array(list("abcde"))),
    }  # fmt: skip
    for name, each in arrays.items():
        np.savez(folder / f"{name}.npz", **each)
    np.save(folder / "array.npy", X)
    return ["empty", "cut", "noise", "changed", "text", "no_header", *arrays, "array.npy", "missing", "."]


def test_every_bad_pack_is_refused_with_its_name_and_what_is_wanted(tmp_path):
    for name in bad_packs(tmp_path):
        path = tmp_path / (name if "." in name else f"{name}.npz")
        with pytest.raises(ValueError, match="Expected ") as caught:
            Pack.read(path)
        words = str(caught.value)
        assert str(path) in words and "\n" not in words and "pickle.load" not in words


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """(id, delegate) -> row of files of many kinds on one phone."""
    root = tmp_path_factory.mktemp("reference")
    image = {"dynamic": small_files.tflite(), "fixed": small_files.tflite(static=True),
             "int8_io": small_files.tflite("int8_io")}  # fmt: skip
    pairs = {"mixed": tiny_files.minus_mean(), "fixed2": tiny_files.matmul(2), "two_outputs": tiny_files.two_outputs()}
    for name, content in (image | pairs | {"two_inputs": small_files.two_inputs()}).items():
        (root / f"{name}.tflite").write_bytes(content)
    np.savez(root / "image.npz", x=small_files.X[:2], y=np.array([0, 1]))
    np.savez(root / "pairs.npz", x=X[:2])
    np.savez(root / "named.npz", left=np.ones((2, 3), np.float32), right=np.float32([[1, 2], [3, 4]]))
    found = {}
    with farm(root, PIXEL) as phones:
        for data, names in {"image": image, "pairs": pairs, "named": ["two_inputs"]}.items():
            for row in phones.measure([root / f"{name}.tflite" for name in names], root / f"out_{data}",
                                      eval=str(root / f"{data}.npz"),
                                      delegate=("cpu", "builtin") if data == "image" else ("cpu",)):  # fmt: skip
                found[row.id, row.facts["delegate_asked"]] = row
    return found


def test_the_phones_outputs_are_this_computers_to_the_last_bit(rows):
    assert len(rows) == 3 * 2 + 3 + 1
    for key, row in rows.items():
        assert row.error is None, key
        assert row.facts["host_max_difference"] == 0 and row.facts["host_agreement"] == 1, (key, row.facts)
        assert row.delegate == {"cpu": "xnnpack", "builtin": "builtin"}[key[1]] or key[0] == "mixed"


def test_every_output_of_the_phone_is_compared(rows):
    assert sorted(rows["two_outputs", "cpu"].facts["host_differences"].values()) == [0, 0]
    assert "host_differences" not in rows["dynamic", "cpu"].facts


def test_how_many_samples_go_into_a_process_on_the_phone(rows):
    how = {name: rows[name, "cpu"].facts["eval_how"] for name, _ in rows}
    for name in ("dynamic", "int8_io", "two_inputs"):
        assert how[name] == "2 samples a process, checked against single ones here"
    assert how["fixed"] == "one sample a process: the file's batch is fixed"
    assert how["fixed2"] == "2 samples a process: the file's batch is fixed"
    assert how["mixed"].startswith("one sample a process: a batch gives other outputs")


def test_accuracy_with_labels_only(rows):
    scores = small_files.model().predict(small_files.X[:2], verbose=0)
    assert rows["dynamic", "cpu"].accuracy == np.mean(scores.argmax(1) == [0, 1])
    assert rows["mixed", "cpu"].accuracy is None and "no labels" in rows["mixed", "cpu"].facts["accuracy_note"]
