"""Every grid and every layout of serving engines is held to what it declares."""

import json
from pathlib import Path

import numpy as np
import pytest

from ggq import quants
from ggq.converters import formats, grids
from ggq.converters.grids.base import Weight
from ggq.converters.safetensors import DTYPES
from ggq.errors import UsageError

KINDS = grids.kinds_of_codes()
TYPES = grids.types()
DOC = (Path(__file__).resolve().parents[1] / "docs/export.md").read_text(encoding="utf-8")


@pytest.fixture(params=KINDS)
def codes(request):
    return request.param


@pytest.fixture(params=["F32", "F16", "BF16"])
def grid(request, codes):
    return grids.grid(codes, 32, request.param)


@pytest.fixture(params=TYPES)
def chosen(request):
    return TYPES[request.param]


@pytest.fixture
def x(rng):
    made = (rng.standard_t(5, (16, 256)) * 0.02).astype(np.float32)
    made[5] = 0
    made[6, :40] *= 100
    return made


@pytest.mark.parametrize("group", [*grids.GROUP_SIZES, 96])
def test_its_name_and_sizes(codes, group):
    made = grids.grid(codes, group, "BF16")
    assert made is grids.kind(f"{codes}-G{group}-BF16") and grids.is_grid(made.name)
    assert 1 <= made.bits <= 8 and 2 <= made.levels <= 1 << made.bits
    assert (made.block_size, made.scale_bytes) == (group, 2)
    assert made.row_bytes(3 * group) == 3 * (group * made.bits // 8 + 2 + made.extra)
    with pytest.raises(UsageError, match=made.name):
        made.row_bytes(group + 1)


def test_pack_inverts_unpack_and_quantize_is_pack_of_encode_of_fit(grid, x):
    blocks = grid.quantize(x)
    params, codes = grid.unpack(blocks)
    assert codes.shape == x.shape and codes.dtype == np.uint8 and codes.max() < grid.levels
    np.testing.assert_array_equal(grid.pack(params, codes), blocks)
    fitted = grid.fit(x)
    np.testing.assert_array_equal(grid.pack(fitted, grid.encode(x, fitted)), blocks)
    assert fitted["d"].dtype == np.float32 and fitted["d"].shape == (16, 256 // grid.group)


def test_codes_stand_for_the_values_of_its_grid(grid, x):
    params, codes = grid.unpack(grid.quantize(x))
    made = grid.grid(params)
    np.testing.assert_array_equal(made.values(codes), grid.decode(params, codes))
    assert made.levels == grid.levels
    first = np.arange(min(grid.levels, grid.group), dtype=np.uint8)
    steps = np.diff(made.values(np.resize(first, x.shape))[0, : len(first)])
    assert (np.sign(steps) == np.sign(steps[0])).all() and steps[0], "neighbours are neighbours"


def test_encode_takes_the_nearest_value(grid, x):
    """A tie within float32 may fall either way."""
    params = {n: p for n, p in grid.fit(x).items() if n != "codes"}
    chosen = np.abs(grid.decode(params, grid.encode(x, params)).astype(np.float64) - x)
    made = grid.grid(params)
    every = np.stack([made.values(np.full(x.shape, c, np.uint8)) for c in range(grid.levels)])
    best = np.abs(every.astype(np.float64) - x).min(0)
    np.testing.assert_allclose(chosen, best, rtol=1e-5, atol=1e-6 * np.abs(x).max())


def test_scales_are_those_that_are_stored(grid, x):
    d = grid.fit(x)["d"]
    np.testing.assert_array_equal(grid.rounded_scales(d), d)


def test_zero_is_a_value_where_it_says(grid, x):
    params, codes = grid.unpack(grid.quantize(x))
    zeros = grid.zeros(params)
    assert (zeros is None) == grid.SYMMETRIC
    if zeros is not None:
        assert zeros.dtype == np.uint8 and zeros.shape == params["d"].shape
        at = np.repeat(zeros, grid.group, axis=1)
        assert (grid.decode(params, at) == 0).all()
    assert (grid.decode(params, codes)[5] == 0).all()


def test_fit_works_on_slices(grid, x):
    part = grid.fit(x[2:9, : 2 * grid.group])
    np.testing.assert_array_equal(part["d"], grid.fit(x)["d"][2:9, :2])


def test_importance_matters_where_it_says(grid, x, rng):
    weights = rng.lognormal(0, 2, 256).astype(np.float32)
    same = np.array_equal(grid.quantize(x), grid.quantize(x, weights))
    assert same != grid.heeds_importance


def test_blocks_of_ggml_that_it_names_hold_its_values(codes, x):
    for (name, group), block in KINDS[codes].BLOCKS.items():
        if name != codes:
            continue
        made, kind = grids.grid(codes, group, "F16"), quants.get(block)
        assert made.same_blocks == block
        blocks = kind.quantize(x)
        params, own = kind.unpack(blocks)
        packed = made.pack({"d": params["d"].astype(np.float32)}, own)
        np.testing.assert_array_equal(made.dequantize(packed), kind.dequantize(blocks))


def weight_of(chosen, rows, n, rng):
    grid = grids.grid(chosen.codes, 32 if chosen.grouped else n, chosen.dtype or "BF16")
    x = (rng.standard_t(5, (rows, n)) * 0.02).astype(np.float32)
    params, codes = grid.unpack(grid.quantize(x))
    step = 0.5 if chosen.static else None
    return grid, Weight(grid, codes, params["d"], grid.zeros(params), step)


@pytest.mark.parametrize(("rows", "n"), [(16, 256), (8, 64), (3, 96), (5, 32), (24, 160)])
def test_a_layout_writes_the_tensors_that_it_declares(chosen, rows, n, rng):
    if chosen.layout.problem(rows, n):
        assert (rows, n) != (16, 256), "the usual shapes have a place everywhere"
        return
    grid, weight = weight_of(chosen, rows, n, rng)
    shapes, made = chosen.layout.shapes(grid, rows, n, chosen.static), chosen.layout.tensors(weight)
    assert set(shapes) == set(made)
    for name, (dtype, shape) in shapes.items():
        stored = np.dtype(DTYPES[dtype])
        assert made[name].shape == shape and made[name].dtype.itemsize == stored.itemsize, name
        assert name.startswith(".")


def test_a_type_says_what_engines_and_ggq_need(chosen):
    assert chosen.name == chosen.name.upper() and grids.find(chosen.name.lower()) is chosen
    assert chosen.name not in {kind.name for kind in quants.all()}
    assert chosen.about and f"`{chosen.name}`" in DOC
    assert chosen.kind.CODES[chosen.codes] == chosen.bits
    assert chosen.dtype in (None, "F16", "BF16", "F32")
    told = chosen.layout.config(chosen, 32 if chosen.grouped else 0, ["lm_head", "model.x"])
    assert json.loads(json.dumps(told)) == told
    assert told["quant_method"] in formats.methods()
    assert "model.x" in json.dumps(told) or "model\\\\.x" in json.dumps(told)
    static = {"shapes": chosen.layout.shapes(*shape_of(chosen), chosen.static)}
    assert any("input" in name for name in static["shapes"]) == chosen.static


def shape_of(chosen):
    return grids.grid(chosen.codes, 32 if chosen.grouped else 256, chosen.dtype or "BF16"), 16, 256
