"""A planned folder for a serving engine and its writing: safetensors, config, tokenizer files.

Tensors are encoded one after the other, each whole in its codes; the folder takes its name when it
is complete. How codes lie in a module's tensors is the layout's.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ggq.converters import grids
from ggq.converters.checkpoint.pieces import pieces
from ggq.converters.checkpoint.tensors import in_own_blocks
from ggq.converters.conversion import Conversion, Progress, Summary
from ggq.converters.encode import EncodeTask, encode_all
from ggq.converters.export import (
    Folder,
    generation,
    hf_config,
    outputs,
    save_json,
    tokenizer,
)
from ggq.converters.grids.base import Grid, Weight
from ggq.converters.safetensors import Output, layout, save, save_index, shards
from ggq.converters.serving.plan import ServingPlan, module_of
from ggq.errors import FormatError, UsageError, printable
from ggq.gguf import leftovers
from ggq.outputs import output_file
from ggq.quants.searched import SearchedType

__all__ = ["FolderConversion", "lossless"]

SHARD_BYTES = 5_000_000_000
COPIED = (  # of a source folder; weights, settings of weights and code are not
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("chat_template*", "*.tiktoken", "*.model", "generation_config.json", "LICENSE*"),
)


def lossless(tensor: Any, grid: Any) -> bool:
    """Tell whether a tensor's own blocks hold the very codes and scales of ``grid``: Q4_0, Q8_0."""
    return _same_grid(tensor, grid) is not None


def _same_grid(tensor: Any, grid: Any) -> Any:
    """Return the tensor in blocks of evenly spaced codes around zero as the grid's; None if not."""
    name = grid.same_blocks if isinstance(grid, Grid) else None
    if name is None:
        return None
    tensor = in_own_blocks(tensor, name)
    return tensor if tensor.type_name == name and grid.scales in ("F16", "F32") else None


@dataclass
class FolderConversion(Conversion):
    """A conversion whose `out` is a folder; ``source``: the folder it is made of, if it is one.

    ``full``: all hyper-parameters; ``config``: the source's config.json.
    """

    plan: ServingPlan
    architecture: Any = None
    full: Any = None
    source: Path | None = None
    config: dict[str, Any] | None = None

    def summary(self) -> Summary:
        """Return what will be written, with the exact sizes of the files of weights."""
        files = self._files(None).items()
        sizes = {n: sum(o.nbytes for o in g) + len(layout(g)[0]) for n, g in files}
        return Summary(
            type=self.plan.file_type.name,
            architecture=self.arch,
            shards=tuple((self.out / name, nbytes) for name, nbytes in sizes.items()),
            n_weights=self.n_elements,
            tensors=dict(self.plan.types),
            fallbacks=tuple(self.plan.fallbacks),
        )

    def check_target(self) -> None:
        """Refuse a folder with other things in it; UsageError."""
        Folder(self.out, self.options.force)

    def check(self) -> None:
        """Refuse before any work a folder that could not be written; UsageError."""
        self.check_target()
        parent = self.out.absolute().parent
        if not os.access(parent, os.W_OK | os.X_OK):
            raise UsageError(f"{printable(parent)}: files cannot be made in this folder")
        free, needed = shutil.disk_usage(parent).free, self.summary().nbytes
        if needed > free:
            raise UsageError(f"{printable(parent)}: {needed} bytes needed, {free} are free")

    def run(self, progress: Progress | None = None) -> list[Path]:
        """Encode and write the folder; return it."""
        self.check_complete()
        self.check()
        with Folder(self.out, self.options.force) as folder:
            save(self._files(progress), folder)
            self._save_rest(folder)
        self.forget()
        return [self.out]

    def described(self) -> bytes:
        """Return what the files will say of themselves: config, names, shapes, dtypes."""
        heads = [layout(group)[0] for group in self._files(None).values()]
        told = [self._config(), self._told()]
        return b"".join([*heads, json.dumps(told, sort_keys=True, default=str).encode()])

    def make_part(self, index: int, folder: Path, progress: Progress | None = None) -> None:
        """Encode one file of weights alone, into ``folder``; whole or not at all."""
        self.check_complete()
        name, group = list(self._files(progress).items())[index]
        temp = leftovers.temporary(folder / name)  # one of a killed run goes with the folder
        try:
            save({temp.name: group}, folder)
            temp.replace(folder / name)
        finally:
            temp.unlink(missing_ok=True)

    def put_together(self, folder: Path) -> list[Path]:
        """Make the output folder of the files of weights in ``folder``; return it."""
        files = self._files(None)
        with Folder(self.out, self.options.force) as made:
            for name in files:
                leftovers.take_name(folder / name, made / name)
            save_index(files, made)
            self._save_rest(made)
        self.forget()
        return [self.out]

    @property
    def split_bytes(self) -> int:
        """The most bytes of a file of weights."""
        return self.options.split_max_bytes or SHARD_BYTES

    def _files(self, progress: Progress | None) -> dict[str, list[Output]]:
        return shards(self._outputs(progress), self.split_bytes)

    def _save_rest(self, folder: Path) -> None:
        save_json(folder / "config.json", self._config())
        self._save_tokenizer(folder)
        save_json(folder / "ggq.json", self._told())

    def _told(self) -> dict[str, Any]:
        return {i.key: i.value for i in self.items if i.key.startswith(("ggq.", "quantize."))}

    def _config(self) -> dict[str, Any]:
        """Return config.json: the source's own or the file's keys, and the quantization."""
        plan = self.plan
        assert plan.chosen is not None, "a folder has a type"
        if self.config is None:
            assert self.copy_from is not None, "a source is a folder or a file"
            config = hf_config(self.copy_from, self.architecture, self.full, plan.dtype)
        else:
            config = {k: v for k, v in self.config.items() if k != "auto_map"}
            tied = "output.weight" not in self.tensors
            config |= {"tie_word_embeddings": tied} if "tie_word_embeddings" in config else {}
        dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[plan.dtype]
        config["dtype" if "dtype" in config else "torch_dtype"] = dtype
        config["quantization_config"] = plan.chosen.layout.config(
            plan.chosen, plan.group, plan.left
        )
        return config

    def _save_tokenizer(self, folder: Path) -> None:
        if self.source is None:
            assert self.copy_from is not None, "a source is a folder or a file"
            save_json(folder / "generation_config.json", generation(self.copy_from, self._config()))
            self.warnings += tokenizer(self.copy_from, folder)
            return
        for pattern in COPIED:
            for path in sorted(self.source.glob(pattern)):
                if path.is_file():
                    shutil.copyfile(path, output_file(folder / path.name))
                elif path.is_dir():  # several templates
                    shutil.copytree(path, folder / path.name)

    def _outputs(self, progress: Progress | None) -> list[Output]:
        """Return all tensors to write in the model's order; their data is made when asked for."""
        types, rows = dict(self.plan.types), _Rows(self, progress)
        found: list[Output] = []
        for part in self.plan.parts:
            kind = types[part[0]]
            if grids.is_grid(kind):
                for piece in pieces(rows, self.architecture, self.full, [part]):
                    found += self._quantized(rows, part[0], piece, grids.kind(kind))
        plain = [p for p in self.plan.parts if not grids.is_grid(types[p[0]])]
        made = list(pieces(rows, self.architecture, self.full, plain))
        return outputs(made, self.plan.dtype, rows.told) + found

    def _quantized(self, rows: _Rows, name: str, piece: Any, grid: Any) -> Iterator[Output]:
        chosen = self.plan.chosen
        assert chosen is not None, "a folder has a type"
        module = module_of(piece.name)
        n_rows, width = piece.shape
        shapes = chosen.layout.shapes(grid, n_rows, width, chosen.static)
        kept: dict[str, np.ndarray] = {}

        def data(suffix: str) -> Iterator[np.ndarray]:
            if not kept:
                params, codes = grid.unpack(piece.read(0, piece.n_rows))
                if not np.isfinite(params["d"]).all():
                    raise FormatError(f"tensor {printable(name)}: a scale is not finite")
                step = self.peaks.get(name, 0) / chosen.inputs.top if chosen.static else None
                step = step or (1.0 if chosen.static else None)  # inputs that are always zero
                weight = Weight(grid, codes, params["d"], grid.zeros(params), step)
                kept.update(chosen.layout.tensors(weight))
            yield kept.pop(suffix)

        for suffix, (dtype, shape) in shapes.items():
            yield Output(module + suffix, dtype, shape, partial(data, suffix))


