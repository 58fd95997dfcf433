"""Grids of serving engines: what packs comes back, searches against float64, passes on them."""

import numpy as np
import pytest
from quantmaker import stream

from ggq.converters import grids
from ggq.converters.grids.kinds import e4m3
from ggq.converters.grids.search import CUTS, SHARES
from ggq.converters.grids.words import words
from ggq.converters.prepasses.solving.hessian import Hessian, layer_error
from ggq.converters.prepasses.solving.solver import Solver
from ggq.errors import UsageError

NAMES = ("INT4-G32-F16", "INT4-G128-BF16", "UINT4-G64-BF16", "INT8-G192-F32", "E4M3-G384-F16")


@pytest.fixture
def weights(rng):
    return (rng.standard_t(5, (24, 384)) * 0.02).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_hold_what_they_are_decoded_to(name, weights):
    kind = grids.kind(name)
    weights[3] = 0
    blocks = kind.quantize(weights)
    assert blocks.shape == (24, kind.row_bytes(384)) and kind.name == name
    params, codes = kind.unpack(blocks)
    assert codes.shape == weights.shape and codes.max() < kind.levels
    np.testing.assert_array_equal(kind.pack(params, codes), blocks)
    values = kind.dequantize(blocks)
    np.testing.assert_array_equal(values, kind.grid(params).values(codes))
    assert (values[3] == 0).all()
    again = kind.quantize(values)  # what lies on the grid stays near it
    step = np.abs(values).max() / 7 if kind.bits == 4 else np.abs(values).max() / 16
    assert np.abs(kind.dequantize(again) - values).max() <= step
    assert np.abs(values - weights).max() < 2 * step  # the largest may be cut
    for scale in params["d"].ravel():  # as the dtype holds them
        assert kind.rounded_scales(np.array([[scale]], np.float32))[0, 0] == scale


def plain_symmetric(group, weight, half, signed):
    """Return the scale of the search in float64, one candidate after the other."""
    below, above = max(0, -group.min()), max(0, group.max())
    most = max(below, above)
    best, chosen = 0.0, most / (half - 1)
    for cut in np.float32(CUTS[8 if half > 8 else 4] * half).astype(float):
        inverse = (-cut if signed and above >= below else cut) / most
        code = np.clip(np.rint(group * inverse), -half, half - 1)
        along, size = (weight * group * code).sum(), (weight * code * code).sum()
        if size > 0 and along * along > best * size:
            best, chosen = along * along / size, along / size
    return chosen


def plain_asymmetric(group, weight, top):
    low, high = max(0, -group.min()), max(0, group.max())
    best = -1.0
    for below in np.float32(SHARES).astype(float):
        for above in np.float32(SHARES).astype(float):
            d = (above * high + below * low) / top
            zero = min(np.rint(below * low / d), top)
            code = np.clip(np.rint(group / d) + zero, 0, top) - zero
            along, size = (weight * group * code).sum(), (weight * code * code).sum()
            if size > 0 and along * along / size > best:
                best, chosen = along * along / size, (along / size, zero)
    return chosen


def squares(group, weight, d, zero, low, high):
    """Return what a scale costs once codes are taken for it."""
    code = np.clip(np.rint(group / d) + zero, low, high) - zero
    return (weight * (code * d - group) ** 2).sum()


@pytest.mark.parametrize(
    "name", ["INT4-G32-F32", "INT4-G128-F32", "INT8-G24-F32", "UINT4-G128-F32"]
)
def test_the_searches_are_those_of_float64(name, weights, rng):
    """A tie within float32 may fall the other way: then both scales cost the same."""
    kind = grids.kind(name)
    importance = rng.lognormal(0, 1, 384).astype(np.float32)
    params = kind.fit(weights, importance)
    half, worse, equal = kind.levels // 2, [], 0
    for r, row in enumerate(weights[:6].astype(float)):
        for g, group in enumerate(row.reshape(-1, kind.group)):
            weight = importance.reshape(-1, kind.group)[g].astype(float)
            if name.startswith("U"):
                want, found = (
                    plain_asymmetric(group, weight, 15),
                    (params["d"][r, g], params["z"][r, g]),
                )
                limits = 0, 15
            else:
                signed = kind.bits == 4
                want, found = (
                    (plain_symmetric(group, weight, half, signed), 0),
                    (params["d"][r, g], 0),
                )
                limits = -half, half - 1
            equal += np.allclose(want, found, rtol=1e-5)
            ours, theirs = (squares(group, weight, *s, *limits) for s in (found, want))
            worse.append(ours / theirs)
    assert equal >= 0.95 * len(worse)
    assert max(worse) < 1.05


