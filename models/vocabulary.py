"""What an architecture settles about its tokenizer where its files leave it open, as data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LLAMA_VOCAB", "Vocabulary"]


@dataclass(frozen=True)
class Vocabulary:
    """The rules of llama.cpp's converter that go by architecture and not by the tokenizer's files.

    ``family``: the ``tokenizer.ggml.model`` made of tokenizer.json where it is not the one that
    the files show. ``states_prefix``: ``add_prefix_space`` of tokenizer_config.json is meant.
    ``no_bos_sizes``: vocabularies of these sizes begin no text with BOS, whatever the files say.
    ``counts_types``: files say how many kinds of parts a text has.
    """

    family: str | None = None
    states_prefix: bool = False
    no_bos_sizes: tuple[int, ...] = ()
    counts_types: bool = False


# Models that llama.cpp converts with llama's rules; the size is SmolLM's and Granite's.
LLAMA_VOCAB = Vocabulary(states_prefix=True, no_bos_sizes=(49152,))
