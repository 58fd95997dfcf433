"""Tiny random models with eyes, and what transformers sees with them; no tests here."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hfmaker import make_bpe
from tiny.base import BASE, renamed
from tinymodels import remake, spread

MEAN, STD = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]


def flat(pixels):
    """Return what most families take: one picture as it is."""
    return {"pixel_values": pixels[None]}


def in_rows(pixels, patch, order="cyx"):
    """Return the patches of a picture, row by row, (patches, 3 patch patch)."""
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    cut = pixels.reshape(3, rows, patch, columns, patch)
    axes = {"c": 0, "y": 2, "x": 4}
    return cut.transpose(1, 3, *(axes[a] for a in order)).reshape(rows * columns, -1)


def qwen(pixels, patch=8):
    """Return patches in blocks of 2 x 2, each twice (a picture is a film of two frames)."""
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    cut = pixels.reshape(3, rows // 2, 2, patch, columns // 2, 2, patch)
    cut = cut.transpose(1, 4, 2, 5, 0, 3, 6)[..., None, :, :].repeat(2, axis=-3)
    return {
        "pixel_values": cut.reshape(rows * columns, -1),
        "image_grid_thw": np.array([[1, rows, columns]]),
    }


def sized(pixels):
    return {**flat(pixels), "image_sizes": np.array([pixels.shape[1:]])}


def naflex(pixels, patch=16):
    """Return patches with their shape, as LFM2-VL takes them."""
    shape = np.array([[n // patch for n in pixels.shape[1:]]])
    rows = in_rows(pixels, patch, "yxc")[None]
    mask = np.ones(rows.shape[:2], np.int64)
    return {"pixel_values": rows, "spatial_shapes": shape, "pixel_attention_mask": mask}


def placed(pixels, patch=8):
    """Return patches with their places, as Gemma 4 takes them; its tower centres the values."""
    rows, columns = (n // patch for n in pixels.shape[1:])
    y, x = np.divmod(np.arange(rows * columns), columns)
    return {
        "pixel_values": in_rows(pixels, patch, "yxc")[None],
        "image_position_ids": np.stack([x, y], -1)[None],
    }


@dataclass(frozen=True)
class TinyEyes:
    """A tiny model: ``projector`` as files call it, class and config of transformers.

    ``size``: height and width of the picture; ``inputs``: what the model is given of it.
    ``peer``: how far llama.cpp's rows may be from ours, of the range; None: it does otherwise, and
    ``why``. ``converts``: whether llama.cpp's converter knows the folder. ``processor``: settings
    of preprocessor_config.json.
    """

    label: str
    projector: str
    cls: str
    vision: dict[str, Any]
    text: dict[str, Any] = field(default_factory=dict)
    top: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (64, 48)
    inputs: Callable[[np.ndarray], dict[str, Any]] = flat
    peer: float | None = 5e-3
    why: str = ""
    converts: bool = True
    processor: dict[str, Any] = field(default_factory=dict)
    remade: Callable[[dict[str, Any], dict[str, Any]], tuple[dict, dict]] | None = None


def siglip_inside(tensors, config):
    """Return the folder as it is published: SigLIP's tower lies one name deeper, heads are tied."""
    names = {"vision_tower.": "vision_tower.vision_model."}
    return renamed({n: x for n, x in tensors.items() if "lm_head" not in n}, names), config


def tied(tensors, config):
    """Return the folder without a head of its own."""
    return {n: x for n, x in tensors.items() if "lm_head" not in n}, config


VIT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
SIGLIP = {**VIT, "patch_size": 8, "image_size": 64, "hidden_act": "gelu_pytorch_tanh"}
QWEN = {
    "depth": 4,
    "num_heads": 4,
    "hidden_size": 80,  # heads of 20 columns
    "intermediate_size": 96,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "out_hidden_size": 64,
}
QWEN_TEXT = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}