class _Rows:
    """The rows of a conversion's tensors: values of those that stay, blocks of the others.

    The blocks of one tensor are kept at a time; experts ask for them one after the other.
    """

    def __init__(self, job: FolderConversion, progress: Progress | None) -> None:
        self.job, self.progress = job, progress
        self.types = dict(job.plan.types)
        self.done, self.total = 0, job.n_elements
        self._kept: tuple[str, np.ndarray] | None = None

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.job.tensors[name].shape)

    def rows(self, name: str, rows: Any) -> np.ndarray:
        """Return float32 rows, or the bytes of a grid's rows."""
        tensor, kind = self.job.tensors[name], self.types[name]
        if not grids.is_grid(kind) and isinstance(rows, slice) and len(tensor.shape) < 3:
            return tensor.read(*rows.indices(prod(tensor.shape[:-1]))[:2])
        if self._kept is None or self._kept[0] != name:
            self._kept = name, self._whole(name, kind)
        return self._kept[1][rows]

    def _whole(self, name: str, kind: str) -> np.ndarray:
        from ggq import quants

        job, tensor = self.job, self.job.tensors[name]
        n_rows = prod(tensor.shape[:-1])
        if not grids.is_grid(kind):
            step = tensor.shape[-2] if len(tensor.shape) > 1 else 1
            return np.concatenate([tensor.read(a, a + step) for a in range(0, n_rows, step)])
        grid: Any = grids.kind(kind)
        own = _same_grid(tensor, grid)
        blocks = np.empty((n_rows, grid.row_bytes(tensor.shape[-1])), np.uint8)
        at = 0

        def write(_: str, made: np.ndarray) -> None:
            nonlocal at
            made = made.reshape(-1, blocks.shape[1])
            blocks[at : at + len(made)] = made
            at += len(made)

        if own is not None:
            step = tensor.shape[-2]
            same = quants.get(own.type_name)
            assert isinstance(same, SearchedType), same.name
            for first in range(0, n_rows, step):
                params, codes = same.unpack(own.raw(first, first + step))
                write(name, grid.pack({"d": params["d"].astype(np.float32)}, codes))
            self.advance(name, prod(tensor.shape))
        else:
            task = EncodeTask(tensor, kind)
            encode_all([task], write, job.imatrix, job.options.threads, self.advance)
        return blocks

    def advance(self, name: str, elements: int) -> None:
        """Count encoded weights."""
        self.done += elements
        if self.progress:
            self.progress(self.done, self.total, name)

    def told(self, done: int, total: int, name: str) -> None:
        """Take the progress of the tensors that stay: they come first."""
        self.done = done
        if self.progress:
            self.progress(done, self.total, name)
