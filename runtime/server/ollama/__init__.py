"""Ollama's interface under /api: what its clients send and expect."""
