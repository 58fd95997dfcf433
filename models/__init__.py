"""Architectures: one file each, read by converter and runtime alike; no torch, no files."""

if not __name__.startswith("ggq."):
    raise ImportError("import this package as ggq.models: a second copy has empty registries")
