"""Mamba and Falcon Mamba: every layer a selective state space of single channels."""

from collections.abc import Mapping
from typing import Any

from ggq.models import ledger, mamba2
from ggq.models.base import Architecture
from ggq.models.decoder import EMBEDDING, HEAD, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import mamba
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.mamba import PLAIN_EPS, Mamba, step_rank
from ggq.models.table import Key, renamed

__all__ = ["ARCHITECTURE"]

FALCON = "falcon_mamba"


def _inner(config: Mapping[str, Any]) -> int:
    return int(config.get("intermediate_size") or config["expand"] * config["hidden_size"])


class MambaModel(Architecture):
    name = "mamba"
    hf_classes = ("MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM")
    hf_model_type = "mamba"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "use_bias": (False,),
        "rescale_prenorm_residual": (False,),  # transformers rescales what it loads, too
        "mixer_rms_eps": (PLAIN_EPS,),
    }
    reads = (
        *("time_step_min", "time_step_max", "time_step_floor", "time_step_scale"),
        *("time_step_init_scheme", "residual_in_fp32", "expand"),
        *("use_mambapy", "use_associative_scan", "use_falcon_mambapy"),
    )
    keys = (
        *mamba2.SIZE_KEYS,
        Key("{arch}.ssm.conv_kernel", ("conv_kernel",), "conv_kernel", required=True),
        Key("{arch}.ssm.inner_size", (), "ssm_inner", required=True, derive=_inner),
        Key("{arch}.ssm.state_size", ("state_size",), "ssm_state", required=True),
        Key(
            "{arch}.ssm.time_step_rank",
            (),
            "step_rank",
            required=True,
            derive=step_rank("time_step_rank"),
        ),
        Key(
            "{arch}.ssm.dt_b_c_rms",
            (),
            "plain_norms",
            "bool",
            default=False,
            derive=lambda config: config.get("model_type") == FALCON,
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "conv_kernel": 4,
        "expand": 2,
        "layer_norm_epsilon": 1e-5,
        "state_size": 16,
    }
    tensors = renamed((EMBEDDING, *HEAD, *MIXER_NORM, *mamba.TENSORS), mamba2.HF_NAMES)

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Mamba.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return mamba2.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        part = hp.find(Mamba)
        assert part is not None
        made: dict[str, Any] = {"intermediate_size": part.n_channels, "use_bias": False}
        made["time_step_rank"] = part.step_rank
        if part.plain_norms:
            made |= {"architectures": ["FalconMambaForCausalLM"], "model_type": FALCON}
        return made


ARCHITECTURE = MambaModel()
