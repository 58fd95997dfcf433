"""Models of images and sound around a text model that is one of the others: that one is converted.

Classes and kinds of text models as data; it knows no tensor and no graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.errors import ModelError, printable

__all__ = ["FOREIGN", "WRAPPERS", "left_out", "text_class"]

# Classes that evaluate a text alone as their text model does.
WRAPPERS = (
    "AudioFlamingo3ForConditionalGeneration",
    "AyaVisionForConditionalGeneration",
    "Cohere2VisionForConditionalGeneration",
    "DeepseekVLForConditionalGeneration",
    "FastVlmForConditionalGeneration",
    "GlmAsrForConditionalGeneration",
    "GotOcr2ForConditionalGeneration",
    "GraniteSpeechForConditionalGeneration",
    "GraniteSpeechPlusForConditionalGeneration",
    "Idefics3ForConditionalGeneration",
    "InternVLForConditionalGeneration",
    "JanusForConditionalGeneration",
    "Lfm2VlForConditionalGeneration",
    "LightOnOcrForConditionalGeneration",
    "LightOnOCRForConditionalGeneration",
    "LlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration",
    "LlavaNextVideoForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration",
    "MusicFlamingoForConditionalGeneration",
    "Ovis2ForConditionalGeneration",
    "PerceptionLMForConditionalGeneration",
    "Qwen2AudioForConditionalGeneration",
    "SmolVLMForConditionalGeneration",
    "VideoLlavaForConditionalGeneration",
    "VipLlavaForConditionalGeneration",
    "VoxtralForConditionalGeneration",
)
# What text_config calls the model -> its class.
TEXT_CLASSES = {
    "cohere": "CohereForCausalLM",
    "cohere2": "Cohere2ForCausalLM",
    "glm": "GlmForCausalLM",
    "granite": "GraniteForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
# Parts of the names of tensors that only images and sound need.
FOREIGN = (
    *(
        "visual.",
        "vision_",
        "vision.",
        "audio_",
        "embed_audio.",
        "multi_modal_projector.",
        "patch_merger.",
    ),
    *("model.connector.", "model.aligner.", "model.vqmodel.", "model.generation_"),
    *("image_newline", "model.visual_embeddings_table.", "model.high_res_vision"),
)
# What transformers fills in where a text_config leaves its sizes out, as LLaVA 1.5's does.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen2": {
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
}


def text_class(name: str, config: Mapping[str, Any]) -> str | None:
    """Return the class of the text model inside ``name``, None where that wraps none; ModelError.

    ``name``: a class of config.json's ``architectures``.
    """
    text = config.get("text_config")
    if name not in WRAPPERS:
        return None
    if not isinstance(text, Mapping):
        raise ModelError(f"config.json: {name} without text_config")
    kind = text.get("model_type", "llama")  # transformers' default
    if kind not in TEXT_CLASSES:
        known = ", ".join(TEXT_CLASSES)
        raise ModelError(
            f"config.json: text_config.model_type is {printable(repr(kind), 60)}; "
            f"inside {name} these are converted: {known}"
        )
    return TEXT_CLASSES[kind]


def left_out(text: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what transformers fills into a text_config that names its kind only."""
    kind = text.get("model_type")
    return LEFT_OUT.get(kind, {}) if isinstance(kind, str) else {}
