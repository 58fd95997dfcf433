"""Writes an HF folder back from a GGUF file: config, safetensors, tokenizer, generation settings.

The architecture's own tables are read backwards, in slabs of rows; quantized weights come out
dequantized. How a tokenizer is written is known in converters.vocab.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ggq import models
from ggq.converters.checkpoint.pieces import FileTensors, Piece, pieces
from ggq.converters.checkpoint.rotations import llama3_factors
from ggq.converters.encode import F16_MAX, SLAB_ELEMENTS
from ggq.converters.metadata.general import SAMPLING, card_text
from ggq.converters.safetensors import Output, save, shards
from ggq.errors import ModelError, UsageError, option, printable
from ggq.gguf import GGUFFile, leftovers, open_gguf, spec
from ggq.models.base import Architecture
from ggq.models.hparams import HParams
from ggq.models.layers.rope import STILL
from ggq.models.pooled import POOLINGS
from ggq.outputs import output_file

__all__ = [
    "Folder",
    "dtype_of",
    "export",
    "generation",
    "hf_config",
    "outputs",
    "save_json",
    "tokenizer",
]

DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
ROPE_CONTEXTS = [1 << k for k in range(5, 21)]
SHARD_BYTES = 5_000_000_000
TOLD_BY = {  # settings that only say whether layers hold a tensor
    "attention_bias": "attn_q.bias",
    "use_bias": "attn_q.bias",
    "use_qkv_bias": "attn_q.bias",
    "attention_out_bias": "attn_output.bias",
    "mlp_bias": "ffn_up.bias",
    "mamba_conv_bias": "ssm_conv1d.bias",
    "use_conv_bias": "ssm_conv1d.bias",
    "mamba_rms_norm": "ssm_norm.weight",
    "use_qk_norm": "attn_q_norm.weight",
}
Progress = Callable[[int, int, str], None]


def export(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dtype: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Path:
    """Write the model as an HF folder; return it. ``dtype``: f32, f16, bf16 or None: as stored.

    Quantized weights become f16 where it is None; ``warn`` is told what a person should look at.
    UsageError: the folder is not empty and no ``force``, a weight beyond F16; ModelError: an
    architecture or tensor that HF has no place for.
    """
    with open_gguf(model) as file:
        warnings = _export(file, Path(out), dtype, force, progress)
    for warning in warnings:
        if warn is not None:
            warn(warning)
    return Path(out)


def _export(
    file: GGUFFile, out: Path, dtype: str | None, force: bool, progress: Progress | None
) -> list[str]:
    arch = models.get(file.get(spec.KEY_ARCHITECTURE, type=str))
    if not arch.exports:
        raise ModelError(f"{arch.name}: writing it as a Hugging Face folder is not supported")
    hp = arch.hparams(file)
    arch.check(file, hp)
    if hp.readout.dense:
        raise ModelError("dense layers after pooling: writing their folders is not supported")
    kind = dtype_of(file, dtype)
    parts = [(name, row, layer) for name, row, layer in arch.rows(hp) if name in file.tensors]
    left = set(file.tensors) - {name for name, _, _ in parts}
    if left:
        raise ModelError(f"tensor {printable(min(left))} is not one that {arch.name} has")
    config = hf_config(file, arch, hp, kind)
    with Folder(out, force) as folder:
        save_json(folder / "config.json", config)
        save_json(folder / "generation_config.json", generation(file, config))
        (folder / "README.md").write_text(card_text(file.metadata), encoding="utf-8")
        warnings = tokenizer(file, folder)
        written = config["architectures"][0]
        if written not in arch.hf_classes and not hp.readout.labels:
            warnings.append(f"written as {written}: the text model, all that this file has")
        _save_modules(file, hp, folder)
        made = outputs(list(pieces(FileTensors(file), arch, hp, parts)), kind, progress)
        save(shards(made, SHARD_BYTES), folder)
    return warnings


def hf_config(file: GGUFFile, arch: Architecture, hp: HParams, kind: str) -> dict[str, Any]:
    """Return config.json: the architecture's key table read backwards."""
    config: dict[str, Any] = {
        "architectures": [arch.hf_classes[0]],
        "model_type": arch.hf_model_type,
    }
    for key in arch.keys:
        name = key.gguf.format(arch=arch.name)
        if not key.hf or name not in file.metadata or "." in key.hf[0]:  # inside another setting
            continue
        value = file.metadata[name]
        value = value.tolist() if hasattr(value, "tolist") else value
        config[key.hf[0]] = key.to_hf(value) if key.to_hf else _short(value)
    config["vocab_size"] = hp.n_vocab
    if not next(key.hf for key in arch.keys if key.gguf == "{arch}.block_count"):
        config["num_hidden_layers"] = hp.n_layer
    if hp.heads:
        config["num_nextn_predict_layers"] = len(hp.heads)
    if hp.rope:
        config["rope_theta"] = _short(hp.rope.base)
    scaling = _rope_scaling(file, hp)
    if scaling:
        config["rope_scaling"] = scaling
    names = set(file.tensors)
    config["tie_word_embeddings"] = "output.weight" not in names
    held = {name.split(".", 2)[-1] for name in names if name.startswith("blk.")}
    held |= {name.replace("attn_qkv.", "attn_q.") for name in held}
    config |= {setting: tensor in held for setting, tensor in TOLD_BY.items()}
    activation = getattr(hp.layers[0].feed, "activation", "silu")
    config["hidden_act"] = {"gelu_tanh": "gelu_pytorch_tanh"}.get(activation, activation)
    config["pad_token_id"] = None  # some classes have one by default, outside small vocabularies
    for short in ("bos", "eos"):
        token = file.get(f"tokenizer.ggml.{short}_token_id", type=int)
        if token is not None:
            config[f"{short}_token_id"] = token
    config["torch_dtype"] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[kind]
    own = arch.export_config(hp)
    unsaid = {k for k, v in own.items() if v is None and k in config}
    config = {k: v for k, v in {**config, **own}.items() if k not in unsaid}
    if scaling and "full_attention" in own.get("rope_parameters", ()):  # one set per kind of layer
        config["rope_parameters"]["full_attention"] |= config.pop("rope_scaling")
    return config | _classifier(config["architectures"][0], hp) if hp.readout.labels else config


