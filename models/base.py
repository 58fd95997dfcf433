"""What an architecture is: keys, tensors, layers and graph, for converter and runtime alike.

It knows no tensor values, no back end and no file: a source is an HF config (a mapping) or an
object with the ``metadata`` and ``tensors`` of a GGUF file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, ClassVar

from ggq.errors import ModelError, printable
from ggq.models import ledger, pooled
from ggq.models.hparams import HParams, check
from ggq.models.layers import next_n
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.rope import FACTORS, yarn_as_factors
from ggq.models.table import MAX_LAYERS, Key, Tensor, checked_value, config_value
from ggq.models.vocabulary import Vocabulary
from ggq.models.wrappers import FOREIGN, left_out

__all__ = ["Architecture"]

ORIGINAL = "original_max_position_embeddings"
PREFIXES = ("", "language_model.", "model.language_model.", "model.text_model.")
IGNORED_SUFFIXES = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")


class Architecture:
    """One architecture: subclasses fill the class attributes, declare layers and a graph."""

    name: ClassVar[str] = ""
    hf_classes: ClassVar[tuple[str, ...]] = ()
    hf_model_type: ClassVar[str] = ""
    exports: ClassVar[bool] = True  # whether the tables read backwards give the HF folder again
    keys: ClassVar[tuple[Key, ...]] = ()
    tensors: ClassVar[tuple[Tensor, ...]] = ()
    config_defaults: ClassVar[Mapping[str, Any]] = {}  # what the HF config class fills in by itself
    hf_base: ClassVar[str] = "model."  # what its names lack in a checkpoint of the bare model
    heads_in: ClassVar[str | None] = None  # where a checkpoint has layers that predict further on
    heads_normed: ClassVar[bool] = True  # whether heads read the last states normed, as they end
    hf_prefixes: ClassVar[tuple[str, ...]] = PREFIXES
    aliases: ClassVar[Mapping[str, str]] = {}  # parts of names -> what some checkpoints call them
    vocab: ClassVar[Vocabulary] = Vocabulary()
    classifier: ClassVar[tuple[Tensor, ...]] = pooled.SCORE  # rows of its ForSequenceClassification
    classifier_act: ClassVar[str] = "tanh"  # after the classifier's hidden layer, where it has one
    # The ledger of config.json (ledger.py): settings that the graph has one value for, settings
    # that are used without a key or known to say nothing, the rotations that a file can say.
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {"hidden_act": ledger.SILU}
    reads: ClassVar[tuple[str, ...]] = ()
    rope_types: ClassVar[tuple[str, ...]] = ledger.ROPE_TYPES
    rope_reads: ClassVar[tuple[str, ...]] = ()
    rope_truncates: ClassVar[bool] = True  # yarn mixes whole pairs, transformers' default
    peer_factors: ClassVar[tuple[str, ...]] = ()  # stored rotations that llama.cpp loads here
    peer_lacks: ClassVar[tuple[str, ...]] = ()  # how tensors' names end that it has not

    def layer(self, values: Values, i: int) -> Layer:
        """Return layer ``i`` of the model whose keys say ``values``."""
        raise NotImplementedError(self.name)

    def head(self, values: Values, i: int) -> Layer:
        """Return the head numbered ``i``, behind the layers: one of the model's own kind."""
        return next_n.as_head(self.layer(values, i))

    def count_heads(self, config: Mapping[str, Any], names: Iterable[str]) -> int:
        """Return how many heads a checkpoint with tensors of these ``names`` holds."""
        if self.heads_in is None:
            return 0
        return next_n.counted(names, self.heads_in, self._first_head(config))

    def of_head(self, config: Mapping[str, Any], name: str) -> bool:
        """Tell whether a checkpoint's tensor is a layer's of a head."""
        return next_n.number(name, self.heads_in or next_n.LAYERS) >= self._first_head(config)

    def _first_head(self, config: Mapping[str, Any]) -> int:
        return (
            int(self.config(config)["num_hidden_layers"]) if self.heads_in == next_n.LAYERS else 0
        )

    def forward(self, ops: Any, hp: HParams) -> Any:
        """Record one evaluation on ``ops``; return the logits, (n_gathered, n_vocab) f32."""
        raise NotImplementedError(self.name)

    def predict(self, ops: Any, hp: HParams) -> Any:
        """Record a head's evaluation (`ggq.models.heads`); return its logits."""
        raise NotImplementedError(self.name)

    def complete(self, values: Values) -> None:
        """Add to ``values`` what this architecture fixes in code or makes of several keys."""

    def suits(self, config: Mapping[str, Any]) -> bool:
        """Tell whether a config of one of these classes is this one, where several share it."""
        return True

    def observe(self, values: Values, source: Any) -> None:
        """Add to ``values`` what no key says: ``source`` is a flat config or has ``tensors``."""

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        """Yield (setting, its value, why not) of settings that only together are none of ours."""
        return iter(())

    def metadata(self, config: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
        """Return (GGUF key, value, type) of every key ``config`` gives; ModelError if one lacks."""
        config = self.config(config)
        found = []
        for key in self.keys:
            value = config_value(config, key)
            name = key.gguf.format(arch=self.name)
            if value is not None:
                found.append((name, checked_value(name, value, key.type), key.type))
            elif key.required:
                raise ModelError(f"config.json has no {printable(' or '.join(key.hf))} ({name})")
        return found

    def export_config(self, hp: HParams) -> dict[str, Any]:
        """Return what config.json needs beyond the key table and the usual settings.

        None takes one of these out, and is written where none of these has the name: some
        classes have another default.
        """
        return {}

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        """Tell whether a checkpoint tensor is left out on purpose: buffers, other modalities."""
        return hf_name.endswith(IGNORED_SUFFIXES) or any(p in hf_name for p in FOREIGN)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``config`` flat: text_config merged, defaults filled, ``rope_parameters`` made."""
        text = config.get("text_config")
        flat = dict(config)
        if isinstance(text, Mapping):
            flat = {**left_out(text), **config, **text}
        for name, value in self.config_defaults.items():
            if flat.get(name) is None:
                flat[name] = value
        rope = flat.get("rope_parameters") or flat.get("rope_scaling")
        rope = dict(rope) if isinstance(rope, Mapping) else {}
        nested = False
        if isinstance(rope.get("full_attention"), Mapping):  # one set per kind of layer
            local = rope.get("sliding_attention")
            flat["rope_local"] = dict(local) if isinstance(local, Mapping) else {}
            rope, nested = dict(rope["full_attention"]), True
        rope.setdefault("rope_type", rope.get("type"))
        if rope["rope_type"] == "su":  # an older name
            rope["rope_type"] = "longrope"
        for name in ("rope_theta", "partial_rotary_factor"):
            if rope.get(name) is None and flat.get(name) is not None:
                rope[name] = flat[name]
        if rope and flat.get(ORIGINAL) is not None:  # transformers lets it win over rope's own
            rope[ORIGINAL] = flat[ORIGINAL]
        if rope.get("rope_type") in ledger.SPANNING:  # what transformers takes where none is given
            rope.setdefault(ORIGINAL, flat.get("max_position_embeddings"))
        if not nested:  # where transformers does not read `truncate`
            yarn_as_factors(rope, self.rope_truncates)
        if all(row.gguf != "output.weight" for row in self.tensors):
            flat["tie_word_embeddings"] = True  # the class knows no other head
        flat["rope_parameters"] = {k: v for k, v in rope.items() if v is not None}
        return flat

    def hparams(self, source: Any) -> HParams:
        """Return the hyper-parameters of an HF config (mapping) or a GGUFFile; ModelError."""
        if isinstance(source, Mapping):
            ledger.check(self, source, self.config(source))
        read = self._values_hf if isinstance(source, Mapping) else self._values_gguf
        values = Values(self.name, read(source))
        self.observe(values, self.config(source) if isinstance(source, Mapping) else source)
        for key in self.keys:
            if key.attr and values.get(key.attr) is None and key.default is not None:
                values[key.attr] = key.default
        n_head = self._count_heads(values, source)
        self.complete(values)
        values["readout"] = pooled.Readout.of(values)
        n_layer = values["n_layer"]
        if not 0 < n_layer <= MAX_LAYERS:
            what = f"is {n_layer}" if n_layer < 1 else f"{n_layer} is above {MAX_LAYERS}"
            raise ModelError(f"{self.name}: block count {what}")
        values["layers"] = tuple(self.layer(values, i) for i in range(n_layer))
        values["heads"] = tuple(self.head(values, n_layer + j) for j in range(n_head))
        values["n_head"] = values.first("n_head")
        n_head_kv = values.first("n_head_kv")
        values["n_head_kv"] = values["n_head"] if n_head_kv is None else n_head_kv
        names = {f.name for f in fields(HParams)}
        known = {k: v for k, v in values.items() if k in names and v is not None}
        lacking = sorted({f.name for f in fields(HParams) if _needed(f)} - {"arch", *known})
        if lacking:
            raise ModelError(f"{self.name}: nothing says {', '.join(lacking)}")
        hp = HParams(arch=self.name, **known)
        check(hp)
        return hp.for_context(hp.n_ctx_train)

    def _count_heads(self, values: Values, source: Any) -> int:
        """Take the heads out of the number of layers; return how many the source holds."""
        said: int = min(values.get("n_nextn") or 0, values["n_layer"])
        values["n_layer"] -= said
        if self.heads_in is None:
            return 0
        if isinstance(source, Mapping):
            return said
        return next_n.stored(source, values["n_layer"], said)

    def _values_hf(self, config: Mapping[str, Any]) -> dict[str, Any]:
        by_name = {name: value for name, value, _ in self.metadata(config)}
        values: dict[str, Any] = {}
        for key in self.keys:
            if key.attr and values.get(key.attr) is None:
                values[key.attr] = by_name.get(key.gguf.format(arch=self.name))
        if values.get("n_vocab") is None:
            values["n_vocab"] = self.config(config).get("vocab_size")
        values["answers"] = tuple(config.get(pooled.ANSWERS) or ())
        return values

    def _values_gguf(self, source: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key in self.keys:
            name = key.gguf.format(arch=self.name)
            if key.attr and values.get(key.attr) is None and name in source.metadata:
                values[key.attr] = checked_value(name, source.metadata[name], key.type)
            elif key.required and name not in source.metadata:
                raise ModelError(f"the file has no key {name}")
        embedding = source.tensors.get("token_embd.weight")
        if embedding is not None and len(embedding.shape) == 2:
            values["n_vocab"] = int(embedding.shape[0])
        elif values.get("n_vocab") is None:
            values["n_vocab"] = len(source.metadata.get("tokenizer.ggml.tokens", ()))
        scores = source.tensors.get("cls.output.weight")
        if scores is not None and not values.get("labels"):
            if (n_labels := int(scores.shape[0])) != 1:
                lacks = f"{self.name}.classifier.output_labels"
                raise ModelError(f"a classifier of {n_labels} labels without the key {lacks}")
            values["labels"] = ("LABEL_0",)
        elif scores is None:
            values["labels"] = ()
        return values

    def rows(self, hp: HParams) -> Iterator[tuple[str, Tensor, int | None]]:
        """Yield (GGUF name, table row, layer or None) of every tensor a file may hold."""
        own = {row.gguf for row in self.tensors}
        stored = [row for row in FACTORS if row.gguf not in own] if hp.rope is not None else []
        for row in (*self.tensors, *stored):
            if hp.readout.answers and row.gguf == "output.weight":
                continue  # two of its rows are all that a reranker needs
            if not row.per_layer and (row.part is None or hp.find(row.part) is not None):
                yield row.gguf, row, None
        for row in pooled.pooled_rows(self.classifier, hp):
            yield row.gguf, row, None
        for i, layer in enumerate(hp.blocks):
            for row in self.tensors:
                if row.per_layer and _exists(row, layer):
                    yield row.gguf.format(i=i), row, i

    def shape(self, row: Tensor, hp: HParams, layer: int | None) -> tuple[int, ...]:
        """Return the tensor's shape, rows first and row length last, as the file must have it."""
        return tuple(hp.dim(name, layer) for name in row.shape)

    def sources(self, row: Tensor, hp: HParams, layer: int | None) -> list[str]:
        """Return the HF names (without prefix) that make this tensor, experts in order."""
        experts = range(hp.n_expert) if any("{e}" in p for p in row.hf) else (0,)
        names = (p.format(i=layer, e=e) for e in experts for p in row.hf)
        return [self.placed(name, hp, layer) for name in names]

    def placed(self, hf_name: str, hp: HParams, layer: int | None) -> str:
        """Return a name of layer ``layer`` as a checkpoint has it: heads may lie elsewhere."""
        return hf_name

    def roles(self, hp: HParams) -> dict[str, str]:
        """Return GGUF name -> role in mixtures of every tensor a file may hold."""
        return {name: row.role for name, row, _ in self.rows(hp)}

    def check(self, gguf: Any, hp: HParams) -> None:
        """Raise ModelError where a tensor of ``gguf`` is missing or its shape is not ``hp``'s."""
        for name, row, layer in self.rows(hp):
            found = gguf.tensors.get(name)
            if found is None:
                if not row.optional:
                    raise ModelError(f"the file has no tensor {name}")
                continue
            want = self.shape(row, hp, layer)
            if tuple(int(n) for n in found.shape) != want:
                raise ModelError(
                    f"tensor {name} has shape {tuple(found.shape)}, the model needs {want}"
                )


def _exists(row: Tensor, layer: Layer) -> bool:
    """Tell whether ``layer`` has the part that the row is of, and that part such a tensor."""
    if row.part is None:
        return True
    part = layer.find(row.part)
    return part is not None and all(part.dims.get(name) != 0 for name in row.shape)


def _needed(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
