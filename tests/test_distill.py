"""Distillation: values that the bytes hold, gradients, pieces of a forward, losses that fall."""

import numpy as np
import pytest
from hfmaker import make_hf

from ggq import quants
from ggq.converters.conversion import Options
from ggq.converters.convert import convert
from ggq.converters.prepare import prepare
from ggq.converters.prepasses.base import parse
from ggq.errors import UsageError
from ggq.gguf import open_gguf

torch = pytest.importorskip("torch")

TYPES = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


def latent(rng, name, codes=True):
    from ggq.converters.prepasses.training.latent import Latent

    kind = quants.get(name)
    w = rng.normal(size=(5, 512)).astype(np.float32)
    return kind, Latent(kind, kind.quantize(w), w, codes), w


@pytest.mark.parametrize("name", TYPES)
def test_values_are_those_of_the_blocks_wherever_training_goes(rng, name):
    """Bit for bit, at the start and after every number was moved far."""
    kind, made, w = latent(rng, name)
    np.testing.assert_array_equal(made.values(), kind.dequantize(kind.quantize(w)))
    for kind_of, tensor in made.trained():
        size = 3.0 if kind_of == "codes" else 0.2
        tensor += size * torch.from_numpy(rng.normal(size=tensor.shape).astype(np.float32))
        tensor.requires_grad_()
    made.settle()
    values = made.values()
    np.testing.assert_array_equal(values.detach(), kind.dequantize(made.blocks()))
    assert (values.detach().numpy() != kind.dequantize(kind.quantize(w))).mean() > 0.3
    values.square().sum().backward()
    assert all(torch.isfinite(t.grad).all() for _, t in made.trained())


@pytest.mark.parametrize("name", ["Q3_K", "Q4_K", "Q5_1"])
def test_a_code_has_the_gradient_of_its_scale(rng, name):
    kind, made, w = latent(rng, name)
    codes = next(tensor for k, tensor in made.trained() if k == "codes").requires_grad_()
    made.values().backward(torch.ones(w.shape))
    params, _ = kind.unpack(kind.quantize(w))
    np.testing.assert_allclose(codes.grad, kind.grid(params).scale, rtol=1e-6)


def test_codes_start_where_the_weights_lay(rng):
    """A weight just below the middle between two values needs a small push to the upper one."""
    kind, made, w = latent(rng, "Q4_0")
    codes = next(tensor for k, tensor in made.trained() if k == "codes")
    grid = kind.grid(kind.unpack(kind.quantize(w))[0])
    place = (w + grid.offset) / grid.scale
    inside = np.abs(place - np.rint(place)) < 0.48
    inside &= (place > 0) & (place < 15) & (grid.nearest(w) == np.rint(codes.numpy()))
    np.testing.assert_allclose(codes.numpy()[inside], place[inside], atol=1e-3)
    assert inside.mean() > 0.8


def test_scales_alone_leave_the_codes(rng):
    kind, made, _ = latent(rng, "Q4_K", codes=False)
    assert {k for k, _ in made.trained()} == {"scales"}
    before = kind.unpack(made.blocks())[1]
    for _, tensor in made.trained():
        tensor += 0.1
    np.testing.assert_array_equal(kind.unpack(made.blocks())[1], before)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distill")
    words = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "wizards"]
    order = np.random.default_rng(3).integers(0, len(words), 3000)
    (folder / "text.txt").write_text(" ".join(words[i] for i in order))
    return make_hf(folder / "hf", max_position_embeddings=64, tie_word_embeddings=True)


def test_the_pieces_are_the_forward(source):
    from ggq.converters.calibration.weights import SourceWeights, hparams_of
    from ggq.converters.prepasses.training.tape import Tape
    from ggq.runtime.backends.torch.backend import TorchOps, logits

    ids = np.random.default_rng(0).integers(0, 300, (3, 16))
    with prepare(source, source.parent / "x.gguf", "F32", options=Options(force=True)) as job:
        architecture, hp = hparams_of(job)
        weights = SourceWeights(job.tensors)
        pieces = Tape(architecture, hp, weights).pieces()
        assert [p.block for p in pieces] == [-1, 0, 1, None]
        assert all(len(p.gives) == 1 for p in pieces)
        of_block = set(pieces[1].tensors(weights.__contains__))
        assert of_block == {n for n in job.tensors if n.startswith("blk.0.")}
        ops, held = TorchOps(weights), {}
        with torch.inference_mode():
            for piece in pieces:
                held = piece.run(ops, torch.from_numpy(ids), held)
        want = logits(weights, hp, ids)
    (got,) = held.values()
    np.testing.assert_array_equal(got.reshape(want.shape), want)


