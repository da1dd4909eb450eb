"""The coders of the .tfcp container, one by one: known streams, sizes known before, every tensor back bit for bit."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_files import sparse_codes

from tfcompress.packing import ans, bits, gaps, huffman, mixing, streams, symbols, tensors, weight_model
from tfcompress.packing.fields import Fields, Reader

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from table_packed_columns import SPEC, columns  # noqa: E402

DTYPES = {"int8": 8, "int16": 16, "float16": 16, "int32": 32, "float32": 32, "int64": 64, "int4": 4, "int2": 2}
SHAPES = [(96,), (8, 16), (4, 3, 3, 8)]


def stored(plan, length):
    """What a plan wrote, read back; and how many bytes it took."""
    fields, payload = Fields(), []
    plan.write(fields, payload)
    content = b"".join(payload)
    flags, guesses = plan.decisions or ((), ())
    mixed = ans.write_bits(flags, guesses)
    found = tensors.read(Reader(bytes(fields)), Reader(content), length, weight_model.Codes(), ans.Bits(mixed))
    return bytes(found), len(fields) + len(content) + len(mixed)


def every_plan(raw, width, shape, dtype):
    yield from tensors.plans(raw, width, shape, dtype)
    for form in symbols.forms(raw, width, shape):
        if len(form.alphabet) <= weight_model.MOST_KINDS:
            yield tensors.mixed(form, shape, weight_model.Codes())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from(sorted(DTYPES)), st.sampled_from(SHAPES))
def test_every_way_to_store_a_tensor_gives_it_back_in_the_bytes_it_foretold(seed, density, dtype, shape):
    rng = np.random.default_rng(seed)
    width = DTYPES[dtype]
    raw = rng.integers(0, 256, int(np.prod(shape)) * width // 8, np.uint8)
    whole = raw.view(f"u{max(width // 8, 1)}")
    whole[rng.random(len(whole)) >= density] = 0
    if seed % 3 == 0:
        whole[:] = whole[rng.integers(0, min(5, len(whole)), len(whole))]  # few distinct values
    for plan in every_plan(raw, width, shape, dtype):
        content, size = stored(plan, len(raw))
        assert content == raw.tobytes(), plan.name
        streams_of_ans = plan.name.count("ANS") + plan.name.count("mixed")
        assert abs(size - plan.size) <= 10 * streams_of_ans, (plan.name, size, plan.size)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=200))
def test_every_coder_of_a_stream(values):
    values = np.array(values)
    counts = np.bincount(values)
    for choice in streams.choices(counts, values):
        fields, payload = Fields(), []
        streams.write(values, choice, fields, payload)
        size = len(fields) + len(b"".join(payload))
        found = streams.read(Reader(bytes(fields)), Reader(b"".join(payload)), len(values), 301)
        assert found.tolist() == values.tolist()
        assert abs(size - choice.size) <= (10 if choice.name == "ANS" else 0), choice


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=300))
def test_huffman_is_within_a_bit_of_the_entropy_and_no_longer_than_fixed(counts):
    counts = np.array(counts)
    used = counts[counts > 0]
    lengths = huffman.code_lengths(counts)
    total = int((lengths * counts).sum())
    if len(used):
        huffman.check(lengths)
        assert total < tensors.entropy_bits(counts) + counts.sum() + 1
    if len(used) > 1:
        assert tensors.entropy_bits(counts) <= total + 1e-6 <= counts.sum() * (len(used) - 1).bit_length() + 1e-6


def test_a_stream_decoded_by_hand():
    """Gaps 2, 0, 3 and values +1, -1, +1 of 0 0 + - 0 0 0 + 0, in 4 bits a gap and 2 a value, index in (-1, 0, 1)."""
    codes = np.array([1, 1, 2, 0, 1, 1, 1, 2, 1])
    distances, values = gaps.split(codes, zero=1)
    assert bits.write_fixed(distances, 4).hex() == "2030"      # 0010 0000 0011
    assert bits.write_fixed(values, 2).hex() == "88"           # 10 00 10
    assert bits.write_rice(distances, 1).hex() == "53"         # 01 0, 1 0, 01 1
    lengths = huffman.code_lengths(np.bincount(values))
    assert lengths.tolist() == [1, 0, 1] and huffman.write(values, lengths).hex() == "a0"      # 1 0 1
    assert gaps.join(distances, values, 1, 9).tolist() == codes.tolist()


def test_zero_one_and_all_alike():
    assert huffman.code_lengths([7]).tolist() == [1] and huffman.code_lengths([]).tolist() == []
    for raw in (np.zeros(64, np.uint8), np.full(64, 7, np.uint8)):
        best = min(tensors.plans(raw, 8, (8, 8), "int8"), key=lambda plan: plan.size)
        assert stored(best, 64)[0] == raw.tobytes() and best.size < 10


def test_minus_zero_and_nan_payloads_survive_scales_and_codebooks():
    values = np.tile(np.array([0.5, -0.0, 0.25, -0.5], np.float32), (4, 8))
    for bad in (values, np.where(values == 0.25, np.uint32(0x7FC01234).view(np.float32), values)):
        raw = np.ascontiguousarray(bad).reshape(-1).view(np.uint8)
        assert all(form.scales is None for form in symbols.forms(raw, 32, (4, 8)))
        assert all(stored(plan, len(raw))[0] == raw.tobytes() for plan in every_plan(raw, 32, (4, 8), "float32"))


def test_scales_of_each_channel_are_found():
    rng = np.random.default_rng(1)
    codes = sparse_codes(rng, (12, 40), 0.5)
    codes[:, 0] = 1
    scales = rng.random((12, 1), np.float32) + np.float32(0.1)
    for values, axis in ((codes * scales, 0), ((codes * scales).T, 1)):
        raw = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8)
        scaled = [form for form in symbols.forms(raw, 32, values.shape) if form.scales is not None]
        (form,) = [form for form in scaled if form.axis == axis]
        assert np.array_equal(form.scales, scales.ravel())
        assert symbols.values(form, form.codes).tobytes() == raw.tobytes()


def test_ans_is_within_a_thousandth_of_the_entropy():
    rng = np.random.default_rng(0)
    codes = rng.choice(7, 100_000, p=[0.02, 0.02, 0.02, 0.88, 0.02, 0.02, 0.02])
    counts = np.bincount(codes)
    (block,) = ans.write(codes, ans.frequencies(counts))
    assert len(block) * 8 < tensors.entropy_bits(counts) * 1.001 + 64
    assert ans.frequencies(counts).sum() == ans.TOTAL


def test_the_context_model_finds_dead_columns_and_dense_rows():
    """Half of the columns are empty, and known rows are three times as dense: what no histogram sees."""
    rng = np.random.default_rng(0)
    density = np.outer(np.where(np.arange(128) % 4, 0.1, 0.3), np.arange(128) % 2 * 1.6)
    codes = sparse_codes(rng, (128, 128), density)
    (form,) = symbols.forms(codes.reshape(-1).view(np.uint8), 8, codes.shape)
    known = sum(-p * np.log2(p) - (1 - p) * np.log2(1 - p) + p * np.log2(6) for p in density[density > 0]) / 8
    mixed = tensors.mixed(form, codes.shape, weight_model.Codes())
    assert known < mixed.size < 0.9 * tensors.entropy_bits(form.counts) / 8


@pytest.mark.parametrize("bit", [0, 1])
def test_mixing_learns_a_constant(bit):
    coder, mixer = mixing.Encoder(), mixing.Mixer(2, 1, 4, limit=255, rate=6)
    for _ in range(2000):
        mixer.code(coder, (0, 16), 0, bit)
    packed = coder.finish()
    assert len(packed) < 20
    decoder, mixer = mixing.Decoder(packed), mixing.Mixer(2, 1, 4, limit=255, rate=6)
    assert all(mixer.code(decoder, (0, 16), 0) == bit for _ in range(2000))


def test_damaged_streams_are_refused():
    lengths = np.array([1, 2, 2])
    with pytest.raises(ValueError, match="no Huffman code"):
        huffman.read(b"\0", np.array([1, 1, 1]), 3)
    with pytest.raises(ValueError, match="too short"):
        huffman.read(huffman.write(np.array([2, 2]), lengths), lengths, 9)
    with pytest.raises(ValueError, match="too short"):
        bits.read_rice(b"\0\0", 2, 1)
    with pytest.raises(ValueError, match="longer than the tensor"):
        gaps.join(np.array([9]), np.array([1]), 0, 5)
    with pytest.raises(ValueError, match="3 bytes wanted where 1 are left"):
        Reader(b"x").take(3)


@pytest.mark.parametrize("sparsity", [0.90, 0.96])
def test_ratios_of_three_bits_and_zeros(sparsity):
    """32-bit weights / what 300,000 codes take in six ways: each within 2 % of the known table."""
    codes = sparse_codes(np.random.default_rng(0), 300_000, 1 - sparsity)
    for (name, size), ratio in zip(columns(codes).items(), SPEC[sparsity], strict=True):
        assert 4 * len(codes) / size == pytest.approx(ratio, rel=0.02), name
