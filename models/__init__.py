"""Architectures: one file each, read by the converter and by the runtime; free of torch and of files."""

if not __name__.startswith("ggq."):
    raise ImportError("import this package as ggq.models: a second copy would have empty registries")
