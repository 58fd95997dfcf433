"""Qwen3.5 and 3.6: gated DeltaNet layers, every fourth one full attention with gated output."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models.base import Delta, HParams, Key, Tensor
from ggq.models.blocks import Decoder
from ggq.models.hparams import MAX_LAYERS
from ggq.models.keys import DECODER_KEYS, changed, head_width
from ggq.models.tables import DECODER_TENSORS, POST_NORMS, QK_NORMS, plus_one
from ggq.models.tables import changed as changed_rows

__all__ = ["ARCHITECTURE", "QWEN35_KEYS", "Qwen35", "qwen35_rows"]

BLOCK, LAYER = "blk.{i}.", "model.layers.{i}."
SECTIONS = [11, 11, 10, 0]  # transformers' default; text has one position for all of them
PERIOD = 4


def _linear(
    name: str, hf: str, shape: tuple[str, ...], kind: str, role: str = "ssm", **more: Any
) -> Tensor:
    source = (f"{LAYER}linear_attn.{hf}",)
    return Tensor(f"{BLOCK}{name}", source, shape, kind, role, only="recurrent", **more)


NORM = {"input": "attn_in", "absorbs": f"{BLOCK}attn_norm.weight"}
DELTA_TENSORS = (
    _linear("attn_qkv.weight", "in_proj_qkv.weight", ("channels", "embd"), "tile_qkv", **NORM),
    _linear("attn_gate.weight", "in_proj_z.weight", ("delta_v", "embd"), "tile_values", **NORM),
    _linear("ssm_alpha.weight", "in_proj_a.weight", ("delta_heads", "embd"), "tile_heads", **NORM),
    _linear("ssm_beta.weight", "in_proj_b.weight", ("delta_heads", "embd"), "tile_heads", **NORM),
    _linear("ssm_a", "A_log", ("delta_heads",), "tile_decay", f32=True),
    _linear("ssm_dt.bias", "dt_bias", ("delta_heads",), "tile_heads", f32=True),
    _linear("ssm_conv1d.weight", "conv1d.weight", ("channels", "taps"), "tile_qkv", f32=True),
    _linear("ssm_norm.weight", "norm.weight", ("delta_head",), "copy", f32=True),
    _linear(
        "ssm_out.weight", "out_proj.weight", ("embd", "delta_v"), "tile_columns", input="delta_out"
    ),
)


def qwen35_rows(decoder: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return decoder rows with DeltaNet's, attention's marked and the norm before the experts."""
    norm = POST_NORMS[0]
    rows = changed_rows(decoder, *QK_NORMS, norm, without=("ffn_norm.weight",))
    before = f"{BLOCK}ffn_norm.weight"
    rows = tuple(replace(r, absorbs=norm.gguf) if r.absorbs == before else r for r in rows)
    attention = ("attn_q", "attn_k", "attn_v", "attn_output")
    rows = tuple(
        replace(r, only="attention")
        if r.gguf.startswith(tuple(BLOCK + n for n in attention))
        else r
        for r in rows
    )
    wide = {f"{BLOCK}attn_q.weight": ("2*q", "embd"), f"{BLOCK}attn_q.bias": ("2*q",)}
    rows = tuple(replace(r, shape=wide.get(r.gguf, r.shape)) for r in rows)
    return (*plus_one(rows), *DELTA_TENSORS)


def _rope_dims(config: Mapping[str, Any]) -> int | None:
    width = head_width(config)
    share = config["rope_parameters"].get("partial_rotary_factor", 0.25)
    return int(width * share) if width else None


def _sections(config: Mapping[str, Any]) -> list[int]:
    given = config["rope_parameters"].get("mrope_section") or SECTIONS
    return (list(given) + [0] * 4)[:4]


def _recurrent(config: Mapping[str, Any]) -> list[bool] | None:
    """Return which layers are DeltaNet, None where the interval says it."""
    kinds = config.get("layer_types")
    period = config.get("full_attention_interval") or PERIOD
    found = [kind == "linear_attention" for kind in kinds or ()]
    return None if found == [(i + 1) % period != 0 for i in range(len(found))] else found


def _inner(config: Mapping[str, Any]) -> int:
    return config["linear_value_head_dim"] * config["linear_num_value_heads"]


QWEN35_KEYS = changed(
    DECODER_KEYS,
    Key("{arch}.rope.dimension_count", (), "rope_dim", derive=_rope_dims),
    Key("{arch}.rope.dimension_sections", (), None, "u32s", derive=_sections),
    Key("{arch}.ssm.conv_kernel", ("linear_conv_kernel_dim",), "taps", required=True),
    Key("{arch}.ssm.state_size", ("linear_key_head_dim",), "delta_dim", required=True),
    Key("{arch}.ssm.group_count", ("linear_num_key_heads",), "delta_key_heads", required=True),
    Key("{arch}.ssm.time_step_rank", ("linear_num_value_heads",), "delta_heads", required=True),
    Key("{arch}.ssm.inner_size", (), "delta_inner", required=True, derive=_inner),
    Key("{arch}.full_attention_interval", ("full_attention_interval",), "period", default=PERIOD),
    Key("{arch}.attention.recurrent_layers", (), "recurrent_layers", "bools", derive=_recurrent),
    Key("{arch}.nextn_predict_layers", (), "n_nextn", default=0),
)


class Qwen35(Decoder):
    """What the dense and the mixed models share."""

    rope_kind = "neox"
    exports = False
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "full_attention_interval": PERIOD,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
    }

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.startswith(("mtp.", "model.mtp."))

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        heads, keys = values.pop("delta_heads"), values.pop("delta_key_heads")
        width, inner = values.pop("delta_dim"), values.pop("delta_inner")
        values["delta"] = Delta(heads, keys, width, inner // max(heads, 1))
        values["n_channels"] = 2 * keys * width + inner
        values["n_layer"] -= min(values.pop("n_nextn"), values["n_layer"])  # predict further tokens
        period = values.pop("period") or PERIOD
        if not isinstance(values.get("recurrent_layers"), tuple):
            n_layer = min(values["n_layer"], MAX_LAYERS)
            values["recurrent_layers"] = tuple((i + 1) % period != 0 for i in range(n_layer))
        return values | {"query_gate": True, "expert_normalize": True}


class Qwen35Dense(Qwen35):
    name = "qwen35"
    hf_classes = ("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration")
    hf_model_type = "qwen3_5_text"
    keys = QWEN35_KEYS
    tensors = qwen35_rows(DECODER_TENSORS)


ARCHITECTURE = Qwen35Dense()
