"""What cannot be converted is refused by its cause, before any work, and ``ggq check`` says so."""

import json
import os

import numpy as np
import pytest
from ggufmaker import make_tiny_llama
from hfmaker import make_hf, save

import ggq
from ggq.cli import main
from ggq.converters.safetensors import SafetensorsFile
from ggq.gguf import GGUFWriter, open_gguf, spec

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 12345\n"
UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def folder(tmp_path):
    return make_hf(tmp_path / "hf", hidden_size=64, intermediate_size=64, num_hidden_layers=1)


def tensors_of(folder):
    file = SafetensorsFile(folder / "model.safetensors")
    found = {n: t.read(slice(None)).reshape(t.shape).copy() for n, t in file.tensors.items()}
    file.close()
    return found


def edit(folder, file, **changes):
    path = folder / file
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**found, **changes}))


def refused(source, out, *words):
    with pytest.raises(ggq.GGQError) as error:
        ggq.convert(source, out, type="F16", force=True)
    for word in words:
        assert word in str(error.value), str(error.value)
    assert not out.exists() and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "model.safetensors.index.json"]
)
def test_pointers_of_git_lfs(folder, tmp_path, name):
    (folder / name).write_text(POINTER)
    refused(folder, tmp_path / "o.gguf", name, "is a git-lfs pointer", "git lfs pull")


def test_pointers_in_the_place_of_single_files(tmp_path):
    (tmp_path / "model.gguf").write_text(POINTER)
    refused(tmp_path / "model.gguf", tmp_path / "o.gguf", "is a git-lfs pointer")
    folder = make_hf(tmp_path / "spm", tokenizer="spm", hidden_size=64, intermediate_size=64)
    (folder / "tokenizer.model").write_text(POINTER)
    refused(folder, tmp_path / "o.gguf", "tokenizer.model", "is a git-lfs pointer")


def test_weights_that_are_no_file_are_not_waited_for(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    refused(folder, tmp_path / "o.gguf", "model.safetensors", "not a regular file")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_part_of_a_folder_is_no_source(folder, tmp_path, name):
    refused(folder / name, tmp_path / "o.gguf", "give the folder", str(folder))


@pytest.mark.parametrize("has_config", [True, False])
def test_an_adapter(folder, tmp_path, has_config):
    edit(folder, "adapter_config.json", peft_type="LORA", base_model_name_or_path="some/base")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    if not has_config:
        (folder / "config.json").unlink()
    refused(folder, tmp_path / "o.gguf", "LORA adapter", "some/base", "--merge-lora")


def test_an_adapter_beside_weights_without_a_config(folder, tmp_path):
    edit(folder, "adapter_config.json", peft_type="LORA")
    (folder / "config.json").unlink()
    refused(folder, tmp_path / "o.gguf", "LORA adapter", "--base")


def test_a_merged_model_that_kept_its_adapters_settings_is_a_model(folder, tmp_path):
    edit(folder, "adapter_config.json", peft_type="LORA", base_model_name_or_path="some/base")
    assert ggq.convert(folder, tmp_path / "o.gguf", type="F16")


def test_adapter_tensors_among_the_models(folder, tmp_path):
    save(folder, tensors_of(folder) | {f"{UP}.lora_A.weight": np.ones((4, 64), np.float32)})
    refused(folder, tmp_path / "o.gguf", "lora_A", "merge the adapter")


@pytest.mark.parametrize("algorithm", ["W4A8_AWQ", "W4A16_AWQ", "INT4_AWQ", "W8A8_SQ_PER_CHANNEL"])
def test_modelopt(folder, tmp_path, algorithm):
    words = ("ModelOpt quant_algo", algorithm, "only FP8, NVFP4")
    edit(folder, "hf_quant_config.json", quantization={"quant_algo": algorithm})
    refused(folder, tmp_path / "o.gguf", *words)
    (folder / "hf_quant_config.json").unlink()
    settings = {"quant_method": "modelopt", "quant_algo": algorithm}
    edit(folder, "config.json", quantization_config=settings)
    refused(folder, tmp_path / "o.gguf", *words)


def test_folders_that_are_something_else(tmp_path, capsys):
    def made(name, *files):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).parent.mkdir(exist_ok=True)
            (tmp_path / name / file).write_text("{}")
        return tmp_path / name

    out = tmp_path / "o.gguf"
    gguf = made("gguf")
    make_tiny_llama(gguf / "m.gguf")
    for source, *words in (
        (gguf, "give the file itself", "m.gguf"),
        (made("empty"), "is empty"),
        (made("pipeline", "model_index.json"), "diffusers pipeline"),
        (made("mistral", "params.json"), "params.json has no dim"),
        (
            made("parent", "checkpoint-100/config.json"),
            "give the folder that has",
            "checkpoint-100",
        ),
        (made("other", "notes.txt"), "no config.json"),
    ):
        refused(source, out, *words)
        assert main(["check", str(source)]) == 1
        assert words[0] in capsys.readouterr().err
    (gguf / "config.json").write_text((make_hf(tmp_path / "hf") / "config.json").read_text())
    refused(gguf, out, "GGUF files", "m.gguf")


@pytest.mark.parametrize("kind", ["F64", "I32", "I64", "I8"])
@pytest.mark.parametrize("name", ["blk.0.ffn_up.weight", "blk.0.attn_norm.weight"])
def test_numbers_of_a_gguf_that_are_no_weights(tmp_path, kind, name):
    source = make_tiny_llama(tmp_path / "a.gguf", vocab="bpe")
    dtype = {"F64": "<f8", "I32": "<i4", "I64": "<i8", "I8": "i1"}[kind]
    with open_gguf(source) as file, GGUFWriter(tmp_path / "b.gguf") as writer:
        writer.copy_metadata(file.metadata)
        data = {n: np.ascontiguousarray(file.data(n)).view(np.uint8) for n in file.tensors}
        for n, info in file.tensors.items():
            writer.add_tensor(n, info.shape, spec.TYPE_IDS[kind] if n == name else info.type_id)
        data[name] = np.ones(file.tensors[name].shape, dtype).view(np.uint8)
        writer.begin()
        for n, rows in data.items():
            writer.write(n, rows)
    refused(tmp_path / "b.gguf", tmp_path / "o.gguf", name, f"holds {kind}", "no type of weights")


def test_a_known_class_says_why(folder, tmp_path):
    edit(folder, "config.json", architectures=["T5ForConditionalGeneration"])
    refused(folder, tmp_path / "o.gguf", "T5ForConditional", "why: an encoder with cross-attention")
    (folder / "model.safetensors").write_bytes(b"is not opened")
    refused(folder, tmp_path / "o.gguf", "T5ForConditional", "why: an encoder with cross-attention")


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("WhisperForConditionalGeneration", ""),
        ("FooBar", ""),
        ("LlamaForCausalLMM", "LlamaForCausalLM"),
        ("LlamaForTokenClassification", "LlamaForCausalLM"),
    ],
)
def test_a_similar_name_is_told_only_where_there_is_one(folder, tmp_path, name, similar):
    edit(folder, "config.json", architectures=[name])
    refused(folder, tmp_path / "o.gguf", name, f"supported: {similar}" if similar else "missing:")
    with pytest.raises(ggq.GGQError) as error:
        ggq.convert(folder, tmp_path / "o.gguf")
    assert ("most similar" in str(error.value)) == bool(similar)
