"""Show what a GGUF file holds: metadata, tensors, types, memory for context.

Prints what ``ggq.gguf.summary`` finds out; it computes nothing itself and runs no model.
"""

import json
from collections.abc import Iterator
from typing import Any

import click

from ggq.errors import GGQError, printable
from ggq.gguf import GGUFFile, open_gguf, spec
from ggq.gguf.summary import plain_value, summarize
from ggq.gguf.units import format_size
from ggq.hub import resolve_model

SECTION = "Files"
ALIASES = ("show",)

TEMPLATE = "tokenizer.chat_template"


@click.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--template", is_flag=True, help="Print only the chat template(s).")
def command(file: str, as_json: bool, tensors: bool, template: bool) -> None:
    """Show metadata, tensors, types and sizes of a GGUF file (shard 1 of a split one).

    FILE: a path, or the name of a fetched model (ggq list).
    """
    with open_gguf(resolve_model(file)) as f:
        if as_json:
            click.echo(json.dumps(_as_json(f), indent=2))
            return
        lines = _template_lines(f) if template else _text_lines(f, tensors)
        for line in lines:
            click.echo(line)


def _as_json(f: GGUFFile) -> dict[str, Any]:
    return {
        **_facts(f),
        "metadata": {
            key: {"type": _type_of(f, key), "value": plain_value(value)}
            for key, value in f.metadata.items()
        },
        "tensor_list": [
            {
                "name": t.name,
                "shape": list(t.shape),
                "type": t.type_name,
                "bytes": t.nbytes,
                "offset": t.offset,
                "shard": t.shard,
            }
            for t in f.tensors.values()
        ],
    }


def _facts(f: GGUFFile) -> dict[str, Any]:
    """Return `summarize`'s facts; of a projector file what it sees with instead of a problem."""
    from ggq.models import vision

    facts = summarize(f)
    if f.metadata.get(spec.KEY_ARCHITECTURE) != vision.CLIP:
        return facts
    facts["problem"] = None
    try:
        tower = vision.of_file(f)
        sight = tower.sight(f)
        tower.check(f, sight)
    except GGQError as error:
        return {**facts, "problem": str(error)}
    names = "projector", "n_layer", "n_embd", "n_head", "patch", "merge", "n_text"
    return {**facts, "projector": {name: getattr(sight, name) for name in names}}


def _eyes_lines(eyes: dict[str, Any] | None) -> Iterator[str]:
    """Yield what a projector file is, and which text models it fits."""
    if eyes is None:
        return
    side = eyes["patch"] * eyes["merge"]
    size = f"{eyes['n_layer']} layers of {eyes['n_embd']} columns, {eyes['n_head']} heads"
    yield f"\nprojector {eyes['projector']}: {size}; a token for {side} x {side} pixels"
    yield f"for text models of that family of {eyes['n_text']} columns (embedding_length)"


def _type_of(f: GGUFFile, key: str) -> str:
    item_type = f.array_type(key)
    if item_type is not None:
        return f"[{spec.VALUE_NAMES[item_type]}]"
    return spec.VALUE_NAMES[f.value_type(key)]


def _template_lines(f: GGUFFile) -> Iterator[str]:
    """Yield the templates line by line, control characters escaped, tabs kept."""
    keys = [key for key in f.metadata if key == TEMPLATE or key.startswith(TEMPLATE + ".")]
    if not keys:
        yield "(no chat template)"
    for key in keys:
        if len(keys) > 1:
            yield f"# {printable(key)}"
        for line in f.get(key, "", str).split("\n"):
            yield "\t".join(printable(part, len(part) * 10 + 1) for part in line.split("\t"))


def _text_lines(f: GGUFFile, tensors: bool) -> Iterator[str]:
    facts = _facts(f)
    shards = f", {facts['shards']} shards" if facts["shards"] > 1 else ""
    yield f"{printable(f.path)}: GGUF v{f.version}, {format_size(facts['bytes'])}{shards}"
    yield from _metadata_lines(f)
    yield from _type_lines(facts)
    yield from _card_lines(f)
    yield from _eyes_lines(facts.get("projector"))
    yield from _projector_lines(f)
    if tensors:
        yield from _tensor_lines(f)
    cache = facts["kv_bytes_per_1k_context"]
    if cache:
        sizes = ", ".join(f"{name} {format_size(size)}" for name, size in cache.items())
        yield f"\nKV cache per 1024 tokens: {sizes}"
    for warning in facts["warnings"]:
        yield f"warning: {warning}"
    if facts["problem"]:
        yield f"problem: {facts['problem']}"


def _metadata_lines(f: GGUFFile) -> Iterator[str]:
    yield f"\n{len(f.metadata)} keys"
    width = max((len(printable(key)) for key in f.metadata), default=0)
    for key, value in f.metadata.items():
        yield f"  {printable(key):{width}}  {_type_of(f, key):6}  {_short(value)}"


def _short(value: Any) -> str:
    plain = plain_value(value, 4)
    if isinstance(plain, dict):
        items = ", ".join(repr(item) for item in plain["first"])
        return printable(f"{plain['length']} items: {items}, ...")
    return printable(plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False))


def _type_lines(facts: dict[str, Any]) -> Iterator[str]:
    count, weights = facts["tensors"], facts["weights"]
    if not count:
        yield "\n0 tensors"
        return
    yield f"\n{count} tensors, {weights:,} weights, {facts['bits_per_weight']:.2f} bits each"
    for name, row in facts["types"].items():
        share, size = f"{row['share']:8.1%} of weights", format_size(row["bytes"])
        yield f"  {name:8}{row['tensors']:6} tensors{share}{size:>12}"


def _projector_lines(f: GGUFFile) -> Iterator[str]:
    """Yield the projector beside a model that would look at pictures for it."""
    from ggq.runtime.engine.projectors import beside

    arch = str(f.metadata.get(spec.KEY_ARCHITECTURE))
    n_embd = f.metadata.get(f"{arch}.embedding_length")
    found = beside(f.path, n_embd, arch) if isinstance(n_embd, int) else None
    if found is not None:
        size = format_size(found.stat().st_size)
        yield f"\nlooks at pictures through {printable(found.name)} ({size}) beside it"


def _card_lines(f: GGUFFile) -> Iterator[str]:
    """Yield what the file says of its distance from the original."""
    if not any(key.startswith("ggq.quality.") for key in f.metadata):
        return
    from ggq.converters.report.card import read_card

    card = read_card(f)
    if card is None:
        yield "\ncard: its keys are another file's, carried over or incomplete"
    elif not card.positions:
        yield "\ncard: nothing was measured, the conversion ended before"
    else:
        yield f"\nagainst the original, as measured by ggq convert --card: {card}"


def _tensor_lines(f: GGUFFile) -> Iterator[str]:
    yield ""
    width = max(len(printable(name)) for name in f.tensors) if f.tensors else 0
    for t in f.tensors.values():
        shape = " x ".join(map(str, t.shape))
        size = format_size(t.nbytes)
        yield f"  {printable(t.name):{width}}  {t.type_name:8}{shape:>18}{size:>12}"
