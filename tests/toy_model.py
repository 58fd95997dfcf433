"""A tokenizer of bytes and a model that speaks by script: for tests of what is built on them."""

import re
from types import SimpleNamespace

import numpy as np

from ggq.models.pooled import Readout
from ggq.runtime.sampling import SamplingParams
from ggq.runtime.template.template import ChatTemplate
from ggq.runtime.tokenizers.base import TokenStream

CONTROLS = ["<|im_start|>", "<|im_end|>", "<s>"]
START, END, BOS = range(256, 259)
HELLO = 259  # "Hello" in one token, which encoding never chooses
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ToyTokenizer:
    """Tokens 0..255 are bytes, then controls, then "Hello"."""

    n_vocab = 260
    add_bos, bos_id = False, None
    eos_id = END
    eog_ids = frozenset({END})
    _hidden = frozenset({START, END, BOS})

    def __init__(self):
        self.ids = {"<|im_start|>": START, "<|im_end|>": END, "<s>": BOS}

    def token_bytes(self, token):
        if token < 256:
            return bytes([token])
        return b"Hello" if token == HELLO else CONTROLS[token - 256].encode()

    def is_control(self, token):
        return 256 <= token < HELLO

    def all_controls(self):
        return list(range(256, HELLO))

    def encode(self, text, add_special=True, parse_special=False):
        parts = re.split("(" + "|".join(map(re.escape, CONTROLS)) + ")", text)
        ids = []
        for part in parts if parse_special else [text]:
            known = parse_special and part in CONTROLS
            ids += [256 + CONTROLS.index(part)] if known else part.encode()
        return ids

    def decode(self, ids, skip_special=False):
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def stream(self, skip_special=True):
        return TokenStream(self, skip_special)


def tokens(*parts):
    """Return token ids of a script: strings become bytes, numbers stay."""
    ids = []
    for part in parts:
        ids += [part] if isinstance(part, int) else list(part.encode())
    return ids


class ToySession:
    """Says ``scripts[i]`` as its i-th answer of a ChatML conversation, then ends its turn."""

    speculation = None

    def __init__(self, scripts, n_ctx=1000):
        self.scripts, self.n_ctx = scripts, n_ctx
        self.ids, self.evaluated = [], []  # evaluated: the lists of ids handed in
        self.stop_after = None

    def truncate(self, n):
        del self.ids[n:]

    def recall(self, ids):
        pass

    def evaluate(self, ids):
        assert len(ids) > 0
        self.evaluated.append(list(ids))
        self.ids.extend(ids)
        assert len(self.ids) <= self.n_ctx, "the cache is full"
        if self.stop_after is not None and len(self.evaluated) > self.stop_after:
            return None
        logits = np.zeros(ToyTokenizer.n_vocab, np.float32)
        logits[self._next()] = 50.0
        return logits

    def _next(self):
        header = tokens(START, "assistant\n")
        places = [
            i + len(header) for i in range(len(self.ids)) if self.ids[i : i + len(header)] == header
        ]
        turn = max(len(places) - 1, 0)
        said = len(self.ids) - (places[-1] if places else len(self.ids))
        script = self.scripts[turn % len(self.scripts)]
        return script[said] if said < len(script) else END


class ToyModel:
    """What ``ggq.load`` returns, as far as chatting needs it."""

    def __init__(self, scripts, n_ctx=1000):
        self.tokenizer, self.n_ctx = ToyTokenizer(), n_ctx
        self.template = ChatTemplate(CHATML)
        self.last_session = None
        self._scripts = scripts
        self.gguf, self.warnings = SimpleNamespace(metadata={}), []
        self.hparams = SimpleNamespace(causal=True, readout=Readout(), n_ctx_train=n_ctx)
        self.gallery = self.projector = None
        self.engine, self.device = SimpleNamespace(warm_up=lambda: None), "cpu"

    def session(self):
        self.last_session = ToySession(self._scripts, self.n_ctx)
        return self.last_session

    def sampling(self, flags):
        return SamplingParams.resolve(flags, self.gguf.metadata)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass
