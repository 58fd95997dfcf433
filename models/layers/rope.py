"""Rotary position embedding: its settings, keys, stored factors, and the rotation of heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ggq.errors import ModelError
from ggq.models.layers.base import Values
from ggq.models.table import Key, Tensor

__all__ = [
    "ALL_FACTORS",
    "FACTORS",
    "KEYS",
    "LOCAL_KEY",
    "LONG_AND_SHORT",
    "STILL",
    "STORED",
    "YARN_AS_FACTORS",
    "Rope",
    "rotate",
    "scaled",
    "scaling_or_none",
    "share",
    "stored_magnitude",
    "yarn_as_factors",
]

CONFIG = "rope_parameters"
STORED = "rope_freqs.weight"
LONG_AND_SHORT = ("rope_factors_long.weight", "rope_factors_short.weight")
ALL_FACTORS = (STORED, *LONG_AND_SHORT)
STILL = 1e30  # a factor that slows a rotation to none, which a temperature still scales
YARN_AS_FACTORS = "yarn as factors"  # a rope_type of `Architecture.config` alone


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one layer's heads.

    ``kind``: "norm" rotates adjacent pairs, "neox" rotates element i with i + dims/2; ``dims`` is
    at most the head width. The angle of pair i at position p is p * base**(-2i/dims) / factors[i],
    divided by ``factor`` for "linear"; "yarn" mixes both angles by ``beta_fast`` and ``beta_slow``
    at ``original_context`` and multiplies the magnitude by 1 + 0.1 ln(factor) on top of
    ``attn_factor`` (arXiv 2309.00071; ggml's rope_yarn), divided by 1 + 0.1 ``log_multiplier``
    ln(factor); ``truncate`` widens the mixed pairs to whole ones. ``factors`` names a tensor of
    dims/2 divisors; ``long_and_short`` names two of which the context's length chooses (LongRoPE).
    ``temperature`` t multiplies queries by 1 + t ln(1 + floor((p + temperature_offset) /
    temperature_length)), or of the original context (Llama 4's; where every column rotates).
    ``sections``: how many pairs turn by the time, the row and the column of a picture's token,
    which are one position for text (M-RoPE, arXiv 2409.12191), one section after the other, or
    ``interleaved``, a pair of each in turn (Qwen3-VL).
    """

    kind: str
    dims: int
    base: float = 10000.0
    scaling: str = "none"
    factor: float = 1.0
    original_context: int = 0
    attn_factor: float = 1.0
    ext_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    factors: str | None = None
    log_multiplier: float = 0.0
    truncate: bool = True
    temperature: float = 0.0
    temperature_length: int = 0
    temperature_offset: int = 0
    long_and_short: tuple[str, str] | None = None
    sections: tuple[int, ...] = ()
    interleaved: bool = False

    @classmethod
    def of(cls, values: Values, kind: str, dims: int) -> Rope:
        """Return the rotation that a model's keys describe."""
        given = {f.name: values.get(f"rope_{f.name}") for f in fields(cls)}
        made = {k: v for k, v in given.items() if v is not None and k not in ("kind", "dims")}
        if made.get("factor", 1.0) in (0.0, 1.0):
            made.pop("factor", None)
        if made.get("scaling", "linear") == "linear":  # a factor without a type means linear
            made["scaling"] = "linear" if "factor" in made else "none"
        made = {"original_context": values.get("n_ctx_train") or 0, "factors": STORED, **made}
        if made["scaling"] == "longrope":
            made["long_and_short"] = LONG_AND_SHORT
        return cls(kind, dims, **made)

    @classmethod
    def local(cls, values: Values, kind: str, dims: int) -> Rope | None:
        """Return the rotation of layers with a window, None where their keys say none."""
        base = values.get("rope_local_base")
        return None if base is None else cls(kind, dims, base)

    def settings(self) -> dict[str, Any]:
        """Return the rotation as config.json's rope_parameters say it: plain, linear or yarn."""
        if self.scaling == "none":
            return {"rope_type": "default", "rope_theta": self.base}
        made = {"rope_type": self.scaling, "rope_theta": self.base, "factor": self.factor}
        if self.scaling == "yarn":
            made["original_max_position_embeddings"] = self.original_context
            made |= {"beta_fast": self.beta_fast, "beta_slow": self.beta_slow}
            if self.attn_factor != 1:
                made["attention_factor"] = self.magnitude
        return made

    @property
    def is_still(self) -> bool:
        """Whether it turns nothing, and only its temperature is of use."""
        return self.factor >= STILL

    @property
    def magnitude(self) -> float:
        """The factor on cosines and sines: ``attn_factor``, and YaRN's 1 + 0.1 ln(factor)."""
        if self.scaling != "yarn" or self.ext_factor == 0 or self.factor <= 1:
            return self.attn_factor
        growth = 0.1 * math.log(self.factor)
        return self.attn_factor * (1.0 + growth) / (1.0 + self.log_multiplier * growth)

    @property
    def axes(self) -> list[int]:
        """What each pair turns by where a token has several positions: 0 time, 1 row, 2 column."""
        n, ends = self.dims // 2, [sum(self.sections[: i + 1]) for i in range(3)]
        if not self.interleaved:  # pairs beyond the sections begin with the first again
            period = max(ends[2], 1)
            return [sum(i % period >= end for end in ends[:2]) for i in range(n)]
        return [i % 3 if i < 3 * self.sections[i % 3] else 0 for i in range(n)]

    def for_context(self, n_ctx: int) -> Rope:
        """Return the rotation as it is in a context of ``n_ctx`` tokens."""
        if self.long_and_short is None:
            return self
        return replace(self, factors=self.long_and_short[n_ctx <= self.original_context])

    def problem(self, width: int) -> str | None:
        """Say why this does not rotate heads of ``width`` columns, if so."""
        if self.dims > width or self.dims % 2 or self.base <= 0 or self.factor <= 0:
            what = f"{self.dims} rotary dimensions, base {self.base}, factor {self.factor}"
            return f"{what} do not fit heads of {width}"
        if self.sections and not (len(self.sections) >= 3 and sum(self.sections[:3]) > 0):
            return f"rope sections {list(self.sections)}: expected time, height and width"
        if self.temperature and not (self.temperature_length or self.original_context):
            return "an attention temperature without an original context length"
        return None


