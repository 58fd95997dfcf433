"""gather(x) -> the rows of x whose logits were asked for: all, or the last of each sequence."""
