"""Every block type: decode against the gguf package, encode against llama.cpp, pack, fit, grid."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from encoder_inputs import bell, hard_rows, importance, tame
from tools.make_encoder_hashes import Ggml, digests, written

from ggq import quants
from ggq.errors import FormatError, UsageError
from ggq.gguf.spec import TYPES

HASHES = Path(__file__).parent / "data/encoder_hashes.json"
ALL = quants.all()
BLOCKED = [t for t in ALL if isinstance(t, quants.BlockType)]
WRITTEN = written()
LATTICES = [t for t in WRITTEN if t.name.startswith(("IQ1", "IQ2", "IQ3"))]
READ_ONLY = [t for t in ALL if t.block_size > 1 and t not in WRITTEN]
GOLDEN_TYPES = 10


def each(kinds):
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.name)


def bits(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def random_blocks(rng, kind, rows=64, blocks=8):
    """Return random bytes as blocks: infinite and NaN scales, codes that no encoder would write."""
    return rng.integers(0, 256, (rows, blocks * kind.block_bytes), dtype=np.uint8)


def test_registry():
    assert [t.ggml_id for t in ALL] == sorted({t.ggml_id for t in ALL})
    assert quants.get("q4_k") is quants.by_id(12)
    with pytest.raises(UsageError, match="unknown type Q9_9"):
        quants.get("Q9_9")
    with pytest.raises(FormatError, match="block type 99"):
        quants.by_id(99)


def test_listing_the_types_compiles_nothing():
    check = "import sys; from ggq import quants; quants.all(); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@each(ALL)
def test_sizes(kind):
    spec = TYPES[kind.ggml_id]
    assert (kind.name, kind.block_size, kind.block_bytes) == spec[:3]
    assert kind.row_bytes(3 * kind.block_size) == 3 * kind.block_bytes
    if kind.block_size > 1:
        with pytest.raises(UsageError, match=kind.name):
            kind.row_bytes(kind.block_size + 1)


@each(ALL)
def test_decode_is_bit_exact(kind, rng):
    gguf = pytest.importorskip("gguf")
    blocks = random_blocks(rng, kind)
    blocks.flags.writeable = False  # as a mapped file's are
    found = kind.dequantize(blocks)
    try:
        with np.errstate(all="ignore"):
            expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(kind.ggml_id))
    except (NotImplementedError, ValueError):  # newer than the gguf package
        pytest.importorskip("llama_cpp", reason="gguf does not decode it")
        expected = Ggml().dequantize(kind, blocks)
        nan = np.isnan(expected)  # ggml's are signaling
        assert np.array_equal(np.isnan(found), nan)
        expected[nan] = found[nan]
    assert found.dtype == np.float32
    assert np.array_equal(bits(found), bits(expected))


@each(BLOCKED)
def test_pack_inverts_unpack(kind, rng):
    blocks = random_blocks(rng, kind)
    params, codes = kind.unpack(blocks)
    assert codes.shape == (64, 8 * kind.block_size)
    assert codes.dtype == np.uint8
    assert np.array_equal(kind.pack(params, codes), blocks)


@each(BLOCKED)
def test_grid_is_decode(kind, rng):
    blocks = kind.quantize(bell(rng, 4, 512))
    params, codes = kind.unpack(blocks)
    grid = kind.grid(params)
    assert codes.max() < grid.levels
    np.testing.assert_allclose(grid.values(codes), kind.dequantize(blocks), rtol=1e-5, atol=1e-7)
    assert np.array_equal(kind.dequantize(blocks), kind.decode(params, codes))
    near = grid.values(grid.nearest(kind.dequantize(blocks)))
    np.testing.assert_allclose(near, kind.dequantize(blocks), rtol=1e-5, atol=1e-7)


@each(BLOCKED)
@pytest.mark.parametrize("weighted", [False, True])
def test_quantize_is_pack_of_encode_of_fit(kind, weighted, rng):
    x = np.concatenate([bell(rng, 8, 512), hard_rows(rng)["groups of all sizes"]])
    weights = importance(rng, 512) if weighted else None
    params = kind.fit(x, weights)
    assert np.array_equal(kind.pack(params, kind.encode(x, params)), kind.quantize(x, weights))


@each(BLOCKED)
def test_fit_works_on_slices(kind, rng):
    """A pre-pass may fit a run of columns or one row and gets what the whole row would have got."""
    x, weights = bell(rng, 3, 1024), importance(rng, 1024)
    whole = kind.fit(x)
    part = kind.fit(x[1:2, 256:512])
    blocks = slice(256 // kind.block_size, 512 // kind.block_size)
    assert np.array_equal(whole["d"][1:2, blocks], part["d"])
    own = np.stack([weights, weights[::-1], np.ones_like(weights)])
    rows = [kind.quantize(x[i : i + 1], np.ascontiguousarray(own[i])) for i in range(3)]
    assert np.array_equal(kind.quantize(x, own), np.concatenate(rows))


@each(BLOCKED)
def test_encode_for_given_scales(kind, rng):
    """Without the search's codes, encode picks for each weight the nearest value of the grid."""
    x = bell(rng, 4, 512)
    params = kind.fit(x)
    del params["codes"]
    error = np.abs(kind.decode(params, kind.encode(x, params)) - x)
    grid = kind.grid(params)
    nearest = np.abs(grid.values(grid.nearest(x)) - x)
    np.testing.assert_allclose(error, nearest, atol=1e-5)


