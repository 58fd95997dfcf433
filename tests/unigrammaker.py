"""A Unigram tokenizer in the form of XLM-RoBERTa's, trained on a text; no tests here."""

import base64
import io
import json

MARKS = ("<s>", "<pad>", "</s>", "<unk>")


def make_unigram(folder, lines, n_pieces=320):
    """Write tokenizer.json and its config; return the number of tokens.

    SentencePiece learns the pieces; its table of replacements and the order of special tokens
    are what published checkpoints of XLM-RoBERTa hold.
    """
    import sentencepiece
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    from ggq.runtime.tokenizers.sentencepiece_model import fields

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines), model_writer=model, model_type="unigram",
        vocab_size=n_pieces, normalization_rule_name="nmt_nfkc", hard_vocab_limit=False,
        character_coverage=1.0, minloglevel=2, num_threads=1,
    )  # fmt: skip
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    normalizer = next(v for n, v in fields(model.getvalue()) if n == 3)
    charsmap = next(v for n, v in fields(normalizer) if n == 2)
    learned = [(trained.IdToPiece(i), trained.GetScore(i)) for i in range(3, trained.vocab_size())]
    pieces = [*((text, 0.0) for text in MARKS), *learned, ("<mask>", 0.0)]
    tok = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tok.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tok.decoder = decoders.Metaspace(prepend_scheme="always")
    tok.add_special_tokens([*MARKS, "<mask>"])
    tok.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tok.save(str(folder / "tokenizer.json"))
    assert base64.b64decode(json.loads((folder / "tokenizer.json").read_text())["normalizer"][
        "normalizers"][0]["precompiled_charsmap"]) == charsmap  # fmt: skip
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>"}
    names |= {"cls": "<s>", "mask": "<mask>"}
    config = {f"{k}_token": v for k, v in names.items()}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(pieces)
