"""From a GGUF file to tokens."""

if not __name__.startswith("ggq."):
    raise ImportError("import this package as ggq.runtime: a second copy has empty registries")
