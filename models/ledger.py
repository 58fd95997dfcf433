"""The ledger of config.json: every setting is used, known to be without effect, or refused.

A setting that a converted model would not follow is an error by its name and value; what has no
effect stands here with the reason, in an architecture's file where it is that one's. It knows no
architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import NoneType
from typing import Any

from ggq.errors import ModelError, printable
from ggq.models.layers.rope import YARN_AS_FACTORS
from ggq.models.table import Key, config_value

__all__ = [
    "GELU",
    "ROPE_TYPES",
    "SILU",
    "SPANNING",
    "WINDOWS",
    "WITHOUT_EFFECT",
    "check",
    "upper_layers",
    "windows",
]

SILU, GELU = ("silu", "swish"), ("gelu_pytorch_tanh", "gelu_new")  # names of one function each
ROPE = "rope_parameters"
OLDER = (  # spellings that `Architecture.config` makes `ROPE` of
    *(ROPE, "rope_scaling", "rope_theta", "partial_rotary_factor", "rope_local_base_freq"),
    "original_max_position_embeddings",
)

_REASONS = {
    "only training asks for it": (
        "attention_dropout embd_pdrop resid_pdrop hidden_dropout hidden_dropout_prob dropout "
        "attention_probs_dropout_prob classifier_dropout initializer_range initializer_factor "
        "initializer_cutoff_factor output_router_logits router_aux_loss_coef aux_loss_alpha "
        "seq_aux router_jitter_noise router_z_loss_coef pretraining_tp gradient_checkpointing "
        "aux_loss router_bias_update_rate z_loss_coefficient ep_size embedding_dropout "
        "mlp_dropout classifier_pooling fused_bias_fc fused_dropout_add_ln resid_dropout "
        "attn_pdrop init_method init_device init_std use_moe_aux_loss aux_loss_weight "
        "residual_dropout lora_rank peft_config"
    ),
    "it says how, not what is computed": (
        "use_cache cache_implementation torch_dtype dtype attn_implementation use_return_dict "
        "return_dict output_attentions output_hidden_states chunk_size_feed_forward "
        "torchscript use_bfloat16 tf_legacy_loss pruned_heads use_mamba_kernels "
        "mamba_chunk_size chunk_size use_kernels low_memory experts_implementation "
        "use_flash_attn fused_mlp use_xentropy use_rms_norm pad_vocab_size_multiple "
        "use_cuda_graph mlp_checkpoint_lvl last_layer_subset prenorm_eval "
        "num_nextn_predict_layers num_mtp_layers mtp_num_layers mtp_num_hidden_layers "
        "mtp_use_dedicated_embeddings rope_interleaved_cache mamba_ssm_dtype dense_seq_output "
        "use_flash_attention use_flash_attention_2 flash_attn _flash_attn_2_enabled use_sdpa "
        "return_dict_in_generate batch_size device_map max_batch_size max_seq_len output_past "
        "sentence_transformers is_causal"
    ),
    "it names the model and who made it": (
        "architectures model_type transformers_version auto_map name_or_path finetuning_task "
        "task_specific_params tokenizer_class license base_model quantization_config "
        "compression_config quantization unsloth_version unsloth_fixed "
        "sentence_transformers_pooling sentence_transformers_dense reranker_answers "
        "is_llama_config transformers.js_config "
        "max_sequence_length generation_config pipeline_tag training_args datasets language "
        "tags"
    ),
    "tokens are read from the tokenizer's files": (
        "bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id "
        "decoder_start_token_id bos_token eos_token pad_token image_token_id video_token_id "
        "vision_start_token_id vision_end_token_id image_token_index boi_token_index "
        "eoi_token_index vision_token_id audio_token_id boa_token_id eoa_token_id "
        "boi_token_id eoi_token_id"
    ),
    "it is for generation, which callers set": (
        "temperature top_k top_p typical_p num_beams num_beam_groups diversity_penalty "
        "do_sample max_length min_length max_new_tokens early_stopping length_penalty "
        "repetition_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids "
        "num_return_sequences forced_bos_token_id forced_eos_token_id remove_invalid_values "
        "suppress_tokens prefix begin_suppress_tokens exponential_decay_length_penalty "
        "output_scores return_dict_in_generate"
    ),
    "it is for heads that ggq does not convert": (
        "id2label label2id num_labels problem_type is_encoder_decoder is_decoder "
        "cross_attention add_cross_attention tie_encoder_decoder cross_attention_hidden_size "
        "summary_activation summary_first_dropout summary_proj_to_labels summary_type "
        "summary_use_proj"
    ),
    "other parts than the text model": (
        "vision_config audio_config text_config vision_soft_tokens_per_image "
        "mm_tokens_per_image spatial_merge_size vision_feature_layer projector_hidden_act "
        "multimodal_projector_bias tie_word_embeddings_vision deepstack_visual_indexes"
    ),
    "the tensors say it": (
        "tie_word_embeddings attention_bias qkv_bias mlp_bias use_bias attention_out_bias "
        "use_qk_norm qk_norm vocab_size vocab_size_per_layer_input use_expert_bias use_qkv_bias "
        "use_conv_bias mamba_conv_bias mamba_rms_norm"
    ),
}
WITHOUT_EFFECT = {name: why for why, names in _REASONS.items() for name in names.split()}

SPANNING = ("llama3", "yarn", "longrope")  # rotations with an original context
ROPE_TYPES = ("default", "dynamic", "linear", *SPANNING)
LISTS = ("short_factor", "long_factor")  # of longrope

# Settings of rotations, by the types that have them; "default" is plain rotation.
_ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "dynamic": ("factor", "original_max_position_embeddings"),  # plain up to the trained context
    "linear": ("factor", "original_max_position_embeddings"),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "extrapolation_factor",
        "truncate",
    ),
    "llama3": (
        "factor",
        "original_max_position_embeddings",
        "low_freq_factor",
        "high_freq_factor",
    ),
    "longrope": (
        "factor",
        "original_max_position_embeddings",
        "short_factor",
        "long_factor",
        "attention_factor",
        "short_mscale",
        "long_mscale",
    ),
    "proportional": (),
}
_ROPE_ALWAYS = ("rope_type", "type", "rope_theta", "finetuned")
_NUMBERS = (
    *("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor"),
    *("low_freq_factor", "high_freq_factor", "rope_theta"),
)
_WHOLE = "partial_rotary_factor"  # 1 where all columns of a head rotate


class _Watched(dict[str, Any]):
    """A config that notes which of its settings are looked at."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.seen.add(name)
        return super().get(name, default)


