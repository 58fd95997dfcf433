"""Compiled encoders: the searches of ggml, sixteen blocks at a time; types import them on use."""
