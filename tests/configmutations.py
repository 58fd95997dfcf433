"""Every setting of a transformers config class set to another legal value, one at a time.

What transformers computes then is the reference; nothing is known here of what ggq supports.
"""

import copy
import json

import numpy as np

# Values to try for settings that are null, or whose other values a type does not tell.
OTHERS = {
    "hidden_act": ["relu", "gelu", "gelu_pytorch_tanh", "silu"],
    "activation_function": ["relu", "gelu", "gelu_new", "silu"],
    "hidden_activation": ["relu", "gelu", "silu", "gelu_pytorch_tanh"],
    "sliding_window": [8, 48],
    "layer_types": ["swap"],
    "mlp_layer_types": ["swap"],
    "rope_parameters": ["rope"],
    "attn_logit_softcapping": [2.0],
    "final_logit_softcapping": [2.0],
    "no_rope_layers": [[0, 1] * 20],
    "topk_method": ["group_limited_greedy", "greedy"],
    "scoring_func": ["sigmoid", "softmax"],
    "position_embedding_type": ["rope", "nope"],
    "use_bidirectional_attention": [True, "all", "vision"],
    "q_lora_rank": [],
    "attention_chunk_size": [16],
    "mamba_chunk_size": [32],
    "shared_intermediate_size": [],
}
ROPES = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 32},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32},
    {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32,
        "attention_factor": 0.7,
    },
    {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32,
        "mscale": 0.7, "mscale_all_dim": 0.4,
    },
    {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32,
        "truncate": False, "beta_fast": 5.0, "beta_slow": 1.5,
    },
    {
        "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    },
    {
        "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.5, "high_freq_factor": 3.0,
    },
    {"rope_type": "longrope", "factor": 2.0, "original_max_position_embeddings": 64, "long": 1},
    {"rope_type": "longrope", "original_max_position_embeddings": 64, "long": 1},
    {
        "rope_type": "longrope", "factor": 2.0, "original_max_position_embeddings": 64, "long": 1,
        "attention_factor": 1.4,
    },
    {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"rope_type": "linear", "factor": 4.0, "partial_rotary_factor": 0.5},
    {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32,
        "partial_rotary_factor": 0.5,
    },
    {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32,
        "truncate": True, "beta_fast": 5.0, "beta_slow": 1.5, "mscale": 0.7, "mscale_all_dim": 0.7,
    },
    {"rope_type": "proportional", "partial_rotary_factor": 0.5},
    {"rope_type": "default", "rope_theta": 500.0},
    {"rope_type": "linear", "factor": 4.0, "mscale_all_dim": 0.5, "mscale": 0.5},
]  # fmt: skip
TOGETHER = [  # what only together has an effect; None: not in the file
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0, "layer_types": None},
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "layer_types": None},
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 99, "layer_types": None},
    {"max_window_layers": 0, "sliding_window": 8, "layer_types": None},
    {"max_window_layers": 99, "sliding_window": 8, "layer_types": None},
    {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    {"sliding_window_pattern": 2, "layer_types": None},
    {"no_rope_layer_interval": 2, "no_rope_layers": None},
    {"topk_method": "greedy", "n_group": 2, "topk_group": 1},
    {"partial_rotary_factor": 0.5, "rope_parameters": None},
]
ANYWHERE = ("sliding_window_pattern", "partial_rotary_factor")
LEFT_ALONE = {  # what a checkpoint cannot change without being another checkpoint, or another class
    "architectures", "model_type", "transformers_version", "dtype", "torch_dtype", "vocab_size",
    "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id",
    "text_config", "vision_config", "_attn_implementation", "id2label", "label2id",
    "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id",
    "quantization_config", "auto_map",
}  # fmt: skip


def text_part(config):
    """Return the settings of the language model in a config.json."""
    return config.get("text_config", config)


def with_text(config, settings):
    changed = copy.deepcopy(config)
    text = text_part(changed)
    for name, value in settings.items():
        text.pop(name, None)
        if value is not None:
            text[name] = value
    return changed


def mutations(config):
    """Yield (label, config.json) with one setting changed."""
    for name, value in text_part(config).items():
        if name in LEFT_ALONE:
            continue
        for other in others(name, value, text_part(config)):
            yield f"{name}={json.dumps(other)}"[:110], with_text(config, {name: other})
    for some in TOGETHER:
        if next(iter(some)) in {*text_part(config), *ANYWHERE}:
            yield f"together {json.dumps(some)}"[:150], with_text(config, some)


def others(name, value, config):
    """Return other legal values of a setting."""
    tried = OTHERS.get(name)
    if tried == ["swap"]:
        return [swapped(value)] if isinstance(value, list) and len(set(value)) > 1 else []
    if tried == ["rope"]:
        return list(ropes(value, config))
    if tried is not None:
        return [one for one in tried if one != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [max(1, value // 2), value + 1, value * 2]
    if isinstance(value, float):
        return [value * 1.5 + 0.1]
    if value is None:
        return [True, 2, 0.5]
    return []


def swapped(kinds):
    """Return a list of two kinds with each in the other's place."""
    first, second = list(dict.fromkeys(kinds))[:2]
    return [second if k == first else first if k == second else k for k in kinds]


def ropes(value, config):
    if not isinstance(value, dict):
        return
    nested = next((k for k, v in value.items() if isinstance(v, dict)), None)
    plain = value[nested] if nested else value
    width = config.get("qk_rope_head_dim") or config.get("head_dim")
    width = width or config["hidden_size"] // config["num_attention_heads"]
    for rope in ROPES:
        made = {k: plain[k] for k in ("rope_theta", "partial_rotary_factor", "mrope_section",
                                      "mrope_interleaved") if k in plain} | rope  # fmt: skip
        if made.pop("long", None):
            n = int(width * made.get("partial_rotary_factor", 1.0)) // 2
            made["long_factor"] = list(np.linspace(1, 6, n))
            made["short_factor"] = list(np.linspace(1, 2, n))
        yield {**value, nested: made} if nested else made
    for kind in value if nested else ():
        own = value[kind]
        yield {**value, kind: {**own, "rope_theta": 777.0}}
        yield {**value, kind: {**own, "partial_rotary_factor": 0.5}}
        yield {**value, kind: {**own, "rope_type": "linear", "factor": 3.0}}
        yield {**value, "other_attention": own}
    if not nested and len(set(config.get("layer_types") or ())) > 1:
        kinds = set(config["layer_types"])
        yield dict.fromkeys(kinds, value)
        yield {kind: {**plain, "rope_theta": 100.0 * (i + 2)} for i, kind in enumerate(kinds)}


def transformers_logits(folder, ids):
    """Return logits or hidden states as transformers has them, None where it refuses a folder."""
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(str(folder))
        cls = getattr(transformers, config.architectures[0])
        model, info = cls.from_pretrained(
            str(folder), dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        if any(info[k] for k in ("missing_keys", "mismatched_keys", "unexpected_keys")):
            return None
        model = model.eval()
        with torch.no_grad():
            told = model(torch.as_tensor(ids)[None])
            found = told.get("logits", told.get("last_hidden_state"))[0].numpy()
    except Exception:
        return None
    return found if np.isfinite(found).all() else None