@each(BLOCKED)
def test_importance_of_wrong_shape(kind, rng):
    with pytest.raises(UsageError, match="importance"):
        kind.quantize(bell(rng, 2, 512), np.ones(256, np.float32))


@each(BLOCKED)
def test_empty_and_odd_numbers_of_blocks(kind, rng):
    x = bell(rng, 17, 256)
    assert kind.quantize(x[:0]).shape == (0, kind.row_bytes(256))
    whole = kind.quantize(x)
    for rows in (1, 2, 15, 16):
        assert np.array_equal(kind.quantize(x[:rows]), whole[:rows])
    strided = np.zeros((17, 512), np.float32)
    strided[:, ::2] = x
    assert np.array_equal(kind.quantize(strided[:, ::2]), whole)


@each(WRITTEN)
def test_nan_and_infinity_end(kind, rng):
    """The converter refuses such rows; the encoder itself must only return."""
    x = bell(rng, 4, 512)
    x[0, 3], x[1, 100], x[2, 300], x[3] = np.nan, np.inf, -np.inf, np.nan
    weights = importance(rng, 512)
    weights[[5, 9]] = np.nan, np.inf
    for w in [weights] if kind.needs_importance else [None, weights]:
        assert kind.quantize(x, w).shape == (4, kind.row_bytes(512))


@each(BLOCKED)
def test_error_is_what_the_bits_allow(kind, rng):
    """The error on noise is that of the best fixed grid, give or take: a slip in a layout shows."""
    x = bell(rng, 32, 512)
    error = np.sqrt(((kind.dequantize(kind.quantize(x)) - x) ** 2).mean() / (x**2).mean())
    assert error < 2 / kind.levels


@each(WRITTEN)
def test_pinned_encodings(kind):
    """The hashes were made by llama.cpp's encoder, so that this needs none of it."""
    pinned = json.loads(HASHES.read_text())
    found = digests([kind], lambda kind, x, weights: kind.quantize(x, weights))
    assert found == {name: pinned[name] for name in found}


def test_golden_encodings(shared_dir):
    seen = set()
    with np.load(shared_dir / "golden/blocks.npz") as golden:
        for key in golden.files:
            case, name, *weighted = key.split("|")
            if name in ("x", "importance"):
                continue
            weights = golden[f"{case}|importance"] if weighted else None
            found = quants.get(name).quantize(golden[f"{case}|x"], weights)
            assert np.array_equal(found, golden[key]), key
            seen.add((name, *weighted))
    assert len(seen) == 2 * GOLDEN_TYPES


