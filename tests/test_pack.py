"""Whole files: packed, unpacked by Python and by the C file, cut off, changed, and lied about."""

import lzma
import subprocess

import numpy as np
import pytest
import small_files
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_files import decoder, sparse_codes, tflite, unpack_in_c

from tfcompress import cli
from tfcompress.measure import storage
from tfcompress.pack import VERSION, pack, packing, unpack
from tfcompress.packing import container
from tfcompress.packing.fields import Fields
from tfcompress.quantization.adaptive_float import AdaptiveFloat

RNG = np.random.default_rng(0)


def files():
    """A file for each way in which a tensor can be stored, and each in which the rest of the file can be."""
    floats = RNG.normal(size=(30, 40)).astype(np.float32)
    codes = sparse_codes(RNG, (40, 50), 0.1)
    yield "floats", tflite({"float32": floats, "float16": floats.astype(np.float16), "ids": np.arange(1000)})
    small = np.clip(floats * 40, -128, 127).astype(np.int8)
    yield "int8", tflite({"dense": small, "sparse": codes, "odd": codes[:, :7]})
    yield "scales", tflite({"scaled": codes * RNG.random((40, 1), np.float32), "book": codes * np.float32(0.3)})
    yield "nibbles", tflite({"int4": codes.view(np.uint8)[:, :40]}, {"int4": "INT4"})
    yield "constant", tflite({"zeros": np.zeros((100, 90), np.float32), "ones": np.ones((9, 9), np.int8)})
    yield "repeated", tflite({"window": np.tile(floats[:3], (40, 1))})
    yield "even", tflite({"flat": RNG.integers(0, 2, 3000).astype(np.int8), "noise": floats[:9] * 7})
    yield "empty", tflite({})
    pruned = np.where(RNG.random((90, 80)) < 0.9, 0, RNG.normal(size=(90, 80)))
    yield "pruned", tflite({"pruned": pruned.astype(np.float32), "half": pruned.astype(np.float16)})
    yield "many names", tflite({f"layer_{i}/{RNG.integers(10**9)}": codes[:1, :4] for i in range(400)})
    yield "gaps", tflite({"every hundredth": np.tile(np.eye(1, 100, dtype=np.int8), (80, 1))})
    yield "bitmap", tflite({"half": np.where(RNG.random(300) < 0.5, RNG.integers(-16, 16, 300), 0).astype(np.int8)})


FILES = dict(files())


@pytest.mark.parametrize("name", FILES)
def test_python_and_c_give_the_identical_file(name):
    content = FILES[name]
    found = packing(content)
    packed = found.content
    assert unpack(packed) == content and len(packed) < len(content)
    assert name != "bitmap" or "bitmap" in found.listing()
    assert unpack_in_c(packed, sanitized=True) == unpack_in_c(packed) == (0, content, "")


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_real_file_is_smaller_than_by_xz(precision):
    content = small_files.tflite(precision)
    packed = packing(content)
    assert unpack(packed.content) == content and unpack_in_c(packed.content)[1] == content
    assert len(packed.content) < 0.8 * len(lzma.compress(content))
    assert all(tensor.packed_bytes <= tensor.raw_bytes + 1 for tensor in packed.tensors)


def test_a_large_sparse_file_is_within_three_percent_of_the_entropy_bound():
    found = packing(tflite({"codes": sparse_codes(RNG, (400, 500), 0.05) * np.float32(0.01)}))
    assert found.entropy_bytes <= len(found.content) < 1.03 * found.entropy_bytes
    assert found.raw_bytes / len(found.content) > 70
    assert "ANS" in found.listing() or "mixed" in found.listing()


PACKED = {name: pack(FILES[name]) for name in ("int8", "floats", "scales", "many names", "pruned")}


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(PACKED)), st.floats(0, 1), st.integers(1, 255), st.booleans())
def test_cut_and_changed_files_are_refused(name, place, change, cut):
    packed = PACKED[name]
    at = min(int(place * len(packed)), len(packed) - 1)
    wrong = packed[:at] if cut else packed[:at] + bytes([packed[at] ^ change]) + packed[at + 1 :]
    with pytest.raises(ValueError, match="^Expected .* Received: "):
        unpack(wrong)


def test_the_c_decoder_refuses_them_too():
    rng = np.random.default_rng(1)
    for name, packed in PACKED.items():
        for at in rng.integers(0, len(packed), 12):
            wrong = packed[:at] + bytes([packed[at] ^ int(rng.integers(1, 256))]) + packed[at + 1 :]
            for bad in (wrong, packed[:at]):
                code, out, said = unpack_in_c(bad, sanitized=True)
                assert code == 1 and not out and said.startswith("error: ") and said.count("\n") == 1, (name, at, said)


def test_the_c_decoder_is_safe_where_a_forged_checksum_lets_anything_through():
    """Compiled without the checksum, as for fuzzing: it refuses or gives something, and touches nothing it may not."""
    rng, passed = np.random.default_rng(2), 0
    for name in PACKED:
        for _ in range(16):
            wrong = bytearray(PACKED[name])
            for at in rng.integers(9, len(wrong), rng.integers(1, 4)):
                wrong[at] = rng.integers(256)
            code, _, said = unpack_in_c(bytes(wrong), sanitized=True, forged=True)
            assert code in (0, 1) and said.count("\n") == code and said[:7] == "error: "[: 7 * code], (name, said)
            passed += not code
    assert passed


