"""Hunyuan A13B: hunyuan-dense's attention, mixtures with an expert that sees every token."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import EMBEDDING, FF_NORM, HEAD, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.hunyuan_dense import HUNYUAN_KEYS, QK_NORMS, HunyuanDense
from ggq.models.layers import attention, experts
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts, shared_rows
from ggq.models.table import Key, changed, renamed

__all__ = ["ARCHITECTURE"]

LISTS = ("num_experts", "moe_topk", "moe_intermediate_size", "num_shared_expert")


def _first(name: str, default: Any = None) -> Callable[[Mapping[str, Any]], Any]:
    """Return a derive function: the setting ``name``, of the first layer where it is a list."""

    def value(config: Mapping[str, Any]) -> Any:
        found = config.get(name)
        found = found[0] if isinstance(found, list) and found else found
        return default if found is None else found

    return value


def _width(config: Mapping[str, Any]) -> Any:
    return _first("moe_intermediate_size")(config) or config.get("intermediate_size")


class HunyuanMoE(Architecture):
    name = "hunyuan-moe"
    hf_classes = ("HunYuanMoEV1ForCausalLM",)
    hf_model_type = "hunyuan_v1_moe"
    fixed = {k: v for k, v in HunyuanDense.fixed.items() if k != "num_experts"}  # noqa: RUF012
    reads = (*HunyuanDense.reads, *LISTS, "moe_layer_num_skipped", "use_mixed_mlp_moe")
    rope_types = HunyuanDense.rope_types
    rope_reads = HunyuanDense.rope_reads
    keys = changed(
        (*HUNYUAN_KEYS, *experts.KEYS),
        Key("{arch}.expert_count", (), "n_expert", required=True, derive=_first("num_experts")),
        Key(
            "{arch}.expert_used_count",
            (),
            "n_expert_used",
            required=True,
            derive=_first("moe_topk"),
        ),
        Key("{arch}.expert_feed_forward_length", (), "n_ff_expert", derive=_width),
        Key("{arch}.expert_shared_feed_forward_length", ("intermediate_size",), "n_ff_shared"),
        Key("{arch}.expert_shared_count", (), derive=_first("num_shared_expert", 1)),
    )
    config_defaults = HunyuanDense.config_defaults
    tensors = (
        *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *QK_NORMS, *FF_NORM),
        *renamed(experts.EXPERT_TENSORS, {"mlp.gate.weight": "mlp.gate.wg.weight"}),
        *shared_rows("mlp.shared_mlp"),
    )

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        for name in LISTS:
            value = config.get(name)
            if isinstance(value, list) and len(set(value)) > 1:
                yield name, value, "all layers have as many here"
        if _width(config) != config.get("intermediate_size"):
            yield "moe_intermediate_size", _width(config), "experts are as wide as the network"
        if _first("num_shared_expert", 1)(config) != 1:
            yield "num_shared_expert", config["num_shared_expert"], "one is shared here"

    def layer(self, values: Values, i: int) -> Layer:
        rope = rotation(values, "neox")
        mixer = Attention.of(values, i, rope, norms="head", rotates_first=True)
        return Layer(mixer, Experts.of(values, i, normalize=True))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        made = {"num_experts": hp.n_expert, "moe_topk": hp.n_expert_used}
        return made | {"max_position_embeddings": hp.n_ctx_train}


ARCHITECTURE = HunyuanMoE()