def _classifier(name: str, hp: HParams) -> dict[str, Any]:
    """Return what config.json says of a classifier; ``name``: the class of the model without it."""
    stem = re.sub("(For[A-Z].*|Model)$", "", name)
    made: dict[str, Any] = {"architectures": [f"{stem}ForSequenceClassification"]}
    made["id2label"] = {str(i): label for i, label in enumerate(hp.readout.labels)}
    made["label2id"] = {label: i for i, label in enumerate(hp.readout.labels)}
    if hp.readout.classifier_pooling:
        made["classifier_pooling"] = POOLINGS[hp.readout.classifier_pooling]
    return made


def _rope_scaling(file: GGUFFile, hp: HParams) -> dict[str, Any] | None:
    """Return rope_scaling for linear, yarn and llama3 (recognised from its stored factors)."""
    rope = hp.rope
    if "rope_freqs.weight" in file.tensors:
        return _proportional(file) or _llama3(file, hp)
    if "rope_factors_long.weight" in file.tensors:
        kinds: dict[str, Any] = {
            f"{n}_factor": [_short(float(v)) for v in _factors(file, f"rope_factors_{n}.weight")]
            for n in ("long", "short")
        }
        assert rope is not None  # the row of these tensors is one of files with a rotation
        kinds["original_max_position_embeddings"] = rope.original_context
        return {"rope_type": "longrope", **kinds, "attention_factor": _short(rope.attn_factor)}
    if rope is None or rope.scaling == "none":
        return None
    scaling = rope.settings()
    del scaling["rope_theta"]
    return {name: _short(value) for name, value in scaling.items()}


def _factors(file: GGUFFile, name: str) -> np.ndarray:
    return FileTensors(file).rows(name, slice(0, 1)).ravel()


def _proportional(file: GGUFFile) -> dict[str, Any] | None:
    """Return the share of pairs that turn where stored factors hold the others still."""
    stored = _factors(file, "rope_freqs.weight")
    turns = stored == 1
    if turns.all() or not (stored[~turns] >= STILL).all():
        return None
    return {"rope_type": "proportional", "partial_rotary_factor": float(turns.mean())}


def _llama3(file: GGUFFile, hp: HParams) -> dict[str, Any] | None:
    stored = _factors(file, "rope_freqs.weight")
    if (stored == 1).all() or hp.rope is None:
        return None
    for context in ROPE_CONTEXTS:
        scaling = {
            "rope_type": "llama3",
            "factor": _short(float(stored.max())),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": context,
        }
        made = llama3_factors({"rope_parameters": {**scaling, "rope_theta": hp.rope.base}}, hp)
        if made is not None and np.allclose(made, stored, rtol=1e-4, atol=0):
            return scaling
    raise ModelError("tensor rope_freqs.weight is not of the form that config.json can express")