def test_heads_and_codes_that_no_file_has_are_refused_before_the_work():
    """A head of a million bytes for a file of 64; two tensors that mix more codes than a file may, each as many."""
    long = "longer than what it describes"
    for count, head, words in [(64, bytes(10**6), long), (64 + 2**21, b"", "more mixed codes")]:
        fields = Fields(head)
        if not head:
            for number in (2, 0, 64, 0, 2**21):          # two ranges without a gap
                fields.number(number)
            for codes in (64, 2**21):
                fields += bytes([5, 8])                  # mixed contexts, codes of 8 bits
                for number in (2, 127, 0, 0, codes, 1):  # of two symbols; zero is the first; one row
                    fields.number(number)
        coder, main = container.write(bytes(fields), [(0, b"")])
        start = Fields()
        for number in (count, len(fields), len(main), 0, *([0] if coder else [])):
            start.number(number)
        packed = b"TFCP" + bytes([VERSION << 4 | coder]) + bytes(4) + bytes(start) + main + bytes(count // 2**14 + 1)
        with pytest.raises(ValueError, match=words):
            unpack(packed)
        assert unpack_in_c(packed, sanitized=True, forged=True)[0] == 1


def test_lengths_are_not_believed():
    packed = PACKED["int8"]
    huge = packed[:9] + b"\xff\xff\xff\xff\x7f" + packed[11:]
    with pytest.raises(ValueError, match="can't be unpacked"):
        unpack(huge)
    assert unpack_in_c(huge, sanitized=True)[0] == 1
    with pytest.raises(ValueError, match="Expected the bytes of a .tfcp file"):
        unpack(b"PK\x03\x04")
    with pytest.raises(ValueError, match="Expected the bytes of a .tfcp file"):
        unpack(None)
    with pytest.raises(ValueError, match="Expected a .tflite file"):
        pack(b"PK\x03\x04 a Keras file")


def test_a_short_file_can_not_ask_for_long_work():
    """560 bytes that claim nine million mixed codes are refused before a code is read."""
    count, head = 9_000_000, Fields()
    for number in (1, 0, count):                         # one range, at the start, so long
        head.number(number)
    head += bytes([5, 8])                                # mixed contexts, codes of 8 bits
    for number in (2, 127, 0, 0, count, 1):              # of two symbols; zero is the first; one row
        head.number(number)
    coder, main = container.write(bytes(head), [(0, b""), (count, b"")])
    start = Fields()
    for number in (count, len(head), len(main), 0):
        start.number(number)
    packed = b"TFCP" + bytes([VERSION << 4 | coder]) + bytes(4) + bytes(start) + main
    packed += bytes(count // 2**14 + 1)
    with pytest.raises(ValueError, match="more mixed codes than any file has"):
        unpack(packed)


def test_four_bit_floats_take_four_bits():
    """AFP(2, 1): 1 + e + m bits for a weight in the packed file, or fewer, and what is around them."""
    w = RNG.standard_normal((200, 100)).astype("float32")
    adaptive = np.asarray(AdaptiveFloat(2, 1).apply(w, {}))
    found = packing(tflite({"w": adaptive}))
    assert found.tensors[0].packed_bytes <= w.size * 4 / 8 and len(found.content) <= w.size * 4 / 8 + 400


def test_the_commands(tmp_path, capsys):
    source, packed, back = (tmp_path / name for name in ("net.tflite", "net.tfcp", "again.tflite"))
    source.write_bytes(FILES["scales"])
    assert cli.main(["pack", str(source), "-o", str(packed), "--weights"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("gzip -9", "xz -6", "packed", "entropy bound", "scaled", str(packed)))
    assert cli.main(["unpack", str(packed), "-o", str(back)]) == 0 and back.read_bytes() == FILES["scales"]
    packed.write_bytes(packed.read_bytes()[:-3])
    capsys.readouterr()
    assert cli.main(["unpack", str(packed), "-o", str(tmp_path / "no.tflite")]) == 2
    assert "cut off or changed" in capsys.readouterr().err and not (tmp_path / "no.tflite").exists()
    assert cli.main(["pack", str(source), "-o", str(source)]) == 2
    assert "another file" in capsys.readouterr().err
    assert cli.main(["unpack", str(source)]) == 2 and "TFCP" in capsys.readouterr().err
    assert cli.main(["pack", str(tmp_path / "none.tflite"), "-o", str(tmp_path / "no" / "net.tfcp")]) == 2
    assert "the folder" in capsys.readouterr().err  # before the file is read
    assert cli.main(["pack", str(tmp_path / "no" / "net.tflite")]) == 2
    assert "the folder" not in capsys.readouterr().err  # it is what is read that is not there
    assert source.read_bytes() == FILES["scales"]


def test_the_c_command_leaves_what_it_reads(tmp_path):
    packed = tmp_path / "net.tfcp"
    packed.write_bytes(pack(FILES["scales"]))
    found = subprocess.run([decoder(), packed, packed], capture_output=True, text=True)
    assert found.returncode == 2 and "is IN.tfcp" in found.stderr and packed.read_bytes() == pack(FILES["scales"])


def test_storage_counts_the_same_file():
    found = storage(FILES["int8"])
    assert found.raw == len(FILES["int8"]) and found.packed == len(pack(FILES["int8"]))
    assert found.packed < found.xz < found.raw and found.packed < found.gzip
