"""Tiny random models of transformers, one or more per architecture, each with what it is known for.

The data is small sizes at which windows, original contexts and routers matter; no tests here.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hfmaker import make_bpe

PEER = 4e-3  # llama.cpp looks activations up in f16 tables


@dataclass(frozen=True)
class Tiny:
    """A tiny model: its transformers class and config; ``peer``: what llama.cpp may differ by."""

    label: str
    arch: str
    cls: str
    config: dict[str, Any] = field(default_factory=dict)
    peer: float | None = PEER
    cls_config: str = ""
    suffix: str = "ForCausalLM"
    n_tokens: int = 90
    n_ctx: int = 256


BASE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 5.0],
    "partial_rotary_factor": 0.75,
}
PHI4 = {
    "rope_parameters": LONGROPE,
    "original_max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
WHOLE_YARN = {  # mixes 0 to 3.9999 pairs: llama.cpp rounds that, gpt-oss does not
    "rope_type": "yarn",
    "truncate": False,
    "rope_theta": 10768.0,
    "factor": 8.0,
    "original_max_position_embeddings": 64,
}
GPT_OSS = {
    "head_dim": 32,
    "num_hidden_layers": 3,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "sliding_window": 24,
    "rope_parameters": WHOLE_YARN,
}
GEMMA4 = {
    "head_dim": 32,
    "global_head_dim": 64,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "num_hidden_layers": 7,
    "sliding_window": 24,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 5.0,
    "tie_word_embeddings": True,
}
GEMMA4E = {
    "head_dim": 32,
    "global_head_dim": 64,
    "num_hidden_layers": 6,
    "layer_types": (["sliding_attention"] * 2 + ["full_attention"]) * 2,
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
    "sliding_window": 24,
    "hidden_size_per_layer_input": 64,  # llama.cpp misreads narrower tables
    "final_logit_softcapping": 5.0,
    "vocab_size_per_layer_input": 384,
    "tie_word_embeddings": True,
}
GEMMA4MOE = GEMMA4 | {
    "enable_moe_block": True,
    "num_experts": 6,
    "top_k_experts": 2,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
}
LFM2 = {
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "intermediate_size": 300,
    "block_multiple_of": 32,
    "tie_word_embeddings": True,
}
LFM2MOE = {
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "num_dense_layers": 1,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "tie_word_embeddings": True,
}
QWEN3VL = {
    "head_dim": 32,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [6, 5, 5],
    },
    "vision_config": {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0],
    },
}
QWEN3VLMOE = QWEN3VL | {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 96,
}
QWEN35 = {
    "head_dim": 32,
    "num_hidden_layers": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [3, 3, 2],
    },
}
QWEN35MOE = QWEN35 | {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 32,
}
LATENT = {
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "q_lora_rank": 48,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "moe_intermediate_size": 64,
}
DEEPSEEK3 = LATENT | {
    "n_group": 4,
    "topk_group": 2,
    "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
}
DEEPSEEK2 = LATENT | {
    "num_experts_per_tok": 2,  # of three, one token's third and fourth are nearly tied
    "topk_method": "greedy",
    "rope_parameters": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
}
GLM4_LITE = LATENT | {
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "n_group": 1,
    "topk_group": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
GRANITE_H = {
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "shared_intermediate_size": 96,
    "num_local_experts": 0,
    "attention_multiplier": 0.3,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}
GRANITE_H_MOE = GRANITE_H | {"num_local_experts": 6, "intermediate_size": 64}
STARCODER2 = {"sliding_window": 24, "use_bias": False, "tie_word_embeddings": True}
SHORT = {"original_max_position_embeddings": 256, "max_position_embeddings": 512}
OLMO3 = {
    "num_hidden_layers": 5,
    "sliding_window": 24,
    "rope_parameters": {
        "full_attention": YARN,
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
EXAONE4 = {
    "sliding_window": None,
    "layer_types": ["full_attention"] * 2,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}
EXAONE4_WINDOW = {"num_hidden_layers": 5, "sliding_window": 24}
COHERE = {"logit_scale": 0.25, "tie_word_embeddings": True}
QWEN2MOE = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 32,
}
GRANITEMOE = {
    "num_local_experts": 6,
    "attention_multiplier": 0.3,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}
GRANITEMOE_SHARED = GRANITEMOE | {"shared_intermediate_size": 32}
OLMOE = {"num_experts": 7, "num_experts_per_tok": 3, "num_key_value_heads": 4}
TINY = [
    Tiny("llama", "llama", "Llama"),
    Tiny("mistral", "llama", "Mistral", {"sliding_window": 24}, peer=None),  # it has no window here
    Tiny("qwen2", "qwen2", "Qwen2"),
    Tiny("qwen2 tied", "qwen2", "Qwen2", {"tie_word_embeddings": True}),
    Tiny("qwen3", "qwen3", "Qwen3", {"head_dim": 32}),
    Tiny("olmo2", "olmo2", "Olmo2"),
    Tiny("olmo3", "olmo2", "Olmo3", OLMO3),
    Tiny("seed_oss", "seed_oss", "SeedOss", {"head_dim": 32}),
    Tiny("exaone4", "exaone4", "Exaone4", EXAONE4),
    # llama.cpp knows the kind with a window by its number of layers
    Tiny("exaone4 window", "exaone4", "Exaone4", EXAONE4_WINDOW, peer=None),
    Tiny("ernie4_5", "ernie4_5", "Ernie4_5", {"head_dim": 32}),
    Tiny("command-r", "command-r", "Cohere", COHERE),
    Tiny("cohere2", "cohere2", "Cohere2", COHERE | {"sliding_window": 24, "num_hidden_layers": 5}),
    Tiny("gemma", "gemma", "Gemma", {"head_dim": 32, "tie_word_embeddings": True}),
    Tiny("qwen2moe", "qwen2moe", "Qwen2Moe", QWEN2MOE),
    Tiny("granitemoe", "granitemoe", "GraniteMoe", GRANITEMOE),
    Tiny("granitemoe shared", "granitemoe", "GraniteMoeShared", GRANITEMOE_SHARED),
    Tiny("arcee", "arcee", "Arcee"),
    Tiny("stablelm", "stablelm", "StableLm", {"use_qkv_bias": True}),
    Tiny("nemotron", "nemotron", "Nemotron"),
    Tiny("phi2", "phi2", "Phi"),
    Tiny("gptneox", "gptneox", "GPTNeoX", {"num_key_value_heads": None}),
    Tiny("olmoe", "olmoe", "Olmoe", OLMOE),
    Tiny("glm4", "glm4", "Glm4", {"head_dim": 32, "attention_bias": True}),
    Tiny("smollm3", "smollm3", "SmolLM3", {"num_hidden_layers": 5}),
    Tiny(
        "granite",
        "granite",
        "Granite",
        {
            "attention_multiplier": 0.3,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "logits_scaling": 4.0,
        },
    ),
    Tiny(
        "mistral3",
        "mistral3",
        "Ministral3",
        {
            "head_dim": 32,
            "rope_parameters": YARN
            | {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3},
        },
    ),
    Tiny(
        "gemma2",
        "gemma2",
        "Gemma2",
        {
            "head_dim": 32,
            "num_hidden_layers": 3,
            "sliding_window": 24,
            "query_pre_attn_scalar": 32,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
            "tie_word_embeddings": True,
        },
    ),
    Tiny(
        "gemma3",
        "gemma3",
        "Gemma3",
        {
            "head_dim": 32,
            "num_hidden_layers": 7,
            "sliding_window": 24,
            "query_pre_attn_scalar": 32,
            "tie_word_embeddings": True,
        },
        cls_config="Gemma3TextConfig",
    ),
    Tiny(
        "mixtral",
        "llama",
        "Mixtral",
        {"num_local_experts": 5, "num_experts_per_tok": 2, "head_dim": None},
    ),
    Tiny(
        "qwen3moe",
        "qwen3moe",
        "Qwen3Moe",
        {
            "head_dim": 32,
            "num_experts": 7,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 64,
            "norm_topk_prob": True,
        },
    ),
    Tiny("gpt-oss", "gpt-oss", "GptOss", GPT_OSS),
    Tiny("gemma4", "gemma4", "Gemma4", GEMMA4, 3 * PEER, "Gemma4TextConfig"),
    Tiny("gemma4 e", "gemma4", "Gemma4", GEMMA4E, 3 * PEER, "Gemma4TextConfig"),
    Tiny("gemma4 moe", "gemma4", "Gemma4", GEMMA4MOE, cls_config="Gemma4TextConfig"),
    Tiny("qwen3vl", "qwen3vl", "Qwen3VL", QWEN3VL, suffix="ForConditionalGeneration"),
    Tiny("qwen3vlmoe", "qwen3vlmoe", "Qwen3VLMoe", QWEN3VLMOE, suffix="ForConditionalGeneration"),
    Tiny("granite h", "granitehybrid", "GraniteMoeHybrid", GRANITE_H),
    Tiny("granite h moe", "granitehybrid", "GraniteMoeHybrid", GRANITE_H_MOE),
    Tiny("lfm2moe", "lfm2moe", "Lfm2Moe", LFM2MOE),
    Tiny("lfm2", "lfm2", "Lfm2", LFM2),
    Tiny("qwen35", "qwen35", "Qwen3_5", QWEN35, cls_config="Qwen3_5TextConfig"),
    Tiny("qwen35moe", "qwen35moe", "Qwen3_5Moe", QWEN35MOE, cls_config="Qwen3_5MoeTextConfig"),
    Tiny("deepseek2", "deepseek2", "DeepseekV2", DEEPSEEK2),
    # llama.cpp knows this kind by its number of layers
    Tiny("deepseek2 lite", "deepseek2", "DeepseekV2", DEEPSEEK2 | {"q_lora_rank": None}, peer=None),
    Tiny("deepseek3", "deepseek2", "DeepseekV3", DEEPSEEK3),
    Tiny("glm4 lite", "deepseek2", "Glm4MoeLite", GLM4_LITE),
    Tiny("starcoder2", "starcoder2", "Starcoder2", {"rope_parameters": YARN}),
    # llama.cpp has no window here and needs biases
    Tiny("starcoder2 window", "starcoder2", "Starcoder2", STARCODER2, peer=None),
    Tiny("phi3", "phi3", "Phi3", {"sliding_window": 40}, peer=None),  # llama.cpp has no window
    Tiny("phi4", "phi3", "Phi3", PHI4),
    Tiny("phi4 short", "phi3", "Phi3", PHI4 | SHORT, n_tokens=40),
]


def make_tiny(tiny, folder):
    """Write a tiny model and a tokenizer as an HF folder; return token ids and their logits."""
    import torch
    import transformers

    torch.manual_seed(7)
    n_vocab = make_bpe(folder)
    settings = {**BASE, **tiny.config, "vocab_size": n_vocab}
    if "vision_config" in settings:
        vision = settings.pop("vision_config")
        settings = {"vision_config": vision, "text_config": settings, "tie_word_embeddings": False}
    config = getattr(transformers, tiny.cls_config or f"{tiny.cls}Config")(**settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, tiny.cls + tiny.suffix)(config).float().eval()
    ids = np.random.default_rng(3).integers(3, n_vocab, tiny.n_tokens)
    with torch.no_grad():
        spread(torch, model)
        want = model(torch.as_tensor(ids)[None]).logits[0].numpy()
    model.save_pretrained(folder)
    return ids, want


def spread(torch, model):
    """Give weights a size at which scores matter, and biases and norms values of their own."""
    for name, p in model.named_parameters():
        if p.dim() == 1:
            p.add_(0.3 * torch.randn_like(p))
        elif "embed" in name:
            p.copy_(0.4 * torch.randn_like(p))
        else:
            p.copy_(1.5 * torch.randn_like(p) / p.shape[-1] ** 0.5)
