"""How text is cut into words before byte-level BPE, by ``tokenizer.ggml.pre``: a table of facts.

Each entry is what the model's own tokenizer.json does (patterns from llama.cpp's llama-vocab.cpp
and the tokenizer.json files quoted there); where llama.cpp only approximates a pattern, the
original stands here. Patterns are applied in order, each to the pieces that the one before left.
It does not know vocabularies or merges.
"""

from __future__ import annotations

from typing import NamedTuple


class PreTokenizer(NamedTuple):
    """Patterns (Oniguruma syntax) and the flags that llama.cpp ties to the id."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False  # a word that is a token as a whole is not merged up
    add_bos: bool = False  # default where the file has no add_bos_token
    byte_level: bool = True  # False: pieces are UTF-8 text with U+2581 for spaces


CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"
DIGITS_3 = r"\p{N}{1,3}"
LLAMA3 = f"{CONTRACTIONS}|{WORD}|{DIGITS_3}|{MARKS}|{SPACES}"
QWEN2 = f"{CONTRACTIONS}|{WORD}|{DIGIT}|{MARKS}|{SPACES}"
QWEN35 = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{SPACES}"
)
UFAKZEKA = f"{WORD}|{DIGIT}|{MARKS}|{SPACES}"
JAIS2 = (
    f"{CONTRACTIONS}|{WORD}|{DIGITS_3}|{MARKS}|"
    + r"\s*[\r\n]+|"
    + "|".join(
        [rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)]
        + [r"\s{1,2}(?!\S)", r"\s{1}"]
    )
)
SEED_CODER = rf"{CONTRACTIONS}|{WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{SPACES}"
BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
EXAONE_MOE = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
MINICPM5 = rf"{CONTRACTIONS}|{WORD}|\p{{N}}+|{MARKS}|{SPACES}"

# Words whose capitals may only lead: o200k and what followed it.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_MARKS_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"


def _cased(suffix: str, digits: str, upper: str = _UPPER, lower: str = _LOWER) -> str:
    words = f"{_LEAD}{upper}*{lower}+{suffix}|{_LEAD}{upper}+{lower}*{suffix}"
    return f"{words}|{digits}|{_MARKS_SLASH}|{SPACES}"


O200K = _cased(f"{CONTRACTIONS}?", DIGITS_3)
TEKKEN = _cased("", DIGIT)
YOUTU = _cased(f"{CONTRACTIONS}?", DIGIT)
KIMI_K2 = "[\\p{Han}]+|" + _cased(
    f"{CONTRACTIONS}?",
    DIGITS_3,
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
).replace(r"[\r\n/]*", r"[\r\n]*")

_ASCII_MARK = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
DEEPSEEK3_WORD = (
    rf"{_ASCII_MARK}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{SPACES}"
)
DEEPSEEK3_CJK = "[一-龥぀-ゟ゠-ヿ]+"
SPARK = (
    rf"{_ASCII_MARK}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
)
AFMOE_DIGITS = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
AFMOE_ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f"
    "\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f"
    "\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
YOUTU_CJK = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"
DEEPSEEK_LETTERS = (  # the cased letters of Unicode 11, escaped: some change under NFC
    r"\s?[A-Za-z"
    "\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5"
    "\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3"
    "\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115"
    "\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
    "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
    "]+"
)
DEEPSEEK_CJK = "[一-龥ࠀ-一가-퟿]+"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"

_LLAMA_BPE = PreTokenizer((LLAMA3,), ignore_merges=True, add_bos=True)
_DIGIT_GPT2 = PreTokenizer((DIGIT, GPT2))
_GPT2 = PreTokenizer((GPT2,))
_LLAMA3 = PreTokenizer((LLAMA3,))
_QWEN2 = PreTokenizer((QWEN2,))
_O200K = PreTokenizer((O200K,))
_DEEPSEEK3 = PreTokenizer((DIGITS_3, DEEPSEEK3_CJK, DEEPSEEK3_WORD))
_TINY_AYA = PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", O200K))
_BLOOM = PreTokenizer((BLOOM,))
_BAILING = PreTokenizer((BAILING,))
_PIECES = PreTokenizer((), byte_level=False)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreTokenizer(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}")
    ),
    "chameleon": PreTokenizer(
        (
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ),
        add_bos=True,
    ),
    "superbpe": PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    "tekken": PreTokenizer((TEKKEN,), ignore_merges=True, add_bos=True),
    "youtu": PreTokenizer((YOUTU_CJK, YOUTU), ignore_merges=True),
    "kimi-k2": PreTokenizer((KIMI_K2,)),
    "afmoe": PreTokenizer((AFMOE_DIGITS, AFMOE_ASIAN, DEEPSEEK3_WORD)),
    "spark2_5": PreTokenizer((DIGITS_3, DEEPSEEK3_CJK, SPARK, DIGIT)),
    "laguna": PreTokenizer((r"[^\n]+|[\n]+", QWEN2)),
    "minicpm5": PreTokenizer((DIGITS_3, MINICPM5), ignore_merges=True),
    "exaone-moe": PreTokenizer((EXAONE_MOE,)),
    "granite-embed-multi-97m": PreTokenizer((O200K,), ignore_merges=True),
    "jais-2": PreTokenizer((JAIS2,)),
    "seed-coder": PreTokenizer((SEED_CODER,)),
    "ufakzeka": PreTokenizer((UFAKZEKA,)),
    "qwen35": PreTokenizer((QWEN35,)),
    "viking": PreTokenizer((BLOOM, DIGIT)),
    "glm4": PreTokenizer((LLAMA3,), ignore_merges=True),
    "glm5": PreTokenizer((LLAMA3,), ignore_merges=True),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
         "jina-v5-nano"),
        _LLAMA_BPE,
    ),
    **dict.fromkeys(("smaug-bpe", "dbrx", "chatglm-bpe"), _LLAMA3),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "stablelm2", "kormo", "f2llmv2", "megrez", "hunyuan",
         "solar-open", "grok-2"),
        _QWEN2,
    ),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
         "mellum2"),
        _DIGIT_GPT2,
    ),
    **dict.fromkeys(
        ("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4",
         "gigachat", "a.x-4.0", "mellum", "modern-bert", "jina-es", "jina-de", "jina-v2-es",
         "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe"),
        _GPT2,
    ),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _O200K),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _DEEPSEEK3),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), _TINY_AYA),
    **dict.fromkeys(("bloom", "gpt3-finnish", "poro-chat"), _BLOOM),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), _BAILING),
    **dict.fromkeys(("gemma4", "granite-embed-multi-311m", "sarvam-moe"), _PIECES),
}  # fmt: skip
