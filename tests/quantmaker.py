"""Makes weights of pre-quantized checkpoints from known codes and scales, each by its definition.

Every writer returns the pieces as a checkpoint holds them and the values in float64. Bits are
packed with Python's integers, one row at a time: slow, plain and unlike the decoders.
"""

import json
import shutil
from dataclasses import dataclass

import numpy as np
from hfmaker import make_hf, shapes_of

from ggq.converters.safetensors import SafetensorsFile, write_header

NUMPY = {"I32": "<i4", "I64": "<i8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"}
NUMPY |= {"I8": "i1", "U32": "<u4", "F8_E4M3": "u1", "F8_E8M0": "u1"}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 1, "num_hidden_layers": 1}

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
CT = {"quant_method": "compressed-tensors", "quantization_status": "compressed"}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "GEMM"}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}


@dataclass
class Made:
    """Pieces by what follows the module's name: (dtype, array); values float64 (rows, columns)."""

    pieces: dict
    values: np.ndarray
    exact: frozenset = frozenset()  # block types that lose nothing
    kept: frozenset = frozenset()  # block types that keep the codes and round the scales


def stream(codes, bits, word=32):
    """Return a row of codes as one stream of bits in little-endian words."""
    total = sum(int(c) << (bits * i) for i, c in enumerate(codes))
    n = -(-len(codes) * bits // word)
    return np.frombuffer(total.to_bytes(n * word // 8, "little"), f"<u{word // 8}")


def halves(rng, shape, dtype="F16"):
    """Return positive scales as stored in ``dtype`` and as float64."""
    x = np.exp2(rng.uniform(-9, -4, shape))
    if dtype == "BF16":
        stored = (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return stored, (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    stored = x.astype(NUMPY[dtype])
    return stored, stored.astype(np.float64)


def gptq(rng, rows, cols, bits=4, group=32, sym=False, act_order=False, v2=False):
    """AutoGPTQ: inputs by outputs, both packed in int32; v1 has zeros less one."""
    group = cols if group < 0 else group
    groups = -(-cols // group)
    codes = rng.integers(0, 1 << bits, (rows, cols))
    zeros = rng.integers(0 if v2 else 1, 1 << bits, (rows, groups))
    zeros = np.full_like(zeros, 1 << (bits - 1)) if sym else zeros
    stored, scales = halves(rng, (rows, groups))
    index = np.arange(cols) // group
    index = rng.permutation(index) if act_order else index
    qzeros = zeros if v2 else zeros - 1
    pieces = {
        ".qweight": ("I32", np.stack([stream(r, bits) for r in codes], 1).view(np.int32)),
        ".qzeros": ("I32", np.stack([stream(z, bits) for z in qzeros.T]).view(np.int32)),
        ".scales": ("F16", stored.T),
        ".g_idx": ("I32", index.astype(np.int32)),
    }
    values = (codes - zeros[:, index]) * scales[:, index]
    ordered = not act_order and group % 32 == 0
    exact = {"Q8_0": bits < 8 or sym, "Q5_0": bits <= 4, "Q4_0": bits <= 4 and sym}
    return Made(pieces, values, frozenset(t for t, yes in exact.items() if yes and ordered))


def awq(rng, rows, cols, group=32):
    """AutoAWQ's gemm: eight outputs in a word, the n-th nibble holding output 0 2 4 6 1 3 5 7."""
    codes = rng.integers(0, 16, (rows, cols))
    zeros = rng.integers(0, 16, (rows, cols // group))
    stored, scales = halves(rng, zeros.shape)

    def packed(x):
        eights = x.T.reshape(x.shape[1], -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]]
        words = [[stream(e, 4)[0] for e in row] for row in eights]
        return "I32", np.array(words, np.uint32).view(np.int32)

    pieces = {".qweight": packed(codes), ".qzeros": packed(zeros), ".scales": ("F16", stored.T)}
    index = np.arange(cols) // group
    return Made(pieces, (codes - zeros[:, index]) * scales[:, index], frozenset({"Q8_0", "Q5_0"}))


def small_float(byte, exponent_bits, mantissa_bits, bias):
    """Return the value of a finite float of so many bits, by its definition."""
    mantissa = byte & ((1 << mantissa_bits) - 1)
    exponent = byte >> mantissa_bits & ((1 << exponent_bits) - 1)
    sign = -1.0 if byte >> (mantissa_bits + exponent_bits) else 1.0
    fraction = mantissa / 2**mantissa_bits
    if exponent == 0:
        return sign * fraction * 2.0 ** (1 - bias)
    return sign * (1 + fraction) * 2.0 ** (exponent - bias)


E4M3 = np.array([small_float(b, 4, 3, 7) for b in range(256)])
E4M3[[0x7F, 0xFF]] = np.nan
E2M1 = np.array([small_float(b, 2, 1, 1) for b in range(16)])


def e4m3(rng, shape, positive=False):
    """Return finite bytes and their values."""
    low = 8 if positive else 0
    byte = rng.integers(low, 0x7F, shape) + (0 if positive else rng.integers(0, 2, shape) * 128)
    return byte.astype(np.uint8), E4M3[byte]


def stretched(scales, block, shape):
    """Return scales per block as scales per weight."""
    wide = scales.repeat(block[0], 0).repeat(block[1], 1)
    return wide[: shape[0], : shape[1]]


def fp8(rng, rows, cols, block=(48, 48), name=".weight_scale_inv", dtype="F32", extra=()):
    """E4M3 with scales for the whole weight (block None), per row (1, cols), or per block."""
    byte, values = e4m3(rng, (rows, cols))
    block = block and (block[0] or rows, block[1] or cols)
    shape = tuple(-(-n // b) for n, b in zip((rows, cols), block, strict=True)) if block else ()
    stored, scales = halves(rng, shape, dtype)
    wide = stretched(scales, block, values.shape) if block else scales
    pieces = {".weight": ("F8_E4M3", byte), name: (dtype, stored)}
    pieces |= {e: ("F32", np.float32(1)) for e in extra}
    return Made(pieces, values * wide)


def packed_integers(rng, rows, cols, bits=4, group=32, sym=True, dtype="BF16", order=False):
    """compressed-tensors' pack-quantized: a row is one stream of bits, zeros along the rows."""
    group = cols if group < 0 else group
    codes = rng.integers(0, 1 << bits, (rows, cols))
    middle = 1 << (bits - 1)
    zeros = rng.integers(0, 1 << bits, (rows, cols // group))
    zeros = np.full_like(zeros, middle) if sym else zeros
    stored, scales = halves(rng, zeros.shape, dtype)
    index = np.arange(cols) // group
    index = rng.permutation(index) if order else index
    pieces = {
        ".weight_packed": ("I32", np.stack([stream(r, bits) for r in codes]).view(np.int32)),
        ".weight_scale": (dtype, stored),
        ".weight_shape": ("I64", np.array([rows, cols])),
        ".input_global_scale": ("F32", np.ones(1, np.float32)),
    }
    if order:
        pieces[".weight_g_idx"] = ("I32", index.astype(np.int32))
    if not sym:
        packed = np.stack([stream(z, bits) for z in zeros.T], 1).view(np.int32)
        pieces[".weight_zero_point"] = ("I32", packed)
    fits = not order and group % 32 == 0 and dtype != "F32"  # all are above 2**-9
    exact = {"Q8_0": bits < 8 or sym, "Q5_0": bits <= 4, "Q4_0": bits <= 4 and sym}
    exact = frozenset(t for t, yes in exact.items() if yes and fits)
    return Made(pieces, (codes - zeros[:, index]) * scales[:, index], exact)


def whole_bytes(rng, rows, cols, group=-1, sym=True, dtype="F16"):
    """compressed-tensors' int-quantized: int8, a scale per row or group."""
    group = cols if group < 0 else group
    codes = rng.integers(-128, 128, (rows, cols)).astype(np.int8)
    zeros = rng.integers(-128, 128, (rows, cols // group)).astype(np.int8)
    zeros = np.zeros_like(zeros) if sym else zeros
    stored, scales = halves(rng, zeros.shape, dtype)
    pieces = {".weight": ("I8", codes), ".weight_scale": (dtype, stored)}
    if not sym:
        pieces[".weight_zero_point"] = ("I8", zeros)
    values = (codes.astype(int) - zeros.repeat(group, 1)) * scales.repeat(group, 1)
    fits = sym and dtype == "F16"
    return Made(pieces, values, frozenset({"Q8_0"}) if fits else frozenset())


def pairs(codes):
    """Return codes of 4 bits two by two, the first in the low half."""
    return "U8", np.stack([stream(r, 4, 8) for r in codes])


def mxfp4(rng, rows, cols):
    """compressed-tensors' mxfp4-pack-quantized: E2M1 under a power of two per 32."""
    codes = rng.integers(0, 16, (rows, cols))
    powers = rng.integers(110, 125, (rows, cols // 32)).astype(np.uint8)
    pieces = {".weight_packed": pairs(codes), ".weight_scale": ("U8", powers)}
    values = E2M1[codes] * np.exp2(powers.astype(float) - 127).repeat(32, 1) + 0.0  # no -0
    return Made(pieces, values, frozenset({"MXFP4"}))


def nvfp4(rng, rows, cols):
    """compressed-tensors' nvfp4-pack-quantized: E2M1 under E4M3 per 16 over one float32."""
    codes = rng.integers(0, 16, (rows, cols))
    byte, scales = e4m3(rng, (rows, cols // 16), positive=True)
    shared = np.float32([2816.5])
    pieces = {
        ".weight_packed": pairs(codes),
        ".weight_scale": ("F8_E4M3", byte),
        ".weight_global_scale": ("F32", shared),
        ".input_global_scale": ("F32", np.ones(1, np.float32)),
    }
    scales = (scales.astype(np.float32) / shared).astype(float)  # the library divides in float32
    return Made(pieces, E2M1[codes] * scales.repeat(16, 1) + 0.0)


NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
NF4 += [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
NF4 += [0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941]
NF4 += [0.7229568362236023, 1.0]
FP4 = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3, -0.0, -0.0625, -8, -12, -4, -6, -2, -3]) / 12


def nibbles(rng, rows, cols, kind="nf4", block=64, nested=False):
    """bitsandbytes' 4 bits: pairs with the first in the high half, blocks that run across rows."""
    codes = rng.integers(0, 16, (rows, cols))
    values = np.float32(NF4 if kind == "nf4" else FP4)
    count = -(-rows * cols // block)
    state = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": [rows, cols]}
    pieces = {".weight": ("U8", pairs(codes[:, [i ^ 1 for i in range(cols)]])[1].reshape(-1, 1))}
    pieces[".weight.quant_map"] = ("F32", values)
    if nested:
        byte = rng.integers(0, 256, count).astype(np.uint8)
        table = np.linspace(-1, 1, 256).astype(np.float32)
        each = rng.uniform(0.01, 0.02, -(-count // 8)).astype(np.float32)
        absmax = (table[byte] * each.repeat(8)[:count] + np.float32(0.03)).astype(np.float32)
        pieces[".weight.absmax"] = ("U8", byte)
        pieces[".weight.nested_absmax"] = ("F32", each)
        pieces[".weight.nested_quant_map"] = ("F32", table)
        state |= {"nested_blocksize": 8, "nested_dtype": "float32", "nested_offset": 0.03}
    else:
        absmax = rng.uniform(0.01, 0.1, count).astype(np.float32)
        pieces[".weight.absmax"] = ("F32", absmax)
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    pieces[".weight.quant_state.bitsandbytes__" + kind] = ("U8", text)
    scale = absmax.astype(float).repeat(block)[: rows * cols].reshape(rows, cols)
    return Made(pieces, values.astype(float)[codes] * scale)


def llm_int8(rng, rows, cols):
    """LLM.int8: a row's largest magnitude stands for 127."""
    codes = rng.integers(-127, 128, (rows, cols)).astype(np.int8)
    largest = rng.uniform(0.1, 2, rows).astype(np.float32)
    scale = (largest / np.float32(127)).astype(float)
    pieces = {".weight": ("I8", codes), ".SCB": ("F32", largest)}
    pieces[".weight_format"] = ("U8", np.uint8(0))
    return Made(pieces, codes * scale[:, None], kept=frozenset({"Q8_0"}))


def mlx(rng, rows, cols, bits=4, group=64, mode="affine", dtype="BF16"):
    """mlx.core.quantize: a row is one stream of bits; affine or small floats."""
    if mode != "affine":
        return mlx_floats(rng, rows, cols, mode)
    codes = rng.integers(0, 1 << bits, (rows, cols))
    shape = rows, cols // group
    stored, scales = halves(rng, shape, dtype)
    shift, biases = halves(rng, shape, dtype)
    pieces = {
        ".weight": ("U32", np.stack([stream(r, bits) for r in codes])),
        ".scales": (dtype, stored),
        ".biases": (dtype, shift),
    }
    values = codes * scales.repeat(group, 1) + biases.repeat(group, 1)
    fits = dtype != "F32"  # all are above 2**-9
    exact = {"Q4_1": bits <= 4 and fits, "Q5_1": bits <= 5 and fits}
    return Made(pieces, values, frozenset(t for t, yes in exact.items() if yes))


def mlx_floats(rng, rows, cols, mode):
    """MLX's mxfp4, nvfp4 and mxfp8: words of codes, a byte of scale per group, no biases."""
    bits, group = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}[mode]
    codes, elements = rng.integers(0, 16, (rows, cols)), E2M1
    if bits == 8:
        codes, elements = e4m3(rng, (rows, cols))[0], E4M3
    byte, scales = e4m3(rng, (rows, cols // group), positive=True)
    if mode != "nvfp4":
        byte = rng.integers(110, 125, byte.shape).astype(np.uint8)
        scales = np.exp2(byte.astype(float) - 127)
    pieces = {".weight": ("U32", np.stack([stream(r, bits) for r in codes]))}
    pieces[".scales"] = ("U8", byte)
    values = elements[codes] * scales.repeat(group, 1) + 0.0  # no -0
    return Made(pieces, values, frozenset({"MXFP4"}) if mode == "mxfp4" else frozenset())


def save(folder, tensors):
    """Write {name: (dtype, array)} as model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    header = write_header({n: (d, np.shape(a)) for n, (d, a) in tensors.items()})
    with open(folder / "model.safetensors", "wb") as file:
        file.write(header)
        for dtype, array in tensors.values():
            file.write(np.asarray(array).astype(NUMPY[dtype], casting="no").tobytes())


def load(folder, tensors):
    """Write tensors and return them as the reader gives them."""
    save(folder, tensors)
    return SafetensorsFile(folder / "model.safetensors").tensors


def read_all(folder):
    """Return {name: (dtype, array)} of model.safetensors."""
    found = SafetensorsFile(folder / "model.safetensors").tensors
    return {n: (t.dtype, t.stored().reshape(t.shape).copy()) for n, t in found.items()}


def make_pair(folder, quantized, settings, seed=5, **config):
    """Write a tiny llama twice: projections by ``quantized(rng, rows, cols)``, and their values.

    Return (quantized folder, plain float32 folder, {HF name: Made}).
    """
    rng = np.random.default_rng(seed)
    sizes = SIZES | config
    plain, both = make_hf(folder / "plain", **sizes), folder / "quantized"
    full = json.loads((plain / "config.json").read_text())
    floats = read_all(plain)
    mixed, made = dict(floats), {}
    for name, shape in shapes_of(full):
        if "_proj.weight" in name:
            made[name] = quantized(rng, *shape)
            floats[name] = ("F32", made[name].values.astype(np.float32))
            del mixed[name]
            module = name.removesuffix(".weight")
            mixed |= {module + suffix: piece for suffix, piece in made[name].pieces.items()}
    save(plain, floats)
    shutil.copytree(plain, both)
    save(both, mixed)
    (both / "config.json").write_text(json.dumps(full | {"quantization_config": settings}))
    return both, plain, made


def make_experts(folder, quantized, settings):
    """Write a tiny qwen3moe twice, its experts by ``quantized`` and in float32; both folders."""
    from ggq import models

    rng = np.random.default_rng(3)
    plain, both = make_hf(folder / "plain", **SIZES), folder / "quantized"
    config = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "head_dim": 32}
    config |= SIZES | {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
    config |= {"vocab_size": 384, "rms_norm_eps": 1e-6, "norm_topk_prob": True}
    config |= {"max_position_embeddings": 512}
    arch = models.for_hf(config)
    hp = arch.hparams(config)
    floats, mixed = {}, {}
    for _, row, layer in arch.rows(hp):
        if row.optional and row.gguf != "output.weight":
            continue
        names, shape = arch.sources(row, hp, layer), arch.shape(row, hp, layer)
        for name in names:
            if len(names) > 1:
                made = quantized(rng, *shape[1:])
                floats[name] = ("F32", made.values.astype(np.float32))
                module = name.removesuffix(".weight")
                mixed |= {module + suffix: piece for suffix, piece in made.pieces.items()}
            else:
                floats[name] = ("F32", rng.standard_normal(shape).astype(np.float32))
                mixed[name] = floats[name]
    shutil.copytree(plain, both)
    save(plain, floats)
    save(both, mixed)
    (plain / "config.json").write_text(json.dumps(config))
    (both / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return both, plain


def make_gpt_oss(folder):
    """Write a tiny gpt-oss twice, its experts in MXFP4 and in float32; return both folders."""
    from ggq import models

    rng = np.random.default_rng(3)
    plain, both = make_hf(folder / "plain", **SIZES), folder / "quantized"
    config = {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "head_dim": 32}
    config |= SIZES | {"num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size": 96}
    config |= {"vocab_size": 384, "rms_norm_eps": 1e-5, "rope_theta": 150000.0}
    arch = models.for_hf(config)
    hp = arch.hparams(config)
    floats = {}
    for _, row, layer in arch.rows(hp):
        if not row.optional or row.gguf == "output.weight":
            (name,) = arch.sources(row, hp, layer)
            shape = arch.shape(row, hp, layer)
            x = rng.standard_normal(shape).astype(np.float32)
            x = x.repeat(2, 1) if "gate_up" in name else x  # both in turns
            floats.setdefault(name, ("F32", x))
    mixed = dict(floats)
    for name in [n for n in floats if n.endswith(("gate_up_proj", "down_proj"))]:
        n_expert, rows, cols = floats[name][1].shape
        made = mxfp4(rng, n_expert * rows, cols)
        blocks = made.pieces[".weight_packed"][1].reshape(n_expert, rows, cols // 32, 16)
        scales = made.pieces[".weight_scale"][1].reshape(n_expert, rows, cols // 32)
        del mixed[name]
        mixed |= {f"{name}_blocks": ("U8", blocks), f"{name}_scales": ("U8", scales)}
        values = made.values.reshape(n_expert, rows, cols).swapaxes(1, 2)
        floats[name] = ("F32", np.ascontiguousarray(values, np.float32))
    shutil.copytree(plain, both)
    for where, tensors in ((plain, floats), (both, mixed)):
        save(where, tensors)
        quantized = {"quantization_config": {"quant_method": "mxfp4"}} if where == both else {}
        (where / "config.json").write_text(json.dumps(config | quantized))
    return both, plain