@pytest.mark.parametrize("name", ["INT4-G64-F32", "UINT4-G64-F32"])
def test_a_searched_scale_beats_the_largest_magnitude(name, weights):
    kind = grids.kind(name)
    peak = np.abs(weights).reshape(24, -1, 64).max(-1)
    params = {"d": peak * 2 / 15, "z": np.full(peak.shape, 8, np.uint8)}
    plain = kind.decode(params, kind.encode(weights, params))
    found = kind.dequantize(kind.quantize(weights))
    assert ((found - weights) ** 2).sum() < 0.9 * ((plain - weights) ** 2).sum()


def test_e4m3_is_torch_s():
    torch = pytest.importorskip("torch")
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(values[e4m3.BYTES], e4m3.TABLE)
    x = np.random.default_rng(1).normal(size=2000).astype(np.float32) * 30
    want = torch.from_numpy(x).to(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(e4m3.nearest(x), want)
    kind = grids.kind("E4M3-G2000-F32")
    params = {"d": np.ones((1, 1), np.float32)}
    np.testing.assert_array_equal(kind.decode(params, kind.encode(x[None], params))[0], want)


@pytest.mark.parametrize("name", NAMES)
def test_the_column_loop_works_on_them(name, rng):
    mix = rng.normal(size=(384, 384)) * rng.lognormal(0, 1, 384)
    x = rng.normal(size=(768, 384)) @ mix
    w = (rng.standard_t(5, (16, 384)) * 0.02).astype(np.float32)
    kind, h = grids.kind(name), Hessian(x.T @ x / len(x), "w")
    found = Solver(kind).solve(w, h)
    np.testing.assert_array_equal(found.values, kind.dequantize(found.blocks))
    d = h.damped(0.2)
    plain = kind.dequantize(kind.quantize(w, (np.diag(d) / np.diag(d).mean()).astype(np.float32)))
    assert layer_error(found.values, w, d).sum() < 0.9 * layer_error(plain, w, d).sum()


def test_activations_are_rounded_as_the_engine_does(rng):
    x = rng.normal(size=(5, 64)).astype(np.float32)
    x[2] *= 100
    token = grids.Inputs("token").rounded(x, 0)
    step = np.abs(x).max(1, keepdims=True) / 127
    np.testing.assert_allclose(token, np.rint(x / step) * step, atol=1e-5)
    tensor = grids.Inputs("tensor").rounded(x, float(np.abs(x).max()))
    assert np.abs(tensor - x)[0].max() > 20 * np.abs(token - x)[0].max()
    floats = grids.Inputs("token", 448.0, floats=True).rounded(x, 0)
    assert 0 < np.abs(floats - x).max() / np.abs(x).max() < 1 / 16
    assert grids.Inputs("none").rounded(x, 0) is x


@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_one_stream_of_bits(rng, bits):
    codes = rng.integers(0, 1 << bits, (3, 52)).astype(np.uint8)
    want = np.stack([stream(row, bits) for row in codes]).view(np.int32)
    np.testing.assert_array_equal(words(codes, bits), want)


def test_other_names_are_refused():
    for name in ("INT4-G0x-F16", "INT4-G32-Q8", "INT4"):
        with pytest.raises(UsageError, match="unknown grid"):
            grids.kind(name)
    assert grids.find("w4a16") is grids.types()["W4A16"] and grids.find("Q4_K") is None
