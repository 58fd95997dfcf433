"""The block types, one a file: what each declares is all that the rest of ggq knows of it."""