def rotate(ops: Any, x: Any, n_head: int, rope: Rope | None) -> Any:
    """Return ``x`` with its heads rotated, by stored factors where the file holds them."""
    if rope is None:
        return x
    missing = rope.factors is not None and not ops.has(rope.factors)
    return ops.rope(x, n_head, replace(rope, factors=None) if missing else rope)


def _scaling(config: Mapping[str, Any]) -> str | None:
    """Return the scaling type as GGUF names it, None for plain rope and for stored factors."""
    rope = config[CONFIG]
    scaling = rope.get("rope_type")
    if scaling in ("linear", "yarn"):
        return scaling if yarn_factor(config) is not None else None
    return scaling if scaling == "longrope" else None


def scaling_or_none(config: Mapping[str, Any]) -> str:
    """Return the scaling type of files that always say one."""
    return _scaling(config) or "none"


def yarn_factor(config: Mapping[str, Any]) -> float | None:
    """Return the factor of a scaling; YaRN without one spans the contexts, as in transformers."""
    rope = config[CONFIG]
    given, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    spans = ("yarn", YARN_AS_FACTORS, "longrope")
    if given is None and rope.get("rope_type") in spans and original:
        given = (config.get("max_position_embeddings") or original) / original
    return float(given) if given is not None else None


def yarn_as_factors(rope: dict[str, Any], truncates: bool) -> None:
    """Let YaRN that rounds its mixed pairs otherwise than files of a name say be stored factors."""
    rounds = bool(rope.get("truncate", True))
    if rope.get("rope_type") == "yarn" and rounds != truncates:
        rope["rope_type"] = YARN_AS_FACTORS


def _yarn_magnitude(rope: Mapping[str, Any], factor: float) -> tuple[float | None, float]:
    """Return the magnitude that YaRN's settings ask for, if any, and its own 1 + 0.1 ln(factor)."""
    wanted, log = rope.get("attention_factor"), 0.1 * math.log(factor)
    mscale, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    if wanted is None and mscale and all_dim:
        wanted = (1 + mscale * log) / (1 + all_dim * log)
    return wanted, 1 + log


