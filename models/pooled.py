"""What a file has besides a model of next tokens: pooling, dense layers, a classifier.

Keys and rows that stand beside every architecture's own, and what config.json says of them. It
knows no graph and no values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from ggq.errors import ModelError, printable
from ggq.models.table import Key, Tensor

__all__ = [
    "ANSWERS",
    "DENSE",
    "POOLED_KEYS",
    "POOLING",
    "POOLINGS",
    "RANK",
    "SCORE",
    "YES_NO",
    "Readout",
    "classifier_rows",
    "classifies",
    "dense_rows",
    "is_bare",
    "labels",
]

POOLINGS = ("none", "mean", "cls", "last", "rank")  # in the order of llama.cpp's numbers
RANK = POOLINGS.index("rank")
# What the converter reads from other files of a folder and puts beside config.json's settings:
POOLING = "sentence_transformers_pooling"  # llama.cpp's number
DENSE = "sentence_transformers_dense"  # [in, out, activation] of each layer
ANSWERS = "reranker_answers"  # ids of the tokens yes and no, whose logits a reranker compares
CLASSIFIER = "ForSequenceClassification"
WITH_HEAD = ("LMHeadModel", "ChatGLMModel")  # classes of whole models, whatever the name
YES_NO = ("yes", "no")
MAX_LABELS = 4096


class Dense(NamedTuple):
    """A layer that follows pooling: columns in, columns out, and the function at its end."""

    n_in: int
    n_out: int
    activation: str = "identity"


@dataclass(frozen=True)
class Readout:
    """What a model's states are made into: next tokens, a text's vector, a text's scores.

    ``labels``: of a classifier, in the order of its scores, none where the model is no classifier;
    ``answers``: the tokens whose rows of the head a reranker's classifier is made of;
    ``logit_scale``: what logits are multiplied by, ``final_softcap``: where tanh bends them.
    """

    output_head: bool = True
    pooling: int = 1
    classifier_pooling: int | None = None
    labels: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()
    dense: tuple[Dense, ...] = ()
    logit_scale: float | None = None
    final_softcap: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Readout:
        """Return what the keys' ``values`` say."""
        dense = []
        for number in (2, 3):
            n_in, n_out = values.get(f"dense_{number}_in"), values.get(f"dense_{number}_out")
            if n_in and n_out:
                dense.append(Dense(n_in, n_out, values.get(f"dense_{number}_act") or "identity"))
        names = {field.name for field in fields(cls)} - {"dense"}
        said = {k: v for k, v in values.items() if k in names and v is not None}
        return cls(dense=tuple(dense), **said)


def _class(config: Mapping[str, Any]) -> str:
    classes = config.get("architectures")
    first = classes[0] if isinstance(classes, (list, tuple)) and classes else ""
    return first if isinstance(first, str) else ""


def classifies(config: Mapping[str, Any]) -> bool:
    """Tell whether the model gives a whole text's scores: a classifier or a reranker."""
    return _class(config).endswith(CLASSIFIER) or bool(config.get(ANSWERS))


def is_bare(config: Mapping[str, Any]) -> bool:
    """Tell whether a decoder comes without its output head: XModel instead of XForCausalLM."""
    name = _class(config)
    return name.endswith("Model") and not name.endswith(WITH_HEAD)


def labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return a classifier's labels, by number; None where the model is none. ModelError."""
    if config.get(ANSWERS):
        return YES_NO
    if not classifies(config):
        return None
    named, count = config.get("id2label"), config.get("num_labels")
    if isinstance(named, Mapping) and named:
        try:
            numbers = sorted((int(k), str(v)) for k, v in named.items())
        except ValueError:
            numbers = []
        if [n for n, _ in numbers] != list(range(len(named))):
            raise ModelError(f"config.json: id2label is {printable(repr(named), 60)}, no numbering")
        return tuple(text for _, text in numbers)
    count = 2 if count is None else count  # transformers' default, which it does not write
    if not isinstance(count, int) or not 0 < count <= MAX_LABELS:
        raise ModelError(f"config.json: num_labels is {printable(repr(count))}")
    return tuple(f"LABEL_{i}" for i in range(count))


def _pooling(config: Mapping[str, Any]) -> int | None:
    if classifies(config):
        return RANK
    number: int | None = config.get(POOLING)
    return number


