"""A GGUF written back as an HF folder: the same weights and keys after converting it again."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hfmaker import llama3_rope, make_hf

from ggq.cli import cli
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.convert import convert
from ggq.converters.export import export
from ggq.errors import ModelError, UsageError
from ggq.gguf import GGUFWriter, open_gguf, spec

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
LLAMA3 = llama3_rope(64)
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 16.0,
    "beta_slow": 2.0,
}
CASES = {
    "plain": {},
    "tied-spm-bf16": {"tie_word_embeddings": True, "tokenizer": "spm", "dtype": "BF16"},
    "biases-f16": {"attention_bias": True, "mlp_bias": True, "dtype": "F16"},
    "llama3": {"rope_scaling": LLAMA3},
    "yarn": {"rope_scaling": YARN},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "head-dim": {"head_dim": 24, "num_key_value_heads": 1},
}
PROVENANCE = ("ggq.", "tokenizer.")  # the tokenizer's round trip is held in test_vocab


@pytest.mark.parametrize("case", CASES)
def test_export_and_convert_again_give_the_same_file(tmp_path, case):
    settings = {**SMALL, **CASES[case]}
    folder = make_hf(tmp_path / "tiny-1B-chat", **settings)
    dtype = settings.get("dtype", "F32")
    (first,) = convert(folder, tmp_path / "first.gguf", dtype)
    back = export(first, tmp_path / "back")
    (second,) = convert(back, tmp_path / "second.gguf", dtype)
    with open_gguf(first) as a, open_gguf(second) as b:
        assert plain(a) == plain(b)
        assert [(t.name, t.shape, t.type_id) for t in a.tensors.values()] == [
            (t.name, t.shape, t.type_id) for t in b.tensors.values()
        ]
        for name in a.tensors:
            np.testing.assert_array_equal(a.data(name), b.data(name))


def plain(file):
    keys = [k for k in file.metadata if not k.startswith(PROVENANCE)]
    found = {k: file.metadata[k] for k in keys}
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in found.items()}


def test_weights_in_the_folder_are_the_checkpoint_s(tmp_path):
    folder = make_hf(tmp_path / "hf", **SMALL)
    (path,) = convert(folder, tmp_path / "x.gguf", "F32")
    back = export(path, tmp_path / "back", "f32")
    want, got = Checkpoint(folder), Checkpoint(back)
    assert set(want.tensors) == set(got.tensors)
    for name, tensor in want.tensors.items():
        np.testing.assert_array_equal(tensor.stored(), got.tensors[name].stored(), err_msg=name)
    config = json.loads((back / "config.json").read_text())
    original = json.loads((folder / "config.json").read_text())
    assert {k: config[k] for k in original if k in config} == {
        k: original[k] for k in original if k in config
    }
    generation = json.loads((back / "generation_config.json").read_text())
    assert generation["temperature"] == 0.6 and generation["top_k"] == 50


def test_transformers_loads_the_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    folder = make_hf(tmp_path / "hf", rope_scaling=LLAMA3, **SMALL)
    (path,) = convert(folder, tmp_path / "x.gguf", "F32")
    back = export(path, tmp_path / "back")
    load = transformers.AutoModelForCausalLM.from_pretrained
    models = [load(f, dtype=torch.float32).eval() for f in (folder, back)]
    ids = torch.arange(1, 60).reshape(1, -1)
    with torch.no_grad():
        want, got = (m(ids).logits.numpy() for m in models)
    np.testing.assert_array_equal(want, got)


def test_quantized_weights_come_out_as_f16(tmp_path):
    folder = make_hf(tmp_path / "hf", **SMALL)
    (path,) = convert(folder, tmp_path / "x.gguf", "Q8_0")
    back = Checkpoint(export(path, tmp_path / "back"))
    assert {t.dtype for t in back.tensors.values()} == {"F16"}
    name = "model.layers.1.self_attn.k_proj.weight"
    want = Checkpoint(folder).tensors[name].read(slice(None))
    got = back.tensors[name].read(slice(None))
    assert 0 < np.abs(got - want).max() <= np.abs(want).max() / 127


def test_refusals_leave_nothing_behind(tmp_path):
    folder = make_hf(tmp_path / "hf", **SMALL)
    (path,) = convert(folder, tmp_path / "x.gguf", "F32")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty; force=True"):
        export(path, tmp_path / "full")
    with pytest.raises(UsageError, match=r"^dtype int8"):
        export(path, tmp_path / "new", "int8")
    with GGUFWriter(tmp_path / "odd.gguf") as writer, open_gguf(path) as source:
        writer.copy_metadata(source.metadata)
        data = {n: source.data(n) for n in source.tensors}
        for tensor in source.tensors.values():
            writer.add_tensor(tensor.name, tensor.shape, tensor.type_id)
        writer.add_tensor("mystery.weight", (2, 32), spec.TYPE_IDS["F32"])
        writer.begin()
        for name, rows in data.items():
            writer.write(name, rows)
        writer.write("mystery.weight", np.zeros((2, 128), np.uint8))
    with pytest.raises(ModelError, match=r"mystery\.weight is not one that llama has"):
        export(tmp_path / "odd.gguf", tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "hf", "odd.gguf", "x.gguf"]


def test_command_and_model_card(tmp_path):
    folder = make_hf(tmp_path / "hf", **SMALL)
    card = '---\nlicense: mit\ntags:\n- "a: b"\nlanguage: [en, de]\nauthor: "Some \\"One\\""\n---\n'
    (folder / "README.md").write_text(card)
    (path,) = convert(folder, tmp_path / "x.gguf", "F16")
    done = CliRunner().invoke(cli, ["export", str(path), str(tmp_path / "back"), "--dtype", "bf16"])
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "back")
    (again,) = convert(tmp_path / "back", tmp_path / "y.gguf", "F16")
    with open_gguf(again) as file:
        assert file.metadata["general.license"] == "mit"
        assert file.metadata["general.author"] == 'Some "One"'
        assert file.metadata["general.languages"].texts() == ["en", "de"]
        assert file.metadata["general.tags"].texts() == ["a: b"]


def test_what_the_tokenizer_lacks_is_told(tmp_path, monkeypatch):
    folder = make_hf(tmp_path / "hf", **SMALL)
    (path,) = convert(folder, tmp_path / "x.gguf", "F16")
    told = []
    export(path, tmp_path / "plain", warn=told.append)
    assert told == []
    monkeypatch.setattr("ggq.converters.vocab.write.first_difference", lambda *_: "at 'x'")
    export(path, tmp_path / "warned", warn=told.append)
    assert told == ["the exported tokenizer differs: at 'x'"]
    done = CliRunner().invoke(cli, ["export", str(path), str(tmp_path / "back")])
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "back")
    assert done.stderr == "warning: the exported tokenizer differs: at 'x'\n"
