"""Sampling parameters as one table: defaults, ranges, GGUF keys and help of every parameter.

Command-line options, request validation and ``general.sampling.*`` all read this table; it knows
nothing about how a parameter acts.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

from ggq.errors import FormatError, GGQError, UsageError, printable

PREFIX = "general.sampling."
DEFAULT_SEQUENCE = "edskypmxt"
SAMPLER_LETTERS = {  # name in general.sampling.sequence -> letter
    "penalties": "e",
    "dry": "d",
    "top_n_sigma": "s",
    "top_k": "k",
    "typ_p": "y",
    "typical_p": "y",
    "top_p": "p",
    "min_p": "m",
    "xtc": "x",
    "temperature": "t",
}
_IGNORED_SAMPLERS = {"infill", "adaptive_p"}  # named by some files, never part of a chat's chain
_BIG = 2**31 - 1


def _number(default: Any, low: float, high: float, help: str, gguf: str | None = None) -> Any:
    limits = {"low": low, "high": high, "help": help, "gguf": gguf}
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen; the defaults are llama.cpp's (reference/sampling.md)."""

    temperature: float = _number(
        0.8, 0.0, 100.0, "how freely tokens are chosen, 0 is greedy", "temp"
    )
    top_k: int = _number(40, 0, _BIG, "keep the K likeliest tokens, 0 keeps all", "top_k")
    top_p: float = _number(0.95, 0.0, 1.0, "keep the likeliest whose sum is P, 1 is off", "top_p")
    min_p: float = _number(0.05, 0.0, 1.0, "keep p >= P * the highest p, 0 is off", "min_p")
    typical_p: float = _number(1.0, 0.0, 1.0, "locally typical sampling, 1 is off")
    top_n_sigma: float = _number(-1.0, -1.0, 1e6, "keep logits within N deviations of the highest")
    xtc_probability: float = _number(0.0, 0.0, 1.0, "chance to drop top choices", "xtc_probability")
    xtc_threshold: float = _number(0.1, 0.0, 1.0, "what counts as a top choice", "xtc_threshold")
    repeat_penalty: float = _number(
        1.0, 0.01, 100.0, "divide logits of used tokens, 1 is off", "penalty_repeat"
    )
    repeat_last_n: int = _number(
        64, -1, _BIG, "tokens that penalties look at, -1 is all", "penalty_last_n"
    )
    presence_penalty: float = _number(0.0, -100.0, 100.0, "lower logits of used tokens, 0 is off")
    frequency_penalty: float = _number(0.0, -100.0, 100.0, "the same for each use, 0 is off")
    dry_multiplier: float = _number(0.0, 0.0, 1000.0, "penalty on repeated sequences, 0 is off")
    dry_base: float = _number(1.75, 1.0, 1000.0, "growth per repeated token")
    dry_allowed_length: int = _number(2, 0, _BIG, "repeats of this length are free")
    dry_last_n: int = _number(64, -1, _BIG, "tokens that DRY looks at, -1 is all")
    dynatemp_range: float = _number(0.0, 0.0, 100.0, "temperature moves by this with entropy")
    dynatemp_exponent: float = _number(1.0, 0.0, 100.0, "shape of that movement")
    mirostat: int = _number(0, 0, 2, "0 off, 1 or 2: replaces top-k, top-p, ...", "mirostat")
    mirostat_tau: float = _number(5.0, 0.0, 100.0, "target surprise in bits", "mirostat_tau")
    mirostat_eta: float = _number(0.1, 0.0, 1.0, "learning rate", "mirostat_eta")
    seed: int | None = _number(None, 0, 2**64 - 1, "same seed, same answer")
    sequence: str = field(
        default=DEFAULT_SEQUENCE,
        metadata={"gguf": "sequence", "help": "order of the samplers, letters or names with ;"},
    )
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        """Check every value; raises UsageError naming the parameter."""
        for spec in dataclasses.fields(self):
            value = _checked(spec, getattr(self, spec.name), spec.name, UsageError)
            object.__setattr__(self, spec.name, value)

    @classmethod
    def resolve(
        cls, flags: Mapping[str, Any] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> "SamplingParams":
        """Combine what the user set, the file's ``general.sampling.*`` and the defaults.

        Flags that are None count as not set. Raises UsageError for a flag and FormatError for a
        key of the file that is unknown, of a wrong type or out of range.
        """
        chosen = choose(flags or {}, metadata or {})
        return cls(**{name: value for name, (value, source) in chosen.items() if source})

    def replace(self, **changes: Any) -> "SamplingParams":
        """Return a copy with some parameters changed."""
        return dataclasses.replace(self, **changes)


def choose(flags: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Return each parameter's value and where it came from: "set", a GGUF key, or "" (default)."""
    specs = {spec.name: spec for spec in dataclasses.fields(SamplingParams)}
    for name in flags:
        if name not in specs:
            raise UsageError(f"unknown sampling parameter {printable(name)!r}")
    defaults = SamplingParams()
    chosen = {}
    for name, spec in specs.items():
        key = PREFIX + spec.metadata["gguf"] if spec.metadata.get("gguf") else None
        if flags.get(name) is not None:
            chosen[name] = (_checked(spec, flags[name], name, UsageError), "set")
        elif key is not None and metadata.get(key) is not None:
            chosen[name] = (_checked(spec, metadata[key], key, FormatError), key)
        else:
            chosen[name] = (getattr(defaults, name), "")
    return chosen


def _checked(spec: dataclasses.Field[Any], value: Any, label: str, error: type[GGQError]) -> Any:
    """Return ``value`` in its parameter's type, or raise ``error`` naming ``label``."""
    if spec.name in _CHECKS:
        return _CHECKS[spec.name](value, label, error)
    if "low" not in spec.metadata or (value is None and spec.default is None):
        return value
    integral = spec.type in (int, "int", int | None, "int | None")
    low, high = spec.metadata["low"], spec.metadata["high"]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise error(f"{label}: expected a number, not {printable(repr(value))}")
    if not low <= value <= high or (integral and not float(value).is_integer()):
        kind = "a whole number" if integral else "a number"
        limits = (f"{int(x)}" if integral else f"{x:g}" for x in (low, high))
        raise error(f"{label}: {printable(value, 40)} is not {kind} from {' to '.join(limits)}")
    number = float(value)
    return int(number) if integral else number


def _biases(value: Any, label: str, error: type[GGQError]) -> Mapping[int, float]:
    if not isinstance(value, Mapping):
        raise error(f"{label}: expected token ids and numbers, not {printable(repr(value))}")
    for token, bias in value.items():
        known = isinstance(token, Integral) and isinstance(bias, Real) and int(token) >= 0
        if not known or math.isnan(bias) or bias == math.inf:
            shown = printable(f"{token!r}: {bias!r}")
            raise error(f"{label}: {shown} is not a token id and a number")
    return value


def _texts(value: Any, label: str, error: type[GGQError]) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise error(f"{label}: expected a list of texts, not {printable(repr(value))}")
    texts = tuple(value)
    if not all(isinstance(text, str) for text in texts):
        raise error(f"{label}: expected a list of texts, not {printable(repr(value))}")
    return texts


def _letters(value: Any, label: str, error: type[GGQError]) -> str:
    """Return a sampler sequence as letters; names are joined by ``;`` as in GGUF files."""
    if not isinstance(value, str):
        raise error(f"{label}: expected text, not {printable(repr(value))}")
    if set(value) <= set(DEFAULT_SEQUENCE):
        letters = value
    else:
        names = [name.strip().replace("-", "_") for name in value.split(";") if name.strip()]
        unknown = [n for n in names if n not in SAMPLER_LETTERS and n not in _IGNORED_SAMPLERS]
        if unknown:
            raise error(f"{label}: unknown sampler {printable(unknown[0])!r}")
        letters = "".join(SAMPLER_LETTERS[n] for n in names if n in SAMPLER_LETTERS)
    if len(set(letters)) != len(letters):
        raise error(f"{label}: a sampler is named twice in {printable(value)!r}")
    return letters


_CHECKS = {"sequence": _letters, "logit_bias": _biases, "dry_breakers": _texts}