def _used(keys: Iterable[Key], config: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Return the settings that the keys of a file are made from, and those of its rotation."""
    rope = _Watched(config.get(ROPE) or {})
    watched = _Watched({**config, ROPE: rope})
    for key in keys:
        config_value(watched, key)
    return watched.seen | {path.partition(".")[0] for key in keys for path in key.hf}, rope.seen


def _off(value: Any) -> bool:
    """Tell whether a setting says nothing: null, false, 0 or empty."""
    return not value


WINDOWS = ("layer_types", "use_sliding_window", "sliding_window", "max_window_layers")


Slides = Callable[[Mapping[str, Any], int], bool]


def upper_layers(config: Mapping[str, Any], i: int, first: int = 28) -> bool:
    """Tell whether layer ``i`` has the window: those from max_window_layers on, as Qwen has it."""
    first = config.get("max_window_layers", first)
    if not isinstance(first, int):
        why = "expected a whole number"
        raise ModelError(f"config.json: max_window_layers is {printable(repr(first), 60)}, {why}")
    return i >= first


def windows(
    config: Mapping[str, Any],
    slides: Slides | None = upper_layers,
    switch: str | None = "use_sliding_window",
) -> Iterator[tuple[str, Any, str]]:
    """Yield the window of Qwen's and like configs where a layer has it: their files say none.

    ``slides``: which layers have it where layer_types does not say; None: all, whatever it says.
    ``switch``: the setting that it needs.
    """
    window, kinds = config.get("sliding_window"), config.get("layer_types")
    why = "windows of some layers are not converted"
    if isinstance(kinds, list) and "sliding_attention" in kinds:
        yield "layer_types", kinds, why
    elif window and (switch is None or config.get(switch)):
        layers = range(config.get("num_hidden_layers") or 0)
        if slides is None or (not kinds and any(slides(config, i) for i in layers)):
            yield "sliding_window", window, why


Refuse = Callable[[str, Any, str], ModelError]


def check(arch: Any, source: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse what ``arch``'s file would not follow; ``config``: ``source`` as the tables read it.

    ModelError names the setting and its value.
    """

    def refuse(name: str, value: Any, why: str) -> ModelError:
        return ModelError(f"config.json: {name} is {printable(repr(value), 60)}, {why}")

    for name, value, why in _wrong_rotations(config):
        raise refuse(name, value, why)
    text = source.get("text_config")
    settings = text if isinstance(text, Mapping) else source
    for name in (ROPE, "rope_scaling"):
        if isinstance(rope := settings.get(name), Mapping) and _is_nameless(rope):
            raise refuse(f"{name}.rope_type", None, "its other settings need a type")
        for kind, its, why in _unread_rotations(arch, rope or {}):
            raise refuse(f"{name}.{kind}", its, why)
    read, rope_read = _used(arch.keys, config)
    used = {*read, *OLDER, *arch.reads, *WITHOUT_EFFECT}
    for name, value in settings.items():
        if value is None or name.startswith("_"):
            continue
        if name in arch.fixed:
            if value not in arch.fixed[name]:
                raise refuse(name, value, _only(arch.name, arch.fixed[name]))
        elif name not in used and not _off(value):
            raise refuse(name, value, _unknown(arch.name))
    sees_both_ways = any(key.attr == "causal" for key in arch.keys)
    if settings.get("is_causal") is False and not sees_both_ways:
        raise refuse("is_causal", False, f"a token of {arch.name} sees those before it only")
    for name, value, why in arch.conflicts(config):
        raise refuse(name, value, why)
    for name, rope in _ropes(config):
        _check_rope(arch, name, rope, rope_read if name == ROPE else set(), refuse)


def _unknown(name: str) -> str:
    return f"which ggq does not know of {name}: where it has no effect, take it out of the file"


def _only(name: str, values: tuple[Any, ...]) -> str:
    listed = " or ".join(printable(str(v), 40) for v in values) or "nothing"
    return f"{name} is converted with {listed} only"


def _wrong_rotations(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield settings of rotations that no rotation can have, and two that contradict each other."""
    given = [(n, config.get(n)) for n in (ROPE, "rope_local", "rope_scaling")]
    for where, rope in given:
        if rope and not isinstance(rope, Mapping):
            yield where, rope, "expected an object"
            return
        for name, value in (rope or {}).items():
            values = value if name in LISTS and isinstance(value, list) else [value]
            held = value is not None and name in (*_NUMBERS, *LISTS)
            if held and not all(map(_is_positive, values)):
                yield f"{where}.{name}", value, "expected numbers above 0"
            if name in ("mscale", "mscale_all_dim") and not isinstance(
                value, (int, float, NoneType)
            ):
                yield f"{where}.{name}", value, "expected a number"
            if name == "truncate" and not isinstance(value, (bool, NoneType)):
                yield f"{where}.{name}", value, "expected true or false"
    used, older = config.get(ROPE) or {}, config.get("rope_scaling") or {}
    for name, value in older.items():
        both = name in _NUMBERS and value is not None and name in used
        if both and abs(used[name] - value) > 1e-6 * abs(value):
            yield f"rope_scaling.{name}", value, f"{ROPE} says {used[name]!r}"
    kinds = older.get("rope_type") or older.get("type"), used.get("rope_type")
    if kinds[0] and kinds[0] not in (kinds[1], "su") and kinds[1] != YARN_AS_FACTORS:
        yield "rope_scaling.rope_type", kinds[0], f"{ROPE} says {kinds[1]!r}"


def _unread_rotations(arch: Any, rope: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield the rotations of kinds of layers that ``arch`` would not read."""
    full = rope.get("full_attention") if isinstance(rope, Mapping) else None
    if not isinstance(full, Mapping):  # one for all layers
        return
    read = ["sliding_attention"] * any(p.startswith("rope_local.") for k in arch.keys for p in k.hf)
    for kind, its in rope.items():
        if its and its != full and kind not in ("full_attention", *read):
            yield (
                kind,
                its,
                f"only the rotation of {' and '.join(['full_attention', *read])} is read",
            )


def _is_nameless(rope: Mapping[str, Any]) -> bool:
    """Tell whether a rotation's type is null beside numbers that some type reads."""
    return (
        "rope_type" in rope
        and not (rope["rope_type"] or rope.get("type"))
        and any(rope.get(name) is not None for name in {*_NUMBERS, *LISTS} - {"rope_theta"})
    )


def _is_positive(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < value < float("inf")


def _ropes(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in (ROPE, "rope_local"):
        if isinstance(rope := config.get(name), Mapping):
            yield name, rope


def _check_rope(
    arch: Any, where: str, rope: Mapping[str, Any], read: set[str], refuse: Refuse
) -> None:
    """Refuse a rotation of a type, or with a setting, that the file cannot say."""
    kind = "yarn" if rope.get("rope_type") == YARN_AS_FACTORS else rope.get("rope_type")
    kind = kind or "default"
    allowed = arch.rope_types if where == ROPE else ("default",)
    if kind not in allowed:
        raise refuse(f"{where}.rope_type", kind, _only(arch.name, allowed))
    used = {*read, *arch.rope_reads}
    if rope.get(_WHOLE, 1) != 1 and (_WHOLE not in used or where != ROPE):
        why = f"the heads of {arch.name} rotate whole"
        raise refuse(f"{where}.{_WHOLE}", rope[_WHOLE], why)
    known = {*_ROPE_ALWAYS, _WHOLE, *_ROPE_TYPES[kind], *used}
    for name, value in rope.items():
        if name not in known and not _off(value):
            known_of = [k for k, names in _ROPE_TYPES.items() if name in names]
            if not known_of:  # what is another type's has no effect on this one
                raise refuse(f"{where}.{name}", value, _unknown(arch.name))
    if rope.get("rope_type") == "yarn" and bool(rope.get("truncate", True)) != arch.rope_truncates:
        why = "which transformers reads where all layers have one rotation only"
        raise refuse(f"{where}.truncate", rope.get("truncate", True), why)
    for name in LISTS if kind == "longrope" else ():
        if not rope.get(name):
            raise refuse(f"{where}.{name}", rope.get(name), "longrope needs a list of divisors")
