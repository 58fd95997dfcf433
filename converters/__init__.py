"""From a Hugging Face folder or a GGUF file to a GGUF file."""

if not __name__.startswith("ggq."):
    raise ImportError("import this package as ggq.converters: a second copy has empty registries")
