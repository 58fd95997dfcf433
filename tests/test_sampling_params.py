"""Sampling parameters: flag over file over default, ranges, one clear line for what is wrong."""

import math

import pytest

from ggq.errors import FormatError, UsageError
from ggq.runtime.sampling import SamplingParams, params


def test_resolve_order_flag_file_default():
    metadata = {
        "general.sampling.temp": 0.6,
        "general.sampling.top_k": 20,
        "general.sampling.penalty_repeat": 1.05,
        "general.sampling.sequence": "top_k;temperature;infill",
        "general.architecture": "llama",
    }
    p = SamplingParams.resolve({"top_k": 7, "temperature": None}, metadata)
    assert (p.temperature, p.top_k, p.repeat_penalty, p.top_p) == (0.6, 7, 1.05, 0.95)
    assert p.sequence == "kt"
    chosen = params.choose({"top_k": 7}, metadata)
    assert chosen["top_k"] == (7, "set")
    assert chosen["temperature"] == (0.6, "general.sampling.temp")
    assert chosen["min_p"] == (0.05, "")
    assert SamplingParams.resolve() == SamplingParams()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"temperature": -1}, "temperature: -1 is not a number from 0 to 100"),
        ({"top_p": float("nan")}, "top_p"),
        ({"top_k": 1.5}, "top_k: 1.5 is not a whole number"),
        ({"top_k": True}, "top_k: expected a number"),
        ({"min_p": "0.1"}, "min_p: expected a number"),
        ({"seed": -1}, "seed"),
        ({"sequence": "kq"}, "sequence: unknown sampler 'kq'"),
        ({"sequence": "kk"}, "named twice"),
        ({"nonsense": 1}, "unknown sampling parameter 'nonsense'"),
        ({"logit_bias": {3: math.nan}}, "logit_bias"),
    ],
)
def test_wrong_flags_are_usage_errors(flags, message):
    with pytest.raises(UsageError, match=message):
        SamplingParams.resolve(flags)


@pytest.mark.parametrize(
    ("key", "value"), [("temp", "hot"), ("top_p", 95.0), ("top_k", -3), ("sequence", 5)]
)
def test_wrong_keys_of_a_file_are_named(key, value):
    with pytest.raises(FormatError, match=f"general.sampling.{key}"):
        SamplingParams.resolve(metadata={f"general.sampling.{key}": value})
