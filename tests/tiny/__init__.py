"""Tiny random models, a file per architecture, each with `MODELS`; found by tinymodels.py."""
