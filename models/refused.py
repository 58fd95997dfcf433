"""Classes of Hugging Face models that are known and refused, each with what ggq lacks for it.

Names as data; what is said of others is told from their settings (unsupported.py).
"""

__all__ = ["REASONS", "reason"]

PHI_MOE = (
    "its norms are centered and its two experts weighed apart (SparseMixer), "
    "llama.cpp's graph of that name does neither"
)
# Of these llama.cpp's converter does not know, either.
OTHERS: dict[str, tuple[str, ...]] = {
    "it ranks all documents in one text, by states at marks in it": ("JinaForRanking",),
    PHI_MOE: ("PhimoeForCausalLM",),
    "OpenGVLab's own layout of it: convert the repository of that name that ends in -hf or -HF "
    "(the vision part alone is written from either, --only-mmproj)": ("InternVLChatModel",),
}

REASONS: dict[str, tuple[str, ...]] = {
    "it writes by diffusion, many tokens at once": (
        "DiffusionGemma4ModelForBlockDiffusion",
        "DiffusionGemmaForBlockDiffusion",
        "DreamModel",
        "LLaDAModelLM",
        "LLaDAMoEModel",
        "LLaDAMoEModelLM",
        "RND1",
    ),
    "time mixing of RWKV": (
        "Rwkv6ForCausalLM",
        "RWKV6Qwen2ForCausalLM",
        "RWKV7ForCausalLM",
        "Rwkv7ForCausalLM",
        "RwkvHybridForCausalLM",
    ),
    "an encoder with cross-attention or relative position biases": (
        "MT5ForConditionalGeneration",
        "T5EncoderModel",
        "T5ForConditionalGeneration",
        "T5WithLMHeadModel",
        "UMT5ForConditionalGeneration",
        "UMT5Model",
    ),
    "a draft for another model, useless alone": (
        "Eagle3DraftModel",
        "Eagle3LlamaForCausalLM",
        "Eagle3Speculator",
        "Gemma4AssistantForCausalLM",
        "Gemma4UnifiedAssistantForCausalLM",
        "LlamaForCausalLMEagle3",
    ),
    "no model of text: sound in, or sound out": (
        "Lfm25AudioTokenizer",
        "UltravoxModel",
        "WavTokenizerDec",
    ),
    "an encoder whose layers are not written yet": (
        "DistilBertForMaskedLM",
        "DistilBertForSequenceClassification",
        "DistilBertModel",
        "EuroBertModel",
        "JinaEmbeddingsV5Model",
        "Lfm2BidirectionalModel",
        "LlamaBidirectionalModel",
        "NeoBERT",
        "NeoBERTForSequenceClassification",
        "NeoBERTLMHead",
    ),
    "images or sound change its text layers, positions or tables": (
        "ChameleonForCausalLM",
        "ChameleonForConditionalGeneration",
        "CogVLMForCausalLM",
        "DeepseekOCRForCausalLM",
        "Exaone4_5_ForConditionalGeneration",
        "Gemma4UnifiedForConditionalGeneration",
        "Glm4vForConditionalGeneration",
        "Glm4vMoeForConditionalGeneration",
        "GlmOcrForConditionalGeneration",
        "HunYuanVLForConditionalGeneration",
        "KimiK25ForConditionalGeneration",
        "KimiVLForConditionalGeneration",
        "MiniCPMV4_6ForConditionalGeneration",
        "PaddleOCRVLForConditionalGeneration",
        "Phi4ForCausalLMV",
        "Qwen2_5OmniModel",
        "Qwen2VLModel",
        "Qwen3ASRForConditionalGeneration",
        "Qwen3OmniMoeForConditionalGeneration",
        "Sarashina2VisionForCausalLM",
        "Step3p7ForConditionalGeneration",
        "StepVLForConditionalGeneration",
        "UnlimitedOCRForCausalLM",
        "VLlama3ForCausalLM",
        "YoutuVLForConditionalGeneration",
    ),
    "a router or layout of experts that is not written yet": (
        "ArcticForCausalLM",
        "Cohere2MoeForCausalLM",
        "DbrxForCausalLM",
        "ExaoneMoEForCausalLM",
        "Grok1ForCausalLM",
        "GrokForCausalLM",
        "GroveMoeForCausalLM",
        "MiMoV2FlashForCausalLM",
        "MiMoV2ForCausalLM",
        "SarvamMoEForCausalLM",
        "SolarOpenForCausalLM",
        "Step3p5ForCausalLM",
    ),
    "linear, sparse or state space attention that is not written yet": (
        "DeepseekV32ForCausalLM",
        "GlmMoeDsaForCausalLM",
        "KimiLinearForCausalLM",
        "KimiLinearModel",
        "PLaMo2ForCausalLM",
        "Plamo2ForCausalLM",
        "RuGPT3XLForCausalLM",
    ),
    "latent attention in a form that is not written yet": (
        "PLMForCausalLM",
        "YoutuForCausalLM",
    ),
    "weights that become ternary only as they are converted (packed ones are read)": (
        "BitnetForCausalLM",
    ),
    "its norms: the model's code centers them, llama.cpp's graph does not": (
        "GPTRefactForCausalLM",
    ),
    PHI_MOE: ("PhiMoEForCausalLM",),
    "a graph of its own that is not written yet": (
        "JAISLMHeadModel",
        "MaincoderForCausalLM",
        "MellumForCausalLM",
        "OpenELMForCausalLM",
        "PLaMo3ForCausalLM",
        "Plamo3ForCausalLM",
        "PlamoForCausalLM",
        "TalkieForCausalLM",
    ),
}


def reason(name: object) -> str | None:
    """Return what a class needs that is not there; None for one that is not known."""
    known = (*REASONS.items(), *OTHERS.items())
    return next((why for why, names in known if name in names), None)
