"""llama.cpp with eyes: libmtmd of llama-cpp-python on a model and its projector file."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from engines import BATCH, NO_FLASH, LlamaCpp

__all__ = ["Seeing"]

FLASH_IF_FASTER = -1


class Seeing(LlamaCpp):
    """The few calls of libmtmd that timing and comparing need; `LlamaCpp` knows text.

    ``exact``: float32 caches and no flash attention, whose keys and values would be halves.
    ``max_tokens`` of a picture, for families whose pictures keep their shape; -1: libmtmd's own.
    """

    def __init__(
        self,
        path: str,
        projector: str,
        threads: int,
        n_ctx: int = 8192,
        exact: bool = False,
        max_tokens: int = -1,
    ):
        super().__init__(path, threads, n_ctx, cache_f32=exact)
        import llama_cpp
        from llama_cpp import mtmd_cpp

        self.eyes = mtmd_cpp
        for name in ("mtmd_log_set", "mtmd_helper_log_set"):
            if hasattr(mtmd_cpp, name):
                getattr(mtmd_cpp, name)(self._quiet, ctypes.c_void_p(0))
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu, params.print_timings, params.warmup = False, False, False
        params.n_threads = threads
        params.flash_attn_type = NO_FLASH if exact else FLASH_IF_FASTER
        params.image_max_tokens = max_tokens
        self.seeing = mtmd_cpp.mtmd_init_from_file(projector.encode(), self.model, params)
        if not self.seeing:
            raise RuntimeError(f"libmtmd does not open {projector}")
        self.width = llama_cpp.llama_model_n_embd_inp(self.model)

    @contextmanager
    def chunks(self, rgb: np.ndarray, before: str = "", after: str = "") -> Iterator[list[Any]]:
        """Yield (is a picture, chunk) of text, a picture uint8 (height, width, 3), and text."""
        api = self.eyes
        data = np.ascontiguousarray(rgb, np.uint8)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = api.mtmd_bitmap_init(rgb.shape[1], rgb.shape[0], pointer)
        text = (before + api.mtmd_default_marker().decode() + after).encode()
        given = api.mtmd_input_text(text, len(text), False, True)
        found = api.mtmd_input_chunks_init()
        one = (api.mtmd_bitmap_p_ctypes * 1)(bitmap)
        try:
            code = api.mtmd_tokenize(self.seeing, found, ctypes.byref(given), one, 1)
            if code:
                raise RuntimeError(f"mtmd_tokenize: {code}")
            n = api.mtmd_input_chunks_size(found)
            listed = [api.mtmd_input_chunks_get(found, i) for i in range(n)]
            image = api.MTMD_INPUT_CHUNK_TYPE_IMAGE
            yield [(api.mtmd_input_chunk_get_type(c) == image, c) for c in listed]
        finally:
            api.mtmd_input_chunks_free(found)
            api.mtmd_bitmap_free(bitmap)

    def ids(self, chunk: Any) -> list[int]:
        """Return the tokens of a chunk of text."""
        n = ctypes.c_size_t(0)
        found = self.eyes.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n))
        return [found[i] for i in range(n.value)]

    def rows(self, chunk: Any) -> np.ndarray:
        """Return what the projector makes of a picture's chunk, float32 (tokens, width)."""
        if code := self.eyes.mtmd_encode_chunk(self.seeing, chunk):
            raise RuntimeError(f"mtmd_encode_chunk: {code}")
        n = self.eyes.mtmd_input_chunk_get_n_tokens(chunk)
        found = self.eyes.mtmd_get_output_embd(self.seeing)
        return np.ctypeslib.as_array(found, (n, self.width)).copy()

    def encode(self, rgb: np.ndarray) -> np.ndarray:
        """Return the rows of all views of a picture."""
        with self.chunks(rgb) as chunks:
            return np.concatenate([self.rows(c) for picture, c in chunks if picture])

    def look(self, chunk: Any) -> None:
        """Append a chunk, text or picture, to sequence 0."""
        past = ctypes.c_int32(0)
        code = self.eyes.mtmd_helper_eval_chunk_single(
            self.seeing, self.context, chunk, self.n_past[0], 0, BATCH, True, ctypes.byref(past)
        )
        if code:
            raise RuntimeError(f"mtmd_helper_eval_chunk_single: {code}")
        self.n_past[0] = past.value

    def last_row(self) -> np.ndarray:
        """Return the logits of the last position."""
        row = self.api.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(row, (self.n_vocab,)).copy()

    def rows_after(self, ids: list[int]) -> np.ndarray:
        """Append ids to sequence 0; return the logits after each, float32 (ids, vocabulary)."""
        self.evaluate(ids, every=True)
        found = [self.api.llama_get_logits_ith(self.context, i) for i in range(len(ids))]
        return np.stack([np.ctypeslib.as_array(r, (self.n_vocab,)).copy() for r in found])

    def close(self) -> None:
        self.eyes.mtmd_free(self.seeing)
        super().close()
