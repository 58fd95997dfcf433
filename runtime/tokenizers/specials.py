"""Names by which special tokens are known: which end a turn, which are controls.

Facts about published vocabularies, collected from llama.cpp's llama-vocab.cpp; GGUF files rarely
carry them as keys. It does not know how text is split.
"""

from __future__ import annotations

from collections.abc import Mapping

# Tokens after which generation stops, under any key.
END_OF_GENERATION = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
    "<｜end▁of▁sentence｜>", "[e~[",
)  # fmt: skip

# Fill-in-the-middle markers; the last three end generation, too.
FILL_IN_THE_MIDDLE = {
    "fim_pre_token_id": (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
        "<|code_prefix|>", "<|prefix|>",
    ),
    "fim_suf_token_id": (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
        "<|code_suffix|>", "<|suffix|>",
    ),
    "fim_mid_token_id": (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
        "<|code_middle|>", "<|middle|>",
    ),
    "fim_pad_token_id": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep_token_id": (
        "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>",
    ),
    "fim_sep_token_id": ("<|file_sep|>",),
}  # fmt: skip
FILL_IN_THE_MIDDLE_ENDS = ("fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id")

# Controls of the harmony format that carry its structure: shown to whoever parses the answer.
HARMONY_STRUCTURE = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


def end_names(ids: Mapping[str, int]) -> set[str]:
    """Return the names in vocabulary ``ids`` that end generation.

    Harmony and Solar end each channel with <|end|>, so it does not end their answers; for Gemma 4
    and PLaMo </s> is text (llama.cpp, llama_vocab::impl::load).
    """
    names = {name for name in END_OF_GENERATION if name in ids}
    calls = names & {"<|call|>", "<|calls|>"}
    if calls and names & {"<|return|>", "<|flush|>"}:
        names.discard("<|end|>")
    if "<|tool_response>" in names or "<|plamo:eos|>" in ids:
        names.discard("</s>")
    return names


def strip_rules(
    general_name: str, architecture: str, pre: str, ids: Mapping[str, int], specials: list[int]
) -> tuple[set[int], set[int]]:
    """Return the ids that swallow the white space before them, and those that swallow it after.

    GGUF has no key for it; llama.cpp goes by the names of the models, and so do we.
    """
    name = general_name.lower()
    bert_like = pre.startswith("jina-v2-") and pre != "jina-v2-en"
    if bert_like or architecture in ("nomic-bert-moe", "jina-bert-v3"):
        return {ids["<mask>"]} if "<mask>" in ids else set(), set()
    if "phi-3" in name or "phi3" in name:
        kept = {ids.get(t) for t in ("<unk>", "<s>", "<|endoftext|>")}
        extra = {ids["</s>"]} if "</s>" in ids else set()
        return set(), (set(specials) | extra) - kept
    if "modern-bert" in name and "[MASK]" in ids:
        return {ids["[MASK]"]}, set()
    return set(), set()
