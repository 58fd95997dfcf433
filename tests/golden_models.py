"""The tiny models and the importance matrix that tests/data/convert.json was made from."""

from pathlib import Path

import numpy as np
from hfmaker import make_hf

from ggq.converters.imatrix import write_imatrix
from ggq.gguf import open_gguf

SMALL = {"num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 1}
MODELS = {
    # All rows are multiples of 256; the grouped queries make GQA >= 4 rules apply.
    "even": {**SMALL, "hidden_size": 256, "intermediate_size": 512, "seed": 11},
    # Rows of 96 (only blocks of 32), 160, and 40 (no block at all); tied; BF16 checkpoint.
    "odd": {
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "hidden_size": 96,
        "intermediate_size": 40,
        "tie_word_embeddings": True,
        "dtype": "BF16",
        "seed": 12,
    },
}
FILE_TYPES = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M"),
    *("Q4_K_S", "Q4_1", "Q4_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "Q2_K_S", "IQ4_NL"),
    *("IQ4_XS", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS"),
    *("IQ1_M", "IQ1_S", "TQ1_0", "TQ2_0", "MXFP4_MOE"),
)
NEED_IMATRIX = (
    *("Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
)


def build(name: str, work: Path) -> Path:
    """Write the HF folder of a model."""
    return make_hf(work / name, vocab_size=384, **MODELS[name])


def make_imatrix(gguf: Path, path: Path) -> Path:
    """Write a matrix of uneven importance for every matrix but the embedding."""
    rng = np.random.RandomState(7)
    sums, counts = {}, {}
    with open_gguf(gguf) as file:
        shapes = {n: t.shape for n, t in file.tensors.items() if len(t.shape) > 1}
    for name, shape in sorted(shapes.items()):
        if name != "token_embd.weight":
            sums[name] = (2.0 ** rng.randint(-6, 7, (1, shape[-1]))).astype(np.float32)
            counts[name] = np.array([4.0], np.float32)
    write_imatrix(path, sums, counts, "powers of two", (4, 512))
    return path
