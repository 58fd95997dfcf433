"""The file types that ggq writes: base block types and llama.cpp's rules for the other tensors.

It knows no tensor: ggq.quants.mixtures applies the rules. A file type without rules for other
tensors is declared by its block type. Source: llama.cpp's src/llama-quant.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ggq import quants

__all__ = ["ALIASES", "FALCON", "FILE_TYPES", "FileType"]


class FileType(NamedTuple):
    """A file type: its name, what ``general.file_type`` says, base block type, rules by category.

    A rule list holds (condition, block type) pairs; the first that holds wins; none: the base.
    """

    name: str
    number: int
    base: str
    rules: Mapping[str, tuple[tuple[str, str], ...]] = {}
    recommended: bool = False  # whether `ggq recommend` may name it


def _rules(**rules: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Read "condition:TYPE condition:TYPE" per category."""

    def pair(rule: str) -> tuple[str, str]:
        condition, _, chosen = rule.partition(":")
        return condition, chosen

    return {k: tuple(pair(r) for r in v.split()) for k, v in rules.items()}


def _two_bits(better: str, attn_output: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return the rules of the types around two bits: what matters most takes ``better``."""
    return _rules(
        output="always:Q5_K",
        token_embd=f"always:{better}",
        v=f"gqa_4:Q4_K four_experts:Q4_K always:{better}",
        attn_k="eight_experts:Q4_K",
        ffn_down=f"first_8th:{better}",
        attn_output=f"eight_experts:Q5_K always:{attn_output}",
    )


_MIXTURES = (
    FileType(
        "Q5_K_M",
        17,
        "Q5_K",
        _rules(v="more_bits:Q6_K", ffn_down="more_bits:Q6_K"),
        recommended=True,
    ),
    FileType("Q5_K_S", 16, "Q5_K", recommended=True),
    FileType("Q5_0", 8, "Q5_0", _rules(ffn_down="imatrix_first_8th:Q5_1")),
    FileType(
        "Q4_K_M",
        15,
        "Q4_K",
        _rules(v="more_bits:Q6_K", ffn_down="more_bits:Q6_K"),
        recommended=True,
    ),
    FileType(
        "Q4_K_S", 14, "Q4_K", _rules(v="first_4:Q5_K", ffn_down="first_8th:Q5_K"), recommended=True
    ),
    FileType("Q4_0", 2, "Q4_0", _rules(ffn_down="imatrix_first_8th:Q4_1")),
    FileType(
        "Q3_K_L",
        13,
        "Q3_K",
        _rules(v="always:Q5_K", ffn_down="always:Q5_K", attn_output="always:Q5_K"),
        recommended=True,
    ),
    FileType(
        "Q3_K_M",
        12,
        "Q3_K",
        _rules(
            v="first_2:Q5_K always:Q4_K",
            ffn_down="first_16th:Q5_K always:Q4_K",
            attn_output="always:Q4_K",
        ),
        recommended=True,
    ),
    FileType("Q3_K_S", 11, "Q3_K", recommended=True),
    FileType(
        "Q2_K",
        10,
        "Q2_K",
        _rules(v="gqa_4:Q4_K always:Q3_K", ffn_down="always:Q3_K", attn_output="always:Q3_K"),
        recommended=True,
    ),
    FileType("Q2_K_S", 21, "Q2_K", _rules(v="gqa_4:Q4_K", ffn_down="first_8th:Q4_K")),
    FileType("IQ4_NL", 25, "IQ4_NL", _rules(v="gqa_4:Q5_K", ffn_down="plain_first_8th:Q5_K")),
    FileType("IQ4_XS", 30, "IQ4_XS", _rules(v="gqa_4:Q5_K", ffn_down="plain_first_8th:Q5_K")),
    FileType(
        "IQ3_M",
        27,
        "IQ3_S",
        _rules(
            v="always:Q4_K",
            ffn_down="first_8th:Q4_K eight_experts_more_bits:Q4_K",
            attn_output="always:Q4_K",
        ),
    ),
    FileType("IQ3_S", 26, "IQ3_S", _rules(v="gqa_4:Q4_K")),
    FileType(
        "IQ3_XS",
        22,
        "IQ3_S",
        _rules(
            v="gqa_4:Q4_K",
            attn_k="always:IQ3_XXS",
            attn_q="always:IQ3_XXS",
            ffn_gate="middle:IQ3_XXS",
            ffn_up="middle:IQ3_XXS",
        ),
    ),
    FileType(
        "IQ3_XXS",
        23,
        "IQ3_XXS",
        _rules(
            output="always:Q5_K",
            token_embd="always:IQ3_S",
            v="gqa_4:Q4_K plain:IQ3_S",
            attn_k="always:IQ2_S",
            attn_q="always:IQ2_S",
            ffn_down="plain_first_8th:Q4_K plain:Q3_K",
            attn_output="always:IQ3_S",
        ),
    ),
    FileType("IQ2_M", 29, "IQ2_S", _two_bits("IQ3_S", "IQ3_S")),
    FileType("IQ2_S", 28, "IQ2_XS", _two_bits("IQ3_S", "IQ3_S")),
    FileType("IQ2_XS", 20, "IQ2_XS", _two_bits("Q2_K", "IQ2_XS")),
    FileType("IQ2_XXS", 19, "IQ2_XXS", _two_bits("Q2_K", "IQ2_XXS")),
    FileType("IQ1_M", 31, "IQ1_M", _two_bits("Q2_K", "IQ2_XXS")),
    FileType("IQ1_S", 24, "IQ1_S", _two_bits("Q2_K", "IQ2_XXS")),
    FileType("TQ1_0", 36, "TQ1_0", _rules(token_embd="always:Q4_K")),
    FileType("TQ2_0", 37, "TQ2_0", _rules(token_embd="always:Q4_K")),
    FileType("MXFP4_MOE", 38, "MXFP4"),
)


def _all() -> dict[str, FileType]:
    """Return mixtures and the block types that are a file type each, most bits first."""
    kinds = {kind.name: kind for kind in quants.all()}
    alone = [
        FileType(kind.name, kind.file_type, kind.name, recommended=kind.recommended)
        for kind in kinds.values()
        if kind.file_type is not None
    ]
    ordered = sorted((*alone, *_MIXTURES), key=lambda t: -kinds[t.base].bits_per_weight)
    return {t.name: t for t in ordered}


FILE_TYPES = _all()
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}
FALCON = {
    "Q2_K": _rules(attn_output=""),
    "Q3_K_M": _rules(ffn_down="first_16th:Q5_K more_bits:Q4_K", attn_output=""),
    "Q3_K_L": _rules(ffn_down="always:Q4_K", attn_output="always:Q4_K"),
    "IQ3_XXS": _rules(attn_output=""),
    "IQ3_M": _rules(attn_output=""),
    "Q4_K_M": _rules(ffn_down="first_16th:Q6_K more_bits:Q5_K"),
    "Q4_K_S": _rules(ffn_down=""),
}
