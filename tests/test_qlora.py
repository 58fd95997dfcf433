"""Training beside a file's values: frozen weights are its own; the example on two processes."""

import subprocess
import sys

import numpy as np
import pytest
from hfmaker import TEXT, make_hf

from ggq import quants
from ggq.converters.convert import convert
from ggq.errors import UsageError
from ggq.gguf import open_gguf

pytestmark = pytest.mark.slow
EXAMPLE = "docs/examples/qlora.py"
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2}


@pytest.mark.parametrize("tied", [False, True])
def test_frozen_weights_are_those_of_the_file(tmp_path, tied):
    transformers = pytest.importorskip("transformers")
    from ggq.converters.prepasses import qat

    source = make_hf(tmp_path / "hf", tie_word_embeddings=tied, **SMALL)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype="float32")
    with pytest.raises(UsageError, match=r"qat\.prepare first"):
        qat.freeze(model)
    assert qat.prepare(model, "Q4_0")
    qat.freeze(model)
    assert not qat.fake_quants(model) and not any(p.requires_grad for p in model.parameters())
    (path,) = convert(source, tmp_path / "x.gguf", "Q4_0")
    held = dict(model.named_parameters())
    with open_gguf(path) as file:
        for name, hf in (
            ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight"),
            ("blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight"),
            ("token_embd.weight", "model.embed_tokens.weight"),
        ):
            kind = quants.by_id(file.tensors[name].type_id)
            want = kind.dequantize(file.data(name))
            np.testing.assert_array_equal(held[hf].detach().numpy(), want, err_msg=name)
    assert ("lm_head.weight" in held) != tied


def test_the_example_trains_on_two_processes(tmp_path, request):
    pytest.importorskip("peft")
    pytest.importorskip("accelerate")
    source = make_hf(tmp_path / "hf", **SMALL)
    (tmp_path / "text.txt").write_text(TEXT * 20)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command = [*launch, str(request.config.rootpath / EXAMPLE)]
    command += [source, tmp_path / "text.txt", tmp_path / "adapter", "--type", "Q4_0"]
    command += ["--steps", "2", "--window", "32", "--batch", "2", "--rank", "4"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "step 2: loss" in done.stdout
    (adapter,) = convert(tmp_path / "adapter", tmp_path / "adapter.gguf", base=source)
    with open_gguf(adapter) as file:
        assert "blk.0.ffn_down.weight.lora_a" in file.tensors
        trained = file.data("blk.0.ffn_down.weight.lora_b")
    assert np.any(trained)  # it begins as zeros