def generation(file: GGUFFile, config: Mapping[str, Any]) -> dict[str, Any]:
    made = {k: config[k] for k in ("bos_token_id", "eos_token_id") if k in config}
    for key, names, _ in SAMPLING:
        value = file.metadata.get(f"general.sampling.{key}")
        if value is not None:
            made[names[-1]] = _short(value)
    return made


def tokenizer(file: GGUFFile, folder: Path) -> list[str]:
    from ggq.converters.vocab.write import write_vocab

    return write_vocab(file, folder)


def _short(value: Any) -> Any:
    """Return a float32 as the shortest decimal that is the same float32, so 1e-05 stays 1e-05."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def dtype_of(file: GGUFFile, wanted: str | None) -> str:
    if wanted is not None:
        if wanted.lower() not in DTYPES:
            raise UsageError(f"{option('--dtype')} {printable(wanted)}: one of {', '.join(DTYPES)}")
        return DTYPES[wanted.lower()]
    kinds = {spec.type_name(t.type_id) for t in file.tensors.values() if len(t.shape) > 1}
    return kinds.pop() if len(kinds) == 1 and kinds <= set(DTYPES.values()) else "F16"


def outputs(made: list[Piece], kind: str, progress: Progress | None) -> list[Output]:
    """Return the tensors to write, in slabs of rows of the dtype ``kind``; progress is told."""
    total, done = sum(prod(p.shape) for p in made), 0

    def data(piece: Piece) -> Iterator[np.ndarray]:
        nonlocal done
        for rows in piece.slabs(SLAB_ELEMENTS):
            yield _stored(rows, kind, piece.name)
            done += rows.size
            if progress:
                progress(done, total, piece.name)

    return [Output(p.name, kind, p.shape, partial(data, p)) for p in made]


def _stored(x: np.ndarray, kind: str, name: str) -> np.ndarray:
    from ggq import quants

    if kind == "F16" and np.abs(x).max() > F16_MAX:
        raise UsageError(
            f"tensor {printable(name)} is beyond F16's {F16_MAX:g}; "
            f"{option('--dtype')} f32 holds it"
        )
    return quants.get(kind).quantize(np.ascontiguousarray(x, np.float32)).view(np.uint8)


def _save_modules(file: GGUFFile, hp: HParams, folder: Path) -> None:
    """Write what sentence-transformers reads beside a model: modules, pooling, prompts."""
    names = {1: "mean_tokens", 2: "cls_token", 3: "lasttoken"}
    if f"{hp.arch}.pooling_type" in file.metadata and hp.readout.pooling in names:
        kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        modules = [
            {"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{kind}"}
            for i, (p, kind) in enumerate(kinds)
        ]
        (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", "utf-8")
        pooling = {f"pooling_mode_{name}": n == hp.readout.pooling for n, name in names.items()}
        (folder / "1_Pooling").mkdir()
        size = {"word_embedding_dimension": hp.n_embd}
        save_json(folder / "1_Pooling" / "config.json", size | pooling)
    prefix = "ggq.prompt."
    prompts = {k.removeprefix(prefix): v for k, v in file.metadata.items() if k.startswith(prefix)}
    if prompts:
        default = prompts.pop("default", None)
        name = next((n for n, text in prompts.items() if text == default), None)
        said = {"prompts": prompts, "default_prompt_name": name, "similarity_fn_name": "cosine"}
        save_json(folder / "config_sentence_transformers.json", said)


def save_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class Folder:
    """A folder that appears under its name only when it is complete."""

    def __init__(self, path: Path, force: bool) -> None:
        self.path, self.force = path, force
        self.temp = leftovers.temporary(path)
        if path.exists() and not path.is_dir():
            raise UsageError(f"{printable(path)}: is a file")
        if path.is_dir() and any(path.iterdir()) and not force:
            force_it = option("--force", "force=True")
            raise UsageError(f"{printable(path)}: is not empty; {force_it} writes into it")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{printable(path.absolute().parent)}: no such folder")

    def __enter__(self) -> Path:
        leftovers.clear(self.path)
        try:
            self.temp.mkdir()
        except OSError as error:
            raise UsageError(f"{printable(self.path)}: cannot write: {error.strerror}") from None
        self._claim = leftovers.claim(self.temp)
        return self.temp

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self.path.mkdir(exist_ok=True)
                for made in sorted(self.temp.iterdir()):
                    shutil.move(made, output_file(self.path / made.name))
        finally:
            leftovers.release(self._claim)
            shutil.rmtree(self.temp, ignore_errors=True)
