"""What a folder holds besides a model: sentence-transformers' modules, prompts, a reranker's marks.

modules.json and the folders that it lists say how hidden states become a text's vector. Nothing is
run: modules that ggq has no counterpart for are refused by name. It knows no architecture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ggq.errors import FormatError, ModelError, printable
from ggq.models import class_names
from ggq.models.pooled import ANSWERS, DENSE, POOLING

__all__ = [
    "DENSE_FILE",
    "RERANK_TEMPLATE",
    "dense_folders",
    "lengths",
    "prompts",
    "settings",
    "warnings",
]

ReadJson = Callable[[Path], dict[str, Any]]
MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
DENSE_FILE = "model.safetensors"
MAX_DENSE = 2
POOLING_NAMES = {  # sentence-transformers' names, new and old
    1: ("mean", "pooling_mode_mean_tokens"),
    2: ("cls", "pooling_mode_cls_token"),
    3: ("lasttoken", "pooling_mode_lasttoken"),
}
KINDS = ("Pooling", "Dense", "Normalize", "LogitScore")
ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh"}
RERANKER_MARK = "qwen3-reranker"  # in the names of the models that answer with yes or no
RERANKER_CLASS = "Qwen3ForCausalLM"
MAX_CARD = 1_000_000
# How Qwen3-Reranker is asked: Qwen's model card says so, and scores are good for no other text.
RERANK_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that "
    "answer the query\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def settings(folder: Path, config: Mapping[str, Any], read: ReadJson) -> dict[str, Any]:
    """Return what stands beside config.json's settings; ``read`` returns a JSON object or {}.

    FormatError, ModelError: a module, or a way of pooling, that files cannot say.
    """
    modules = list(_modules(folder))
    found: dict[str, Any] = {}
    for kind, path in modules:
        if kind == "Pooling":
            found[POOLING] = _pooling(path / "config.json", read(path / "config.json"))
    if dense := [_dense(p / "config.json", read(p / "config.json")) for p in dense_folders(folder)]:
        found[DENSE] = dense
    if answers := _answers(folder, config, read):
        found[ANSWERS] = answers
    elif any(kind == "LogitScore" for kind, _ in modules):
        raise ModelError(f"{MODULES}: LogitScore is converted of Qwen3-Reranker only")
    return found


def lengths(folder: Path, config: Mapping[str, Any], read: ReadJson) -> list[str]:
    """Return how texts have to be given for the vectors that sentence-transformers makes."""
    name, notes = "sentence_bert_config.json", []
    said = read(folder / name)
    longest, positions = said.get("max_seq_length"), config.get("max_position_embeddings")
    if isinstance(longest, int) and isinstance(positions, int) and 0 < longest < positions:
        what = f"{name}: sentence-transformers cuts texts to {longest} tokens, ggq does not"
        notes.append(f"{what}: load with n_ctx={longest} and embed with truncate=True for that")
    lowers = read(folder / "tokenizer_config.json").get("do_lower_case") is True
    if said.get("do_lower_case") is True and not lowers:
        notes.append(f"{name}: do_lower_case is true: give texts in lower case")
    return notes


def _modules(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (kind, folder) of the modules after the model itself; ModelError for another kind."""
    listed = folder / MODULES
    if not listed.is_file():
        for path in sorted(folder.glob("[0-9]*_Pooling/config.json")):
            yield "Pooling", path.parent
        return
    try:
        entries = json.loads(listed.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise FormatError(f"{printable(listed)}: is not JSON") from None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise FormatError(f"{printable(listed)}: is no list of modules")
    for number, entry in enumerate(entries):
        name, path = str(entry.get("type")), entry.get("path")
        kind = name.rpartition(".")[2]
        if number == 0:  # the model itself, of sentence-transformers' class or its own
            continue
        if kind not in KINDS:
            raise ModelError(f"{MODULES}: a module {printable(name)} is not converted")
        if not isinstance(path, str) or Path(path).name != path or path in ("", ".", ".."):
            raise FormatError(f"{MODULES}: path {printable(repr(path))} is no folder's name")
        yield kind, folder / path


def dense_folders(folder: Path) -> list[Path]:
    """Return the folders of the dense layers that follow pooling, in their order."""
    found = [path for kind, path in _modules(folder) if kind == "Dense"]
    if len(found) > MAX_DENSE:
        raise ModelError(f"{MODULES}: {len(found)} dense layers, up to {MAX_DENSE} are converted")
    return found


def _pooling(path: Path, said: Mapping[str, Any]) -> int:
    """Return llama.cpp's number of a way of pooling; FormatError."""
    modes = [k for k, on in said.items() if k.startswith("pooling_mode_") and on is True]
    if said.get("include_prompt") is False:
        raise FormatError(f"{printable(path)}: include_prompt false is not supported")
    for number, names in POOLING_NAMES.items():
        if said.get("pooling_mode") == names[0] or modes == [names[1]]:
            return number
    what = "only mean, cls and lasttoken pooling are supported, one of them"
    raise FormatError(f"{printable(path)}: {what}")


def _dense(path: Path, said: Mapping[str, Any]) -> list[Any]:
    """Return [columns in, columns out, activation] of a dense layer; FormatError, ModelError."""
    sizes = [said.get("in_features"), said.get("out_features")]
    if not all(type(n) is int and 0 < n < 1 << 20 for n in sizes):
        raise FormatError(f"{printable(path)}: no in_features and out_features")
    name = str(said.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = ACTIVATIONS.get(name.rpartition(".")[2])
    if activation is None:
        raise ModelError(f"{printable(path)}: activation_function {printable(name)}")
    return [*sizes, activation]


def _answers(folder: Path, config: Mapping[str, Any], read: ReadJson) -> list[int] | None:
    """Return the ids of yes and no where the folder is a Qwen3-Reranker, told by its names."""
    if RERANKER_CLASS not in class_names(config)[:1]:
        return None
    hints = (folder.absolute().name, str(config.get("_name_or_path", "")), _card(folder))
    if not any(RERANKER_MARK in hint.lower() for hint in hints):
        return None
    vocab = (read(folder / "tokenizer.json").get("model") or {}).get("vocab")
    named = [vocab.get(name) for name in ("yes", "no")] if isinstance(vocab, dict) else []
    found = [number for number in named if type(number) is int]
    if len(found) != 2:
        raise ModelError("tokenizer.json: a reranker without the tokens yes and no")
    return found


def _card(folder: Path) -> str:
    """Return the headings of README.md."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:MAX_CARD]
    except OSError:
        return ""
    return "\n".join(line for line in text.splitlines() if line.startswith("# "))


def warnings(config: Mapping[str, Any]) -> list[str]:
    """Return what of a folder no file will hold, in words."""
    tasks = config.get("lora_adaptations")
    if not isinstance(tasks, list) or not tasks:
        return []
    named = printable(", ".join(map(str, tasks)), 200)
    return [f"adapters for tasks are left out ({named}): vectors are those without a task"]


def prompts(folder: Path, config: Mapping[str, Any], read: ReadJson) -> dict[str, str]:
    """Return the texts that go before a query, a document and so on, by name.

    "default" is the name of the one to use where none is asked for, if there is one.
    """
    said = read(folder / PROMPTS)
    named = said.get("prompts") or config.get("task_instructions")  # the latter: jina v3
    found = {
        name: text
        for name, text in (named.items() if isinstance(named, Mapping) else ())
        if isinstance(name, str) and isinstance(text, str) and name and text
    }
    default = said.get("default_prompt_name")
    if isinstance(default, str) and default in found:
        found["default"] = found[default]
    return found
