"""The paths of Ollama's interface."""

from __future__ import annotations

from ggq.runtime.server.ollama import chat, embed, listing, pull

__all__ = ["ROUTES"]

ROUTES = {
    ("GET", "/api/version"): listing.version,
    ("GET", "/api/tags"): listing.tags,
    ("GET", "/api/ps"): listing.ps,
    ("POST", "/api/show"): listing.show,
    ("POST", "/api/chat"): chat.chat,
    ("POST", "/api/generate"): chat.generate,
    ("POST", "/api/embed"): embed.embed,
    ("POST", "/api/embeddings"): embed.embeddings,
    ("POST", "/api/pull"): pull.pull,
    ("POST", "/api/create"): listing.refused,
    ("POST", "/api/copy"): listing.refused,
    ("POST", "/api/push"): listing.refused,
    ("DELETE", "/api/delete"): listing.refused,
}
