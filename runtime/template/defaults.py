"""Chat templates for files that carry none, chosen by the control tokens of the vocabulary.

It knows only token texts: the formats are those that the tokens were made for.
"""

from collections.abc import Iterable

_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% set system = '' %}{% if messages[0].role == 'system' %}"
    "{% set system = messages[0].content ~ '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ system if loop.first }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_INST = (
    "{{ bos_token }}{% set system = '' %}{% if messages[0].role == 'system' %}"
    "{% set system = messages[0].content ~ '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ system if loop.first }}{{ m.content }} [/INST]{% endif %}{% endfor %}"
)
USUAL = {"chatml": _CHATML, "llama3": _LLAMA_3, "gemma": _GEMMA, "phi3": _PHI, "mistral": _INST}
_BY_TOKEN = (
    (b"<|im_start|>", _CHATML),
    (b"<|start_header_id|>", _LLAMA_3),
    (b"<start_of_turn>", _GEMMA),
    (b"<|assistant|>", _PHI),
    (b"[INST]", _INST),
)


def default_template(tokens: Iterable[bytes] | None) -> str:
    """Return the template for a vocabulary; ChatML, as in llama.cpp, when nothing is known."""
    known = set(tokens or ())
    return next((template for token, template in _BY_TOKEN if token in known), _CHATML)
