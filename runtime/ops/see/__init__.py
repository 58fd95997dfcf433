"""see(x, part) -> x with what the step's pictures bring: (n_tokens, width).

Part 0 stands in the place of their tokens' rows, each later part is added to them (DeepStack, arXiv
2406.04334; Qwen3-VL). Without a picture x is what it was.
"""