def _magnitude(config: Mapping[str, Any]) -> float | None:
    """Return what multiplies a rotation's own magnitude; None where nothing does."""
    rope, factor = config[CONFIG], yarn_factor(config)
    if rope.get("rope_type") != "yarn":
        return stored_magnitude(config)
    if not factor or factor <= 1:
        return None
    wanted, own = _yarn_magnitude(rope, factor)
    return None if wanted is None else wanted / own


def stored_magnitude(config: Mapping[str, Any]) -> float | None:
    """Return the magnitude of a rotation by stored factors, None of another one.

    LongRoPE's is sqrt(1 + ln(factor) / ln(original context)) (arXiv 2402.13753).
    """
    rope, factor = config[CONFIG], yarn_factor(config) or 1.0
    kind, wanted = rope.get("rope_type"), rope.get("attention_factor")
    if kind == YARN_AS_FACTORS and factor > 1:
        asked, own = _yarn_magnitude(rope, factor)
        return own if asked is None else asked
    if kind != "longrope":
        return None
    original = rope.get("original_max_position_embeddings") or 0
    if wanted is not None or factor <= 1:
        return float(wanted or 1.0)
    if original < 2:
        raise ModelError(f"config.json: original_max_position_embeddings is {original}")
    return math.sqrt(1 + math.log(factor) / math.log(original))


def scaled(name: str, *types: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return a derive function: the rope setting ``name``, only under the scaling ``types``."""
    return lambda config: config[CONFIG].get(name) if _scaling(config) in types else None


def sections(default: list[int]) -> Callable[[Mapping[str, Any]], list[int]]:
    """Return a derive function: the pairs of each position of images, one and the same in text."""
    return lambda config: (list(config[CONFIG].get("mrope_section") or default) + [0] * 4)[:4]


def share(default: float, width: Callable[[Mapping[str, Any]], int | None]) -> Any:
    """Return a derive function: the columns of a head that rotate, of ``width(config)`` ones."""

    def dims(config: Mapping[str, Any]) -> int | None:
        part, n = config[CONFIG].get("partial_rotary_factor", default), width(config)
        return int(n * part) if n else None

    return dims


def _yarn(name: str, attr: str | None, hf: str) -> Key:
    gguf = f"{{arch}}.rope.scaling.yarn_{name}"
    return Key(gguf, attr=attr, type="f32", derive=scaled(hf, "yarn"))


KEYS = (
    Key("{arch}.rope.scaling.type", (), "rope_scaling", "str", derive=_scaling),
    Key(
        "{arch}.rope.scaling.factor",
        (),
        "rope_factor",
        "f32",
        derive=lambda c: yarn_factor(c) if _scaling(c) in ("linear", "yarn") else None,
    ),
    Key("{arch}.rope.scale_linear", (), "rope_factor", "f32"),
    Key(
        "{arch}.rope.scaling.original_context_length",
        attr="rope_original_context",
        derive=scaled("original_max_position_embeddings", "yarn", "longrope"),
    ),
    Key("{arch}.rope.scaling.attn_factor", (), "rope_attn_factor", "f32", derive=_magnitude),
    _yarn("ext_factor", "rope_ext_factor", "extrapolation_factor"),
    _yarn("beta_fast", "rope_beta_fast", "beta_fast"),
    _yarn("beta_slow", "rope_beta_slow", "beta_slow"),
    Key("{arch}.rope.freq_base", (f"{CONFIG}.rope_theta",), "rope_base", "f32"),
)
LOCAL_KEY = Key("{arch}.rope.freq_base_swa", ("rope_local.rope_theta",), "rope_local_base", "f32")


def _stored(name: str) -> Tensor:
    kind = f"rope_{name.partition('.')[0].removeprefix('rope_')}"
    return Tensor(name, (), ("rope_half",), kind, role="rope", optional=True, f32=True)


FACTORS = tuple(_stored(name) for name in ALL_FACTORS)  # of every architecture
