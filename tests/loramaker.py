"""Makes PEFT adapter folders without peft: random factors for weights of a Hugging Face folder."""

import json
from pathlib import Path

import numpy as np
from hfmaker import save

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_lora(folder, shapes, targets=ALL, rank=4, alpha=8, seed=5, ranks=None, **config):
    """Write an adapter of the weights whose module's name ends in one of ``targets``; the folder.

    ``shapes``: of the base's weights by name; ``ranks``: module's ending -> its own rank.
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tensors, ranks = {}, ranks or {}
    for name, (n_out, n_in) in shapes.items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] not in targets:
            continue
        r = ranks.get(module.rpartition(".")[2], rank)
        lora = f"base_model.model.{module}.lora"
        tensors[f"{lora}_A.weight"] = rng.normal(size=(r, n_in)).astype(np.float32) / n_in**0.5
        tensors[f"{lora}_B.weight"] = rng.normal(size=(n_out, r)).astype(np.float32) / r**0.5
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": list(targets)}
    said |= {"base_model_name_or_path": "some/base", "rank_pattern": ranks}
    (folder / "adapter_config.json").write_text(json.dumps({**said, **config}))
    save(folder, tensors)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    return folder


def merged(tensors, folder, scale):
    """Return ``tensors`` of the base plus ``scale`` times the adapter's products, in float64."""
    from safetensors.numpy import load_file

    found = load_file(folder / "adapter_model.safetensors")
    made = dict(tensors)
    for name, a in found.items():
        if ".lora_A." in name:
            weight = name.removeprefix("base_model.model.").replace(".lora_A.", ".")
            b = found[name.replace("lora_A", "lora_B")].astype(np.float64)
            made[weight] = (made[weight] + scale * (b @ a)).astype(np.float32)
    return made
