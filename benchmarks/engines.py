"""ggq and llama.cpp behind the same few calls, for the benchmarks that compare them."""

from __future__ import annotations

import ctypes

import numpy as np

UBATCH, BATCH = 512, 2048  # llama-bench's
NO_FLASH = 0


class LlamaCpp:
    """The few calls of llama.cpp's C interface that timing needs.

    ``cache_f32``: float32 caches and no flash attention, which makes halves of keys and values.
    """

    def __init__(
        self, path: str, threads: int, n_ctx: int, n_seq: int = 1, cache_f32: bool = False
    ):
        import llama_cpp

        self.api = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, BATCH, UBATCH
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max, params.kv_unified = n_seq, True
        if cache_f32:
            params.type_k = params.type_v = 0
            params.flash_attn_type = NO_FLASH
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.n_past = [0] * n_seq

    def truncate(self, length: int) -> None:
        """Forget every sequence's positions from ``length`` on."""
        memory = self.api.llama_get_memory(self.context)
        if length == 0:
            self.api.llama_memory_clear(memory, True)
        for sequence in range(len(self.n_past) if length else 0):
            self.api.llama_memory_seq_rm(memory, sequence, length, -1)
        self.n_past = [min(n, length) for n in self.n_past]

    def reset(self) -> None:
        """Forget everything."""
        self.truncate(0)

    def evaluate(
        self, ids: list[int], sequences: list[int] | None = None, every: bool = False
    ) -> None:
        """Append ids to sequence 0, or one id to each of several sequences."""
        sequences = sequences or [0] * len(ids)
        for start in range(0, len(ids), BATCH):
            self._decode(ids[start : start + BATCH], sequences[start : start + BATCH], every)

    def last_logits(self, ids: list[int]) -> np.ndarray:
        """Append ids to sequence 0 and return the last one's logits."""
        self.evaluate(ids)
        row = self.api.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(row, (self.n_vocab,)).copy()

    def _decode(self, ids: list[int], sequences: list[int], every: bool) -> None:
        batch = self.api.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, (token, sequence) in enumerate(zip(ids, sequences, strict=True)):
            batch.token[i], batch.pos[i] = token, self.n_past[sequence]
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = int(every or i == len(ids) - 1 or len(set(sequences)) > 1)
            self.n_past[sequence] += 1
        code = self.api.llama_decode(self.context, batch)
        self.api.llama_batch_free(batch)
        if code:
            raise RuntimeError(f"llama_decode: {code}")

    def close(self) -> None:
        """Give the memory back."""
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)


class Ggq:
    """The same calls on ggq."""

    def __init__(self, path: str, threads: int, n_ctx: int, n_seq: int = 1):
        import ggq

        self.model = ggq.load(path, threads=threads, n_ctx=n_ctx)
        self.n_vocab = self.model.hparams.n_vocab
        self.sequences = [self.model.engine.sequence() for _ in range(n_seq)]

    def truncate(self, length: int) -> None:
        """Forget every sequence's positions from ``length`` on."""
        for sequence in self.sequences:
            sequence.truncate(length)

    def reset(self) -> None:
        """Forget everything."""
        self.truncate(0)

    def evaluate(self, ids: list[int], sequences: list[int] | None = None) -> None:
        """Append ids to sequence 0, or one id to each of several sequences."""
        from ggq.runtime.engine.backend import Part

        if sequences is None:
            self.model.engine.evaluate(self.sequences[0], ids)
            return
        parts = [
            Part(self.sequences[s], np.array([i]), np.array([True]))
            for i, s in zip(ids, sequences, strict=True)
        ]
        self.model.engine.step(parts)

    def close(self) -> None:
        """Give the memory back."""
        self.model.close()


ENGINES = {"ggq": Ggq, "llama.cpp": LlamaCpp}