def original_internvl(tensors, config):
    """Return the folder as OpenGVLab publishes it, which is what llama.cpp converts."""
    tensors = renamed(
        tensors,
        {
            "vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
            "vision_tower.embeddings.patch_embeddings.projection": (
                "vision_model.embeddings.patch_embedding"
            ),
            "vision_tower.embeddings.position_embeddings": (
                "vision_model.embeddings.position_embedding"
            ),
            "vision_tower.encoder.layer.": "vision_model.encoder.layers.",
            "attention.projection_layer": "attn.proj",
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
            "lambda_1": "ls1",
            "lambda_2": "ls2",
            "multi_modal_projector.layer_norm": "mlp1.0",
            "multi_modal_projector.linear_1": "mlp1.1",
            "multi_modal_projector.linear_2": "mlp1.3",
            "attention.q_proj": "attn.q",
            "attention.k_proj": "attn.k",
            "attention.v_proj": "attn.v",
        },
    )
    made = {}
    for name, x in tensors.items():
        if ".attn.q." in name:
            parts = [tensors[name.replace(".attn.q.", f".attn.{n}.")] for n in "qkv"]
            made[name.replace(".attn.q.", ".attn.qkv.")] = np.concatenate(parts)
        elif ".attn.k." not in name and ".attn.v." not in name:
            made[name] = x
    vision = {**config["vision_config"], "architectures": ["InternVisionModel"]}
    vision["image_size"], vision["patch_size"] = vision["image_size"][0], vision["patch_size"][0]
    tiles = {"min_dynamic_patch": 1, "max_dynamic_patch": 12}
    return made, {**config, "vision_config": vision, **tiles}


EYES = [
    TinyEyes(
        "gemma3",
        "gemma3",
        "Gemma3",
        {**SIGLIP, "num_attention_heads": 2, "vision_use_head": False},
        {"head_dim": 32, "sliding_window": 24},
        {"mm_tokens_per_image": 16},
        size=(64, 64),
        processor={"image_seq_length": 16},
        remade=siglip_inside,
    ),
    TinyEyes(
        "qwen2-vl",
        "qwen2vl_merger",
        "Qwen2VL",
        {**QWEN, "embed_dim": 80, "hidden_size": 64, "mlp_ratio": 2, "depth": 3},
        QWEN_TEXT,
        inputs=qwen,
    ),
    TinyEyes(
        "qwen2.5-vl",
        "qwen2.5vl_merger",
        "Qwen2_5_VL",
        {**QWEN, "window_size": 112, "fullatt_block_indexes": [1, 3]},
        QWEN_TEXT,
        size=(112, 160),
        inputs=qwen,
    ),
    TinyEyes(
        "qwen3-vl",
        "qwen3vl_merger",
        "Qwen3VL",
        {**QWEN, "num_position_embeddings": 49, "deepstack_visual_indexes": [0, 2]},
        {**QWEN_TEXT, "head_dim": 16, "rms_norm_eps": 1e-6},
        size=(96, 64),
        inputs=qwen,
    ),
    TinyEyes(
        "qwen3.5",
        "qwen3vl_merger",
        "Qwen3_5",
        {**QWEN, "num_position_embeddings": 49},
        {
            "head_dim": 32,
            "num_hidden_layers": 4,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [2, 1, 1],
                "partial_rotary_factor": 0.25,
            },
        },
        inputs=qwen,
    ),
    TinyEyes(
        "idefics3",
        "idefics3",
        "Idefics3",
        SIGLIP,
        {"model_type": "llama"},
        {"scale_factor": 4},
        size=(64, 64),
        inputs=lambda pixels: {"pixel_values": pixels[None, None]},
        processor={"size": {"longest_edge": 128}},
    ),
    TinyEyes(
        "smolvlm",
        "idefics3",
        "SmolVLM",
        SIGLIP,
        {"model_type": "llama"},
        {"scale_factor": 2},
        size=(64, 64),
        inputs=lambda pixels: {"pixel_values": pixels[None, None]},
        processor={"size": {"longest_edge": 128}},
    ),
    TinyEyes(
        "pixtral",
        "pixtral",
        "Llava",
        {**VIT, "model_type": "pixtral", "patch_size": 8, "image_size": 64, "hidden_act": "gelu"},
        {"model_type": "mistral", "head_dim": 16},
        {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"},
        inputs=sized,
    ),
    TinyEyes(
        "mistral3",
        "pixtral",
        "Mistral3",
        {**VIT, "model_type": "pixtral", "patch_size": 8, "image_size": 64, "hidden_act": "silu"},
        {"model_type": "mistral", "head_dim": 16, "rms_norm_eps": 1e-5},
        {"spatial_merge_size": 2, "vision_feature_layer": -1},
        inputs=sized,
    ),
    TinyEyes(
        "internvl",
        "internvl",
        "InternVL",
        {
            **VIT,
            "num_hidden_layers": 4,
            "patch_size": [8, 8],
            "image_size": [64, 64],
            "layer_scale_init_value": 0.1,
        },
        {"model_type": "qwen2"},
        {"downsample_ratio": 0.5, "vision_feature_layer": -1},
        size=(64, 64),
        peer=None,
        why="it adds the class's position to the first patch and each patch's to the next",
        remade=original_internvl,
    ),
    TinyEyes(
        "lfm2-vl",
        "lfm2",
        "Lfm2Vl",
        {
            **VIT,
            "model_type": "siglip2_vision_model",
            "patch_size": 16,
            "num_patches": 49,
            "vision_use_head": False,
        },
        {
            "model_type": "lfm2",
            "layer_types": ["conv", "full_attention"],
            "block_auto_adjust_ff_dim": False,
        },
        {"downsample_factor": 2, "projector_hidden_size": 96},
        size=(96, 128),
        inputs=naflex,
        remade=siglip_inside,
    ),
    TinyEyes(
        "gemma4",
        "gemma4v",
        "Gemma4",
        {
            **VIT,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "patch_size": 8,
            "position_embedding_size": 32,
            "use_clipped_linears": True,
            "standardize": True,
        },
        {
            "head_dim": 32,
            "global_head_dim": 32,
            "sliding_window": 24,
            "hidden_size_per_layer_input": 0,
            "num_kv_shared_layers": 0,
            "vocab_size_per_layer_input": 0,
        },
        size=(72, 120),
        inputs=placed,
        processor={"image_mean": [0.0] * 3, "image_std": [1.0] * 3},
        remade=tied,
    ),
]