def _classifier_pooling(config: Mapping[str, Any]) -> int | None:
    said = config.get("classifier_pooling")
    if said is None or not classifies(config):
        return None
    if said not in ("cls", "mean"):
        raise ModelError(f"config.json: classifier_pooling is {printable(repr(said))}: cls or mean")
    return POOLINGS.index(said)


def _headless(config: Mapping[str, Any]) -> bool | None:
    """Return False where no head follows and the embedding is not one, None where one does."""
    lacks = is_bare(config) or classifies(config)
    return False if lacks and config.get("tie_word_embeddings") is not True else None


def _dense_key(number: int, side: str) -> Key:
    def derive(config: Mapping[str, Any]) -> Any:
        listed = config.get(DENSE) or ()
        at = {"in": 0, "out": 1}[side]
        return listed[number - 2][at] if len(listed) > number - 2 else None

    return Key(f"{{arch}}.dense_{number}_feat_{side}", (), f"dense_{number}_{side}", derive=derive)


def _activation_key(number: int) -> Key:
    def derive(config: Mapping[str, Any]) -> Any:
        listed = config.get(DENSE) or ()
        said = listed[number - 2][2] if len(listed) > number - 2 else "identity"
        return None if said == "identity" else said

    return Key(f"ggq.dense_{number}.activation", (), f"dense_{number}_act", "str", derive=derive)


POOLED_KEYS = (
    Key("{arch}.pooling_type", (), "pooling", derive=_pooling),
    Key("{arch}.classifier.output_labels", (), "labels", "strs", derive=labels),
    Key("{arch}.classifier.pooling_type", (), "classifier_pooling", derive=_classifier_pooling),
    Key("ggq.output_head", (), "output_head", "bool", default=True, derive=_headless),
    *(_dense_key(n, side) for n in (2, 3) for side in ("in", "out")),
    *(_activation_key(n) for n in (2, 3)),
)


def _row(gguf: str, hf: str, shape: tuple[str, ...], **more: Any) -> Tensor:
    # small, and what is done with them is not: they stay float32 in every file type
    return Tensor(gguf, (hf,), shape, role="kept", f32=True, **{"optional": True, **more})


def classifier_rows(
    output: tuple[str, ...], hidden: tuple[str, ...] = (), norm: str | None = None
) -> tuple[Tensor, ...]:
    """Return the rows of a classifier; names without .weight, a second one where some have that.

    ``hidden``: the layer before the ``output``, which a ``norm`` may follow.
    """
    found = []
    for gguf, names, shape in (
        ("cls", hidden, ("embd", "embd")),
        ("cls.output", output, ("labels", "embd")),
    ):
        for kind in ("weight", "bias") if names else ():
            must = {"optional": not (gguf == "cls.output" and kind == "weight")}
            row = _row(
                f"{gguf}.{kind}", f"{names[0]}.{kind}", shape[: 1 + (kind == "weight")], **must
            )
            other = (f"{names[-1]}.{kind}", "copy") if len(names) > 1 else None
            found.append(replace(row, fused=other))
    if norm:
        found.append(_row("cls.norm.weight", f"{norm}.weight", ("embd",)))
    return tuple(found)


SCORE = classifier_rows(("score",))  # of decoders
ANSWER_ROWS = (
    Tensor(
        "cls.output.weight",
        ("lm_head.weight",),
        ("labels", "embd"),
        transform="answers",
        role="kept",
        f32=True,
        fused=("model.embed_tokens.weight", "answers"),
    ),
)


def pooled_rows(classifier: tuple[Tensor, ...], hp: Any) -> Iterator[Tensor]:
    """Yield the rows that a file has besides its layers: a classifier's, dense layers'."""
    if hp.readout.labels:
        yield from ANSWER_ROWS if hp.readout.answers else classifier
    for number in range(2, 2 + len(hp.readout.dense)):
        yield from dense_rows(number)


def dense_rows(number: int) -> Iterator[Tensor]:
    """Yield the rows of a sentence-transformers' dense layer, counted as its folders are."""
    sizes = f"dense_{number}_out", f"dense_{number}_in"
    source = f"{DENSE}.{number}.linear"
    yield _row(f"dense_{number}.weight", f"{source}.weight", sizes, optional=False)
    yield _row(f"dense_{number}.bias", f"{source}.bias", sizes[:1])