def distilled(source, out, kind, *texts):
    given = {"calibration": str(source.parent / "text.txt")}
    return convert(source, out, type=kind, prepasses=[parse(t, **given) for t in texts])[0]


SMALL = "tokens=2048,n_ctx=64,batch=8,held=4"


@pytest.mark.parametrize("kind", ["Q2_K", "Q4_0"])
def test_training_brings_the_file_nearer_to_the_original(source, tmp_path, kind):
    from ggq.runtime.measure.evaluation import evaluate

    base = convert(source, tmp_path / "base.gguf", type="F32")[0]
    plain = convert(source, tmp_path / "plain.gguf", type=kind)[0]
    made = distilled(source, tmp_path / "a.gguf", kind, f"distill:{SMALL},steps=24,final=8")
    again = distilled(source, tmp_path / "b.gguf", kind, f"distill:{SMALL},steps=24,final=8")
    assert made.read_bytes() == again.read_bytes()
    with open_gguf(plain) as a, open_gguf(made) as b:
        types = [{n: t.type_id for n, t in f.tensors.items()} for f in (a, b)]
        assert types[0] == types[1]
        assert "distill" in " ".join(b.metadata)
    text = source.parent / "text.txt"
    found = [evaluate(p, text, base, chunks=8).comparison.kld for p in (plain, made)]
    assert found[1] < 0.8 * found[0]


def test_each_stage_ends_no_worse_than_it_began(source, tmp_path, monkeypatch):
    """On the windows that judge, whatever the steps do: these are far too long."""
    from ggq.converters.prepasses.training.distillation import Distillation

    seen, judge, train = [], Distillation._judge, Distillation._train

    def trained(self, latents, loss, *rest):
        before = judge(self, latents, loss)
        train(self, latents, loss, *rest)
        seen.append((before, judge(self, latents, loss)))

    monkeypatch.setattr(Distillation, "_train", trained)
    wild = f"distill:{SMALL},steps=4,final=4,reach=6,rate=0.3"
    distilled(source, tmp_path / "wild.gguf", "Q4_K_M", wild)
    assert len(seen) == 3 and all(after <= before for before, after in seen)


def test_a_killed_run_goes_on_to_the_same_bytes(source, tmp_path, monkeypatch):
    from ggq.converters.prepasses.training.distillation import Distillation

    text = f"distill:{SMALL},steps=4,final=4"
    whole = distilled(source, tmp_path / "whole.gguf", "Q4_K_M", text)
    train, stages = Distillation._train, []

    def counted(self, *given):
        if len(stages) == 2:
            raise KeyboardInterrupt  # as the steps end to end begin
        stages.append(1)
        train(self, *given)

    monkeypatch.setattr(Distillation, "_train", counted)
    with pytest.raises(KeyboardInterrupt):
        distilled(source, tmp_path / "killed.gguf", "Q4_K_M", text)
    assert list(tmp_path.glob("killed.gguf.unfinished-*"))
    stages.clear()
    again = distilled(source, tmp_path / "killed.gguf", "Q4_K_M", text)
    assert len(stages) == 1, "both blocks were kept"
    assert again.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("killed.gguf.unfinished-*"))


def test_codes_that_an_earlier_pass_chose_stay(source, tmp_path):
    """They were chosen together; scales and norms follow, and only they."""
    gptq = "gptq:tokens=1024,n_ctx=64,sweeps=0"
    solved = distilled(source, tmp_path / "a.gguf", "Q3_K_S", gptq)
    made = distilled(source, tmp_path / "b.gguf", "Q3_K_S", gptq, f"distill:{SMALL},steps=24")
    kind = quants.get("Q3_K")
    with open_gguf(solved) as a, open_gguf(made) as b:
        for name, tensor in a.tensors.items():
            if tensor.type_id == kind.ggml_id:
                assert np.array_equal(*(kind.unpack(f.data(name))[1] for f in (a, b)))
        assert any((a.data(n) != b.data(n)).any() for n in a.tensors)


def test_end_to_end_stays_within_its_memory(source):
    options = Options(force=True)
    with prepare(source, source.parent / "x.gguf", "Q4_K_M", options=options) as job:
        given = {"calibration": str(source.parent / "text.txt")}
        made = parse(f"distill:{SMALL},steps=0,memory=0.00001", **given)
        made(job)
        assert any("end to end needs memory" in w for w in job.warnings)


def test_a_short_text_is_refused(source, tmp_path):
    with pytest.raises(UsageError, match="2 windows are too few to distill"):
        distilled(source, tmp_path / "x.gguf", "Q4_0", "distill:tokens=128,n_ctx=64")