def name_break(folder):
    """Call one of the tokenizer's tokens [IMG_BREAK]."""
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text())
    said["added_tokens"][4]["content"] = "[IMG_BREAK]"
    path.write_text(json.dumps(said))


def make_eyes(tiny, folder):
    """Write a tiny model as an HF folder; return a picture, the rows of it, and deeper rows.

    The picture is float32 (3, height, width), normalised; rows float32 (tokens, width); deeper
    ones (layers, tokens, width).
    """
    import torch
    import transformers

    torch.manual_seed(11)
    n_vocab = make_bpe(folder)
    text = {**BASE, **tiny.text, "vocab_size": n_vocab}
    config = getattr(transformers, f"{tiny.cls}Config")(
        vision_config=tiny.vision, text_config=text, tie_word_embeddings=False, **tiny.top
    )
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{tiny.cls}ForConditionalGeneration")(config).float().eval()
    pixels = np.random.default_rng(5).normal(0, 0.6, (3, *tiny.size)).astype(np.float32)
    given = {name: torch.as_tensor(x) for name, x in tiny.inputs(pixels).items()}
    with torch.no_grad():
        spread(torch, model, 1.0)
        for name, x in model.named_buffers():
            if name.endswith(("std_bias", "std_scale")):
                x.copy_(1 + 0.2 * torch.randn_like(x))
            elif name.endswith(("_min", "_max")):
                x.copy_(torch.tensor(-1.5 if name.endswith("_min") else 1.6))
        seen = model.model.get_image_features(**given)
    rows = seen.pooler_output
    rows = rows if torch.is_tensor(rows) else torch.cat([x.reshape(-1, x.shape[-1]) for x in rows])
    deep = getattr(seen, "deepstack_features", None) or []
    deep = [torch.cat(list(x) if isinstance(x, (tuple, list)) else [x]) for x in deep]
    model.save_pretrained(folder)
    if tiny.remade:
        remake(tiny, folder)
    if tiny.projector == "pixtral":
        name_break(folder)
    said = {"image_mean": MEAN, "image_std": STD, **tiny.processor}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    deeper = np.stack([x.numpy() for x in deep]) if deep else np.zeros((0,), np.float32)
    return pixels, rows.reshape(-1, rows.shape[-1]).numpy(), deeper