@each(WRITTEN)
def test_encodings_of_hard_rows(kind, rng):
    pytest.importorskip("llama_cpp")
    oracle = Ggml()
    flat, tiny = np.ones(512, np.float32), np.full(512, 1e-30, np.float32)
    zero, huge = np.zeros(512, np.float32), np.full(512, 1e30, np.float32)
    given = [importance(rng, 512), flat, tiny, zero]
    given += [] if kind.needs_importance else [None]
    given += [] if kind in LATTICES else [huge]  # their oracle would end the process
    for name, x in hard_rows(rng).items():
        for weights in given:
            expected = oracle.quantize(kind, tame(kind, x), weights)
            assert np.array_equal(kind.quantize(tame(kind, x), weights), expected), name


@each(LATTICES)
def test_lattice_types_take_importance_by_row_and_any_number_of_rows(kind, rng):
    x = bell(rng, 17, 512)
    own = np.stack([importance(rng, 512) for _ in x])
    whole = kind.quantize(x, own)
    for i in (0, 16):
        assert np.array_equal(kind.quantize(x[i : i + 1], own[i]), whole[i : i + 1])
    assert np.array_equal(kind.quantize(x[:15], own[:15]), whole[:15])
    assert kind.quantize(x[:0], own[0]).shape == (0, kind.row_bytes(512))
    with pytest.raises(UsageError, match="importance"):
        kind.quantize(x, np.ones(256, np.float32))


@each(LATTICES)
def test_lattice_types_follow_importance(kind, rng):
    """What counts a hundred times more comes out better, and all of it is near what went in."""
    x, heavy = bell(rng, 32, 512), np.arange(512) % 2 == 0
    weights = np.where(heavy, np.float32(100), np.float32(1))
    errors = [kind.dequantize(kind.quantize(x, w)) - x for w in (weights, weights[::-1].copy())]
    first, second = ((e[:, heavy] ** 2).mean() for e in errors)
    assert first < 0.9 * second
    assert (errors[0] ** 2).mean() < 0.6 * (x**2).mean()


@each(WRITTEN)
def test_types_that_heed_importance_say_so(kind, rng):
    x = rng.normal(size=(4, 512)).astype(np.float32)
    importance = (rng.random(512) + 0.01).astype(np.float32) ** 4
    both = [kind.quantize(x, given) for given in (np.ones(512, np.float32), importance)]
    assert kind.heeds_importance == (not np.array_equal(*both))


@each([t for t in ALL if t.needs_importance])
def test_types_that_need_importance_say_so(kind, rng):
    with pytest.raises(UsageError, match=f"{kind.name} cannot be written without importance"):
        kind.quantize(bell(rng, 1, 256))


def test_iq3_s_keeps_codes_in_place_behind_a_group_of_zeros(rng):
    """ggml writes the groups that follow one of zeros a group too early; ggq does not."""
    kind, x = quants.get("IQ3_S"), bell(rng, 4, 256)
    x[:, 64:96] = 0
    found = kind.dequantize(kind.quantize(x))
    assert np.abs(found[:, 64:96]).max() < 0.05  # there is no zero: the smallest magnitude is one
    assert ((found - x) ** 2).mean() < 0.05 * (x**2).mean()
    ggml = pytest.importorskip("llama_cpp") and Ggml()
    assert ((kind.dequantize(ggml.quantize(kind, x)) - x) ** 2).mean() > 0.5 * (x**2).mean()


@each(READ_ONLY)
def test_types_that_are_only_read(kind, rng):
    with pytest.raises(UsageError, match=f"{kind.name}.*does not write"):
        kind.quantize(bell(rng, 1, 256))


def test_every_type_of_the_format_is_known():
    """All block types of GGUF but ggml's own intermediate ones can be decoded."""
    known = {t.ggml_id for t in ALL}
    missing = {info.name for number, info in TYPES.items() if number not in known}
    assert missing <= {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"}
