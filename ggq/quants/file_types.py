"""The file types that ggq writes: base block types and llama.cpp's rules for the other tensors.

It knows no tensor: ggq.quants.mixtures applies the rules. Source: llama.cpp's src/llama-quant.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ggq.gguf.spec import FILE_TYPE_IDS

__all__ = ["ALIASES", "FALCON", "FILE_TYPES", "FileType"]


class FileType(NamedTuple):
    """A file type: its name, base block type and rules by category.

    A rule list holds (condition, block type) pairs; the first that holds wins; none: the base.
    """

    name: str
    base: str
    rules: Mapping[str, tuple[tuple[str, str], ...]] = {}

    @property
    def number(self) -> int:
        """Return what ``general.file_type`` says."""
        return FILE_TYPE_IDS[self.name]


def _rules(**rules: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Read "condition:TYPE condition:TYPE" per category."""
    return {k: tuple(tuple(r.split(":")) for r in v.split()) for k, v in rules.items()}


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


FILE_TYPES: dict[str, FileType] = {
    t.name: t
    for t in (
        FileType("F32", "F32"),
        FileType("F16", "F16"),
        FileType("BF16", "BF16"),
        FileType("Q8_0", "Q8_0"),
        FileType("Q6_K", "Q6_K"),
        FileType("Q5_K_M", "Q5_K", _rules(v="more_bits:Q6_K", ffn_down="more_bits:Q6_K")),
        FileType("Q5_K_S", "Q5_K"),
        FileType("Q5_1", "Q5_1"),
        FileType("Q5_0", "Q5_0", _rules(ffn_down="imatrix_first_8th:Q5_1")),
        FileType("Q4_K_M", "Q4_K", _rules(v="more_bits:Q6_K", ffn_down="more_bits:Q6_K")),
        FileType("Q4_K_S", "Q4_K", _rules(v="first_4:Q5_K", ffn_down="first_8th:Q5_K")),
        FileType("Q4_1", "Q4_1"),
        FileType("Q4_0", "Q4_0", _rules(ffn_down="imatrix_first_8th:Q4_1")),
        FileType(
            "Q3_K_L",
            "Q3_K",
            _rules(v="always:Q5_K", ffn_down="always:Q5_K", attn_output="always:Q5_K"),
        ),
        FileType(
            "Q3_K_M",
            "Q3_K",
            _rules(
                v="first_2:Q5_K always:Q4_K",
                ffn_down="first_16th:Q5_K always:Q4_K",
                attn_output="always:Q4_K",
            ),
        ),
        FileType("Q3_K_S", "Q3_K"),
        FileType(
            "Q2_K",
            "Q2_K",
            _rules(v="gqa_4:Q4_K always:Q3_K", ffn_down="always:Q3_K", attn_output="always:Q3_K"),
        ),
        FileType("Q2_K_S", "Q2_K", _rules(v="gqa_4:Q4_K", ffn_down="first_8th:Q4_K")),
        FileType("IQ4_NL", "IQ4_NL", _rules(v="gqa_4:Q5_K", ffn_down="plain_first_8th:Q5_K")),
        FileType("IQ4_XS", "IQ4_XS", _rules(v="gqa_4:Q5_K", ffn_down="plain_first_8th:Q5_K")),
        FileType(
            "IQ3_M",
            "IQ3_S",
            _rules(
                v="always:Q4_K",
                ffn_down="first_8th:Q4_K eight_experts_more_bits:Q4_K",
                attn_output="always:Q4_K",
            ),
        ),
        FileType("IQ3_S", "IQ3_S", _rules(v="gqa_4:Q4_K")),
        FileType(
            "IQ3_XS",
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
        FileType("IQ2_M", "IQ2_S", _two_bits("IQ3_S", "IQ3_S")),
        FileType("IQ2_S", "IQ2_XS", _two_bits("IQ3_S", "IQ3_S")),
        FileType("IQ2_XS", "IQ2_XS", _two_bits("Q2_K", "IQ2_XS")),
        FileType("IQ2_XXS", "IQ2_XXS", _two_bits("Q2_K", "IQ2_XXS")),
        FileType("IQ1_M", "IQ1_M", _two_bits("Q2_K", "IQ2_XXS")),
        FileType("IQ1_S", "IQ1_S", _two_bits("Q2_K", "IQ2_XXS")),
        FileType("TQ1_0", "TQ1_0", _rules(token_embd="always:Q4_K")),
        FileType("TQ2_0", "TQ2_0", _rules(token_embd="always:Q4_K")),
        FileType("MXFP4_MOE", "MXFP4"),
    )
}
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
