"""What a vision tower is: keys, tensors and graph, for converter and runtime alike.

It knows no tensor values, no back end and no file: a source is an HF config (a mapping) or an
object with the ``metadata`` and ``tensors`` of a projector file, as llama.cpp lays it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np

from ggq.errors import ModelError, printable
from ggq.models.table import Key, Tensor, checked_value
from ggq.models.vision.sight import Sight, View

__all__ = ["Tower", "cut", "scaled"]

VISION = "clip.vision."
# Files hold keys in this order; a family's own follow.
KEYS = (
    Key(f"{VISION}projection_dim", attr="n_text", required=True),
    Key(f"{VISION}image_size", attr="image_size", required=True),
    Key(f"{VISION}patch_size", attr="patch", required=True),
    Key(f"{VISION}embedding_length", attr="n_embd", required=True),
    Key(f"{VISION}feed_forward_length", attr="n_ff", required=True),
    Key(f"{VISION}block_count", attr="n_layer", required=True),
    Key(f"{VISION}attention.head_count", attr="n_head", required=True),
    Key(f"{VISION}image_mean", attr="mean", type="f32s", required=True),
    Key(f"{VISION}image_std", attr="std", type="f32s", required=True),
    Key(f"{VISION}attention.layer_norm_epsilon", attr="eps", type="f32", required=True),
)
OPTIONAL = (  # of preprocessing, and of the graph where a family asks
    Key("clip.use_gelu", attr="use_gelu", type="bool"),
    Key("clip.use_silu", attr="use_silu", type="bool"),
    Key(f"{VISION}spatial_merge_size", attr="merge"),
    Key(f"{VISION}projector.scale_factor", attr="merge"),
    Key(f"{VISION}n_wa_pattern", attr="windowed"),
    Key(f"{VISION}is_deepstack_layers", attr="deep", type="bools"),
    Key(f"{VISION}image_min_pixels", attr="min_pixels"),
    Key(f"{VISION}image_max_pixels", attr="max_pixels"),
    Key(f"{VISION}preproc_image_size", attr="longest_edge"),
    Key(f"{VISION}preproc_min_tiles", attr="min_tiles"),
    Key(f"{VISION}preproc_max_tiles", attr="max_tiles"),
)
MOST_ROWS = 1 << 24  # of a tensor


class Tower:
    """One family: subclasses fill the class attributes, read a config and declare a graph."""

    projector: ClassVar[str] = ""  # as files call it
    type_key: ClassVar[str] = "clip.projector_type"
    hf_classes: ClassVar[tuple[str, ...]] = ()
    texts: ClassVar[tuple[str, ...]] = ()  # the only architectures that read its rows; (): any
    prefixes: ClassVar[tuple[str, ...]] = ()  # what the tower's names in a checkpoint begin with
    renames: ClassVar[Mapping[str, str]] = {}  # parts of names -> what the table calls them
    tensors: ClassVar[tuple[Tensor, ...]] = ()
    checks: ClassVar[tuple[Callable[[Sight], None], ...]] = ()  # ModelError: no sizes of such one
    merge: ClassVar[int] = 1  # where no key says it
    gelu: ClassVar[str] = "gelu_tanh"  # what files mean by use_gelu here
    merge_key: ClassVar[str] = f"{VISION}projector.scale_factor"
    # For who binds the table to a checkpoint (converters/checkpoint/tensors.py).
    name = "clip"
    hf_base = ""
    hf_prefixes = ("",)
    aliases: ClassVar[Mapping[str, str]] = {}  # `renames` says the other way round what is needed

    def suits(self, config: Mapping[str, Any]) -> bool:
        """Tell whether a config of one of these classes is this one, where several share it."""
        return True

    def settings(self, vision: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the family's values by attribute; ``vision`` is ``config``'s vision_config.

        Beyond `Sight`'s: ``use_gelu``, ``use_silu``, ``deep`` (a bool a layer), as files say them.
        ``config["preprocessor"]`` holds what preprocessor_config.json says.
        """
        raise NotImplementedError(self.projector)

    def forward(self, ops: Any, sight: Sight, view: View) -> Any:
        """Record the encoding of one view on ``ops``; return its rows.

        (tokens, n_text), followed in each row by those for deeper layers of the text model.
        """
        raise NotImplementedError(self.projector)

    def patches(self, sight: Sight, pixels: np.ndarray) -> np.ndarray:
        """Return the patches of ``pixels`` as ``forward`` takes them, float32 (n, 3 patch**2).

        ``pixels``: float32 (3, height, width), normalised; columns: colour, row, column.
        """
        return cut(pixels, sight.patch)

    def finish(self, ops: Any, sight: Sight, rows: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """Return a view's rows with what stands between them; ``rows`` as ``forward`` gave them."""
        return rows

    # --- keys ---

    def values(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return all values by attribute of an HF config; ModelError where one lacks."""
        vision = config["vision_config"]
        text = config.get("text_config") or {}
        said = config.get("preprocessor") or {}
        common = {
            "n_text": text.get("hidden_size") or config.get("hidden_size"),
            "image_size": vision.get("image_size"),
            "patch": vision.get("patch_size"),
            "n_embd": vision.get("hidden_size"),
            "n_ff": vision.get("intermediate_size"),
            "n_layer": vision.get("num_hidden_layers") or vision.get("depth"),
            "n_head": vision.get("num_attention_heads") or vision.get("num_heads"),
            "mean": said.get("image_mean"),
            "std": said.get("image_std"),
            "eps": vision.get("layer_norm_eps", 1e-6),
        }
        found = common | self.settings(vision, config)
        for key in KEYS:
            if found.get(key.attr or "") is None:
                where = "preprocessor_config.json" if key.attr in ("mean", "std") else "config.json"
                raise ModelError(f"{where} does not say {key.gguf} of its vision part")
        return found

    def metadata(self, config: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
        """Return (key, value, type) of everything a file says; ModelError where one lacks."""
        values = self.values(config)
        made: list[tuple[str, Any, str]] = [
            ("clip.has_vision_encoder", True, "bool"),
            (self.type_key, self.projector, "str"),
        ]
        for key in (*KEYS, *OPTIONAL):
            value = values.get(key.attr or "")
            if value is None or (key.attr == "merge" and key.gguf != self.merge_key):
                continue
            made.append((key.gguf, checked_value(key.gguf, value, key.type), key.type))
        return made

    def sight(self, source: Any) -> Sight:
        """Return what an HF config (mapping) or an opened projector file says; ModelError."""
        if isinstance(source, Mapping):
            values = self.values(source)
        else:
            values = self._stored(source)
        deep = values.pop("deep", None)
        if deep is not None:
            listed = deep if isinstance(deep, (tuple, list)) else ()
            values["deepstack"] = tuple(i for i, has in enumerate(listed) if has)
        gelu, silu = values.pop("use_gelu", False), values.pop("use_silu", False)
        if gelu and silu:
            raise ModelError("the file says both clip.use_gelu and clip.use_silu")
        usual = {"activation": self.gelu if gelu else "silu" if silu else "gelu_quick"}
        said = {k: v for k, v in values.items() if v is not None}
        values = {"merge": self.merge, **usual, **said}
        known = {f.name for f in fields(Sight)}
        made = Sight(self.projector, **{k: v for k, v in values.items() if k in known})
        made.check()
        for check in self.checks:
            check(made)
        return made

    def _stored(self, gguf: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key in (*KEYS, *OPTIONAL):
            if key.gguf in gguf.metadata:
                values[key.attr or ""] = checked_value(key.gguf, gguf.metadata[key.gguf], key.type)
            elif key.required:
                raise ModelError(f"the file has no key {key.gguf}")
        values["sizes"] = self._sizes(gguf, values)
        return values

    def _sizes(self, gguf: Any, values: Mapping[str, Any]) -> dict[str, int]:
        """Return the dimensions that only tensors say, each as the first tensor with it has it."""
        known = {"embd", "text", "patch", "area", "q"}
        found: dict[str, int] = {}
        n_layer = min(values["n_layer"], 512)
        for row in self.tensors:
            for i in range(n_layer if row.per_layer else 1):
                tensor = gguf.tensors.get(row.gguf.format(i=i))
                if tensor is None or len(tensor.shape) != len(row.shape):
                    continue
                for name, size in zip(row.shape, tensor.shape, strict=True):
                    if not name.isdigit() and "*" not in name and name not in known:
                        found.setdefault(name, int(size))
        if any(not 0 < size <= MOST_ROWS for size in found.values()):
            raise ModelError(f"{self.projector}: a tensor without rows or columns")
        return found

    # --- tensors ---

    def rows(self, sight: Sight) -> Iterator[tuple[str, Tensor, int | None]]:
        """Yield (name in the file, table row, layer or None) of every tensor a file may hold."""
        for row in self.tensors:
            if not row.per_layer:
                yield row.gguf, row, None
        for i in range(sight.n_layer):
            for row in self.tensors:
                if row.per_layer and (row.role != "deepstack" or i in sight.deepstack):
                    yield row.gguf.format(i=i), row, i

    def shape(self, row: Tensor, sight: Sight, layer: int | None) -> tuple[int, ...]:
        """Return the tensor's shape, rows first and row length last, as the file must have it."""
        return tuple(sight.dim(name, layer) for name in row.shape)

    def sources(self, row: Tensor, sight: Sight, layer: int | None) -> list[str]:
        """Return the checkpoint's names, by this table, that make the tensor."""
        return [name.format(i=layer, j=self.deeper(sight, layer)) for name in row.hf]

    def deeper(self, sight: Sight, layer: int | None) -> int | None:
        """Return which of the deepstack's layers a layer is."""
        return sight.deepstack.index(layer) if layer in sight.deepstack else None

    def placed(self, hf_name: str, sight: Sight, layer: int | None) -> str:
        return hf_name

    def config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        return config

    def ignores(self, hf_name: str, sight: Sight) -> bool:
        """Tell whether a tensor of a checkpoint is none of the tower's."""
        return not hf_name.startswith(self.prefixes)

    def renamed(self, hf_name: str) -> str:
        """Return a checkpoint's name as the table calls it: layouts of several ages differ."""
        for old, new in self.renames.items():
            if old in hf_name and (new in old or new not in hf_name):
                hf_name = hf_name.replace(old, new)
        return hf_name

    def check(self, gguf: Any, sight: Sight) -> None:
        """Raise ModelError where a tensor of ``gguf`` is missing, unknown or of another shape."""
        known = set()
        for name, row, layer in self.rows(sight):
            known.add(name)
            found = gguf.tensors.get(name)
            if found is None:
                if not row.optional:
                    raise ModelError(f"the file has no tensor {name}")
                continue
            want = self.shape(row, sight, layer)
            if tuple(int(n) for n in found.shape) != want:
                raise ModelError(f"tensor {name} has shape {tuple(found.shape)}, not {want}")
        unknown = [n for n in gguf.tensors if n not in known and n.startswith(("v.", "mm."))]
        unknown = [n for n in unknown if not n.startswith("mm.a.")]  # of sounds
        if unknown:
            what = f"tensor {printable(unknown[0])} is not one that {self.projector} has"
            raise ModelError(f"{what}: it would not be used")


def cut(pixels: np.ndarray, patch: int) -> np.ndarray:
    """Return the patches of a picture, row by row, float32 (n, 3 patch**2): colour, row, column."""
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    whole = pixels[:, : rows * patch, : columns * patch]
    parts = whole.reshape(3, rows, patch, columns, patch).transpose(1, 3, 0, 2, 4)
    return np.ascontiguousarray(parts.reshape(rows * columns, -1), np.float32)


def scaled(ratio: Any) -> int:
    """Return the whole number that ``ratio``, such as 0.5, is one over; ModelError for others."""
    if not isinstance(ratio, (int, float)) or not 0 < ratio <= 1 or round(1 / ratio) * ratio != 1:
        raise ModelError(f"config.json: downsample_ratio is {printable(repr(ratio), 40)}")
    return round(1 / ratio)
