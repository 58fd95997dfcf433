"""Quantization-aware training: exact fake-quantization, an export that keeps its blocks."""

import numpy as np
import pytest
from hfmaker import make_hf

from ggq import quants
from ggq.cli import main
from ggq.errors import UsageError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TYPES = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"]


@pytest.mark.parametrize("name", TYPES)
def test_fake_quantization_is_what_the_blocks_hold(rng, name):
    from ggq.converters.prepasses.qat import FakeQuant

    kind = quants.get(name)
    fake = FakeQuant(kind)
    weight = torch.from_numpy(rng.normal(size=(6, 512)).astype(np.float32)).requires_grad_()
    made = fake(weight)
    np.testing.assert_array_equal(made.detach().numpy(), kind.dequantize(fake.blocks(weight)))
    made.sum().backward()
    assert (weight.grad == 1).all()
    with torch.no_grad():
        weight += 0.01
    fake.eval()  # other weights under the scales that training ended with
    np.testing.assert_array_equal(fake(weight).detach(), kind.dequantize(fake.blocks(weight)))


def trained(folder, kind):
    """Return a tiny model after some steps of training with fake-quantized weights, its losses."""
    from ggq.converters.prepasses import qat

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    types = qat.prepare(model, kind, every=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 300, (4, 32)))
    losses = []
    model.train()
    for _ in range(6):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), types, losses


@pytest.mark.parametrize(("kind", "tied"), [("Q4_K_M", True), ("Q4_0", False)])
def test_the_exported_file_predicts_as_the_trained_model(tmp_path, kind, tied):
    """Codes and scales in the file are those of the last step; logits are the same."""
    from ggq.converters.prepasses import qat
    from ggq.gguf import open_gguf, spec
    from ggq.models import get
    from ggq.runtime.backends.torch.backend import logits
    from ggq.runtime.engine.weights import Weights

    folder = make_hf(tmp_path / "hf", tie_word_embeddings=tied)
    model, types, losses = trained(folder, kind)
    assert losses[-1] < 0.8 * losses[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    qat.export(model, tmp_path / "trained", tokenizer)
    out = tmp_path / "out.gguf"
    assert main(["convert", str(tmp_path / "trained"), str(out), "-t", kind, "-q"]) == 0
    ids = np.random.default_rng(2).integers(0, 300, 24)
    with open_gguf(out) as file:
        blocks = file.data("blk.1.ffn_down.weight")
        fake, weight = qat.fake_quants(model)["model.layers.1.mlp.down_proj.weight"]
        np.testing.assert_array_equal(blocks, fake.blocks(weight))
        written = {n: spec.type_name(t.type_id) for n, t in file.tensors.items()}
        assert types["model.layers.0.self_attn.v_proj.weight"] == written["blk.0.attn_v.weight"]
        got = logits(Weights(file), get("llama").hparams(file), ids)
    with torch.no_grad():
        want = model(input_ids=torch.from_numpy(ids)[None]).logits[0].numpy()
    np.testing.assert_allclose(got, want, atol=2e-4 * np.abs(want).max())


def test_what_cannot_be_exported_is_said(tmp_path):
    from ggq.converters.prepasses import qat

    folder = make_hf(tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(UsageError, match=r"call qat\.prepare first"):
        qat.export(model, tmp_path / "x")
    qat.prepare(model, "Q8_0")
    with pytest.raises(UsageError, match="is no empty folder"):
        qat.export(model, folder)


def test_what_cannot_be_prepared_is_said(tmp_path):
    from ggq.converters.prepasses import qat

    make_hf(tmp_path / "hf", hidden_size=64, intermediate_size=128)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    with pytest.raises(UsageError, match="every: expected a number at least 1, not 0"):
        qat.prepare(model, "Q4_0", every=0)
    with pytest.raises(UsageError, match="expected one of transformers"):
        qat.prepare(torch.nn.Linear(4, 4), "Q4_0")
    qat.prepare(model, "Q4_0")
    with pytest.raises(UsageError, match="is prepared once"):
        qat.prepare(model, "Q4_0")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is no empty folder"):
        qat.export(model, tmp_path / "file")


def test_a_checkpoint_of_broken_blocks_is_refused(tmp_path, capsys):
    import json

    from ggq.converters.prepasses import qat

    folder = make_hf(tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    qat.prepare(model, "Q4_0")
    made = qat.export(model, tmp_path / "x", transformers.AutoTokenizer.from_pretrained(folder))
    config = json.loads((made / "config.json").read_text())
    config["quantization_config"]["types"]["model.layers.0.mlp.up_proj.weight"] = "Q9_9"
    (made / "config.json").write_text(json.dumps(config))
    assert main(["convert", str(made), str(tmp_path / "o.gguf"), "-q"]) == 1
    assert "gives model.layers.0.mlp.up_proj.weight no block type" in capsys.readouterr().err
