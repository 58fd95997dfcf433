"""Vision towers of published shapes with random weights, for benchmarks; what one costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["TOWERS", "depth_of", "macs", "write_projector", "write_text"]

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def _siglip(side: int, patch: int = 14) -> dict[str, Any]:
    """Return SigLIP-so400m's settings."""
    return {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
        "num_attention_heads": 16, "patch_size": patch, "image_size": side,
    }  # fmt: skip


_QWEN = {"spatial_merge_size": 2, "num_heads": 16}
# projector, vision_config, columns of the text model, more of config.json, tensors left out
TOWERS: dict[str, tuple[str, dict[str, Any], int, dict[str, Any], tuple[str, ...]]] = {
    "gemma3": ("gemma3", _siglip(896), 2560, {}, ()),
    "qwen2.5vl": (
        "qwen2.5vl_merger",
        {
            **_QWEN, "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "patch_size": 14,
            "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        },
        2048, {}, ("ln1.bias", "ln2.bias", "post_ln.bias", "patch_embd.bias"),
    ),
    "qwen3vl": (  # as Qwen3.5 has it: without deepstack
        "qwen3vl_merger",
        {
            **_QWEN, "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 16,
            "num_position_embeddings": 2304,
        },
        2560, {}, (),
    ),
    "smolvlm": (
        "idefics3", _siglip(384), 2048,
        {"scale_factor": 3, "preprocessor": {**HALF, "size": {"longest_edge": 1536}}}, (),
    ),
    "pixtral": (
        "pixtral",
        {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "patch_size": 16, "image_size": 1024, "hidden_act": "silu",
        },
        5120, {}, (".bias",),
    ),
}  # fmt: skip


def depth_of(name: str) -> int:
    """Return how many layers a published tower has."""
    said = TOWERS[name][1]
    return int(said.get("depth") or said["num_hidden_layers"])


def write_projector(name: str, path: Path, layers: int, wanted: str) -> None:
    """Write a projector file with random weights."""
    from ggq import quants
    from ggq.converters.projector import VALUE_TYPES, stored_type
    from ggq.gguf import GGUFWriter
    from ggq.models import vision

    projector, said, width, more, without = TOWERS[name]
    said = {**said, "depth" if "depth" in said else "num_hidden_layers": layers}
    text = {"hidden_size": width, "rms_norm_eps": 1e-6}
    config = {"vision_config": said, "text_config": text, "preprocessor": HALF, **more}
    tower, rng = vision.get(projector), np.random.default_rng(0)
    sight: Any = tower.sight(config)
    writer = GGUFWriter(path, force=True)
    writer.add("general.architecture", "clip")
    for key, value, kind in tower.metadata(config):
        listed = list(value) if isinstance(value, tuple) else value
        writer.add(key, listed, VALUE_TYPES[kind.removesuffix("s")])
    tensors = {}
    for label, row, layer in tower.rows(sight):
        shape = tower.shape(row, sight, layer)
        left_out = row.optional and label.endswith(without)
        if not left_out:
            tensors[label] = shape, quants.get(stored_type(shape, row, wanted)[0])
    for label, (shape, stored) in tensors.items():
        writer.add_tensor(label, shape, stored.ggml_id)
    writer.begin()
    for label, (shape, stored) in tensors.items():
        x = rng.standard_normal(shape[-1] * 64, np.float32) * np.float32(shape[-1] ** -0.5)
        x = np.resize(x, shape) if len(shape) > 1 else 1 + 0.1 * np.resize(x, shape)
        flat = np.ascontiguousarray(x, np.float32).reshape(-1, shape[-1])
        writer.write(label, stored.quantize(flat).view(np.uint8).reshape(len(flat), -1))
    writer.finish()


def write_text(width: int, path: Path) -> None:
    """Write the text model."""
    import synthetic

    synthetic.write((width, 2, width // 128, width // 128, 4 * width, 4096, False), "F16", path)


def macs(projector: Path) -> float:
    """Return the multiply-adds of encoding a picture: matrices, and attention twice."""
    from ggq.runtime.engine.eyes import Eyes
    from ggq.runtime.pictures.families import family_of
    from ggq.runtime.pictures.plans import View

    total = 0.0
    with Eyes.load(projector, 1) as eyes:
        sight, tower = eyes.sight, eyes.tower
        per_patch = per_token = 0
        for name, row, layer in tower.rows(sight):
            shape = tower.shape(row, sight, layer)
            if len(shape) > 1 and "position" not in name and name in eyes._file.tensors:
                size = int(np.prod(shape))
                per_patch += size if name.startswith("v.") else 0
                per_token += 0 if name.startswith("v.") else size
        for view in family_of(sight.projector).plan(sight, 1024, 1024):
            if not isinstance(view, View):
                continue
            n, tokens = sight.view(*view.size).n, sight.tokens(*view.size)
            whole = sight.n_layer // sight.windowed if sight.windowed else sight.n_layer
            seen = whole * n + (sight.n_layer - whole) * min(n, (112 // sight.patch) ** 2)
            total += n * per_patch + tokens * per_token
            total += 2.0 * n * seen * sight.n_head * sight.head_dim
    return total
