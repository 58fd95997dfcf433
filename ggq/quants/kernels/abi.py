"""The argument block of a matmul kernel and the layout of quantized activations. Numbers only.

A kernel gets the address of consecutive int64 slots; items are groups of ``GROUP`` weight rows.
"""

# Slots of the argument block, in bytes.
WEIGHTS = 0  # address of the first row
ROW_BYTES = 8
N_ROWS = 16
N_COLS = 24
INPUT = 32  # address of the first token's activations
INPUT_STRIDE = 40  # bytes from token to token
OUTPUT = 48  # address of the first token's float32 output row
OUTPUT_STRIDE = 56
BIAS = 64  # address of float32 (n_rows,), or 0
RESIDUAL = 72  # address of a float32 row to add, strides as the output's, or 0
STATE = 80  # address of the executor's state; its first int64 is the number of tokens
SLOTS = 11

GROUP = 16  # rows per item: one vector of 32-bit lanes in a tile

# Quantized activations ("q8"): per token, with n padded to SUPER, int8 codes (n), then float32
# scales per 32 columns, then the sums of codes per 16 as int32.
SUPER = 256


def padded(n: int) -> int:
    """Return ``n`` rounded up to whole super-blocks."""
    return -(-n // SUPER) * SUPER


def q8_bytes(n: int) -> int:
    """Return the bytes of one token's quantized activations of ``n`` columns, in whole vectors."""
    return -(-padded(n) * 11 // 8 // 64) * 64
