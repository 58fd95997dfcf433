"""Passes given nonsense, in odd orders, with nowhere to write to: one true line, before work."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hfmaker import LLAMA, TEXT, make_hf, save, shapes_of, weights

from ggq.cli import main
from ggq.converters.convert import convert
from ggq.converters.imatrix import read_imatrix
from ggq.converters.prepare import prepare
from ggq.converters.prepasses.base import Packed, Prepass, Replaced, parse
from ggq.converters.prepasses.resume import Store
from ggq.errors import FormatError, UsageError
from ggq.gguf import open_gguf


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("misuse")
    (folder / "text.txt").write_text(TEXT * 40, encoding="utf-8")
    return make_hf(folder / "hf", hidden_size=64, intermediate_size=128)


@pytest.fixture(scope="module")
def text(source):
    return str(source.parent / "text.txt")


def failed(capsys, *given):
    """Run a command that must fail; return its last line."""
    assert main([str(part) for part in given]) == 1
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gptq:damp=nan", "damp: expected a number at least 0, not nan"),
        ("gptq:ridge=-1", "ridge: expected a number at least 0, not -1"),
        ("gptq:strength=inf", "strength: expected a number from 0 to 1, not inf"),
        ("gptq:threads=-3", "threads: expected"),
        ("gptq:head=banana", "head must be true or false, not banana"),
        ("gptq:tokens=1e4", "tokens must be a whole number"),
        ("gptq:progress=1", "progress is not one of calibration, tokens"),
        ("awq:chosen=3", "chosen is not one of"),
        ("awq:grid=0", "grid: expected a number at least 1, not 0"),
        ("smooth:strength=50", "strength: expected a number from 0 to 1, not 50"),
        ("distill:batch=0", "batch: expected a number at least 1, not 0"),
    ],
)
def test_options_out_of_range_are_named(given, message):
    with pytest.raises(UsageError, match=f"pre-pass {given}: {message}"):
        parse(given)


def test_what_cannot_be_written_is_refused_before_the_passes(source, tmp_path, capsys):
    started = []
    (tmp_path / "there.gguf").write_bytes(b"")
    for name, message in (("there.gguf", "exists"), ("none/x.gguf", "none: no such folder")):
        with pytest.raises(UsageError, match=message):
            convert(source, tmp_path / name, prepasses=[started.append])
    assert not started
    assert "none: no such folder" in failed(
        capsys, "imatrix", source, "-o", tmp_path / "none/x.dat", "--chunks", 1
    )


def test_a_folder_that_takes_no_files_is_named(source, tmp_path, monkeypatch):
    from ggq.gguf import writer

    monkeypatch.setattr(writer.os, "access", lambda *given: False)  # root may write everywhere
    with pytest.raises(UsageError, match="files cannot be made in this folder"):
        convert(source, tmp_path / "x.gguf", prepasses=[lambda job: pytest.fail("started")])


def test_a_report_that_cannot_be_written_is_named_before_the_work(tmp_path, monkeypatch):
    from ggq.converters.report import write as report

    (tmp_path / "a.html").mkdir()
    with pytest.raises(UsageError, match=r"a\.html: is a folder"):
        report.report_path(tmp_path / "a.html")
    assert report.report_path(tmp_path / "b.html")
    monkeypatch.setattr(report.os, "access", lambda *given: False)
    with pytest.raises(UsageError, match=r"b\.html: cannot be written"):
        report.report_path(tmp_path / "b.html")


def test_a_class_stands_for_its_pass(source, tmp_path):
    import ggq

    class Seen:
        def __call__(self, job):
            job.warnings.append("seen")
            raise UsageError(str(job.warnings[-1]))

    assert dir(ggq.prepass) == [
        "AWQ",
        "Activations",
        "Distill",
        "GPTQ",
        "Importance",
        "Smooth",
        "qat",
    ]
    with pytest.raises(UsageError, match="seen"):
        convert(source, tmp_path / "x.gguf", prepasses=[Seen])


def test_an_earlier_pass_undone_is_told(source, tmp_path):
    warnings = []

    def pack(job):
        tensor = job.tensors["output.weight"]
        blocks = np.zeros((tensor.shape[0], 2 * 34), np.uint8)
        job.tensors["output.weight"] = Packed("output.weight", tensor.shape, "Q8_0", blocks)

    def spoil(job):
        tensor = job.tensors["output.weight"]
        values = tensor.read(0, tensor.shape[0])
        job.tensors["output.weight"] = Replaced("output.weight", tensor.shape, values)
        warnings.append(job.warnings)

    convert(source, tmp_path / "x.gguf", type="Q8_0", prepasses=[pack, spoil])
    (told,) = [w for w in warnings[0] if "codes an earlier pass or the source" in w]
    assert "1 tensors" in told and "output.weight" in told
    warnings.clear()  # blocks of the source are finished, too
    convert(tmp_path / "x.gguf", tmp_path / "y.gguf", type="Q8_0", prepasses=[spoil])
    assert any("spoil" in w and "the source had chosen" in w for w in warnings[0])


def test_a_matrix_measured_anew_leaves_no_keys_of_the_file(source, text, tmp_path, capsys):
    pytest.importorskip("torch")
    given = ["--text", text, "-o", str(tmp_path / "i.gguf"), "--chunks", "2", "-q"]
    assert main(["imatrix", str(source), *given]) == 0
    passes = [parse("imatrix:tokens=1024", calibration=text)]
    imatrix = read_imatrix(tmp_path / "i.gguf")
    with prepare(source, tmp_path / "x.gguf", "Q4_0", imatrix) as job:
        passes[0](job)
        assert any("i.gguf is not used: pass imatrix" in w for w in job.warnings)
        job.run()
    with open_gguf(tmp_path / "x.gguf") as file:
        assert "quantize.imatrix.file" not in file.metadata
        assert file.get("quantize.imatrix.chunks_count", type=int) == 2
        assert "tokens=1024" in file.get("ggq.prepass.imatrix", type=str)


def test_chats_that_are_none_are_named_by_file_and_line(source, tmp_path):
    from ggq.converters.calibration.text import calibrate

    good = {"messages": [{"role": "user", "content": "one line \u2028 to Python two"}]}
    lines = [json.dumps(good, ensure_ascii=False), "", '{"messages": "hi"}']
    (tmp_path / "c.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with (
        prepare(source, tmp_path / "x.gguf") as job,
        pytest.raises(FormatError, match=r"c\.jsonl: line 3: messages: expected a list"),
    ):
        calibrate(job, tmp_path / "c.jsonl")


def test_blocks_of_another_training_are_not_taken(tmp_path):
    """Two models that differ in one matrix only, as a merged adapter leaves them."""

    def store(changed):
        tensors = {}
        for name in ("blk.0.attn_k.weight", "blk.0.attn_q.weight"):
            values = np.full((8, 32), 1 + (name in changed), np.float32)
            tensors[name] = Replaced(name, values.shape, values)
        plan = SimpleNamespace(types=[])
        return Store(SimpleNamespace(tensors=tensors, plan=plan, out=tmp_path / "x.gguf")).folder

    assert store([]) == store([]) != store(["blk.0.attn_q.weight"])


def test_blocks_that_find_no_room_end_in_one_line(tmp_path):
    tensors = {"w": Replaced("w", (1, 32), np.zeros((1, 32), np.float32))}
    plan = SimpleNamespace(types=[])
    out = tmp_path / "none" / "x.gguf"
    store = Store(SimpleNamespace(tensors=tensors, plan=plan, out=out))
    with pytest.raises(UsageError, match="cannot keep what is finished: No such file"):
        store.save("w", np.zeros((1, 34), np.uint8))


@pytest.mark.parametrize("cut", [0, 90])
def test_blocks_that_a_power_failure_cut_are_made_again(tmp_path, cut):
    plan, blocks = SimpleNamespace(types=[]), np.ones((4, 34), np.uint8)
    store = Store(SimpleNamespace(tensors={}, plan=plan, out=tmp_path / "x.gguf"))
    store.save("w", blocks)
    np.testing.assert_array_equal(store.load("w", blocks.shape), blocks)
    (path,) = store.folder.iterdir()
    path.write_bytes(path.read_bytes()[:cut])
    assert store.load("w", blocks.shape) is None


def test_a_report_compares_folded_tensors_with_folded_ones(source, text, tmp_path):
    """Folding moves scales between tensors: that is no error of theirs."""
    pytest.importorskip("torch")
    passes = [parse("awq:tokens=1024,grid=3", calibration=text)]
    with prepare(source, tmp_path / "x.gguf", "Q8_0") as job:
        given = dict(job.original)
        passes[0](job)
        moved = [n for n, t in job.tensors.items() if t is not given[n]]
        assert moved
        for name in moved:
            assert job.original[name] is job.tensors[name]


def test_plans_and_calibrations_that_do_nothing_are_told(source, tmp_path, capsys):
    plan = {"tensors": {"blk.0.attn_norm.weight": "Q4_0", "output.weight": "q8_0"}}
    (tmp_path / "p.json").write_text(json.dumps(plan))
    out, text = str(tmp_path / "x.gguf"), tmp_path / "text.txt"
    text.write_text("words")
    given = ["--plan", str(tmp_path / "p.json"), "--calibration", str(text), "--type", "Q5_0"]
    assert main(["convert", str(source), out, *given]) == 0
    told = capsys.readouterr().err
    assert "p.json: blk.0.attn_norm.weight stays F32, Q4_0 is not for it" in told
    assert "output.weight stays" not in told
    assert "--calibration is not used" in told


@pytest.mark.parametrize(
    ("kind", "given", "left_out"),
    [
        ("F16", ["--quality", "best"], "gptq: left out, F16 leaves it nothing to choose"),
        (
            "BF16",
            ["--prepass", "smooth", "--prepass", "imatrix"],
            "smooth, imatrix: left out, BF16",
        ),
        ("Q8_0", ["--prepass", "imatrix"], "imatrix: left out, Q8_0"),
    ],
)
def test_nothing_is_calibrated_that_a_type_does_not_need(
    source, tmp_path, capsys, monkeypatch, kind, given, left_out
):
    """No pass runs, the file holds the plain bytes, and a line says so."""
    pytest.importorskip("torch")
    monkeypatch.setattr(Prepass, "windows", None)
    plain, made = tmp_path / "a.gguf", tmp_path / "b.gguf"
    assert main(["convert", str(source), str(plain), "-t", kind]) == 0
    assert main(["convert", str(source), str(made), "-t", kind, *given]) == 0
    assert left_out in capsys.readouterr().err
    with open_gguf(plain) as a, open_gguf(made) as b:
        assert all(np.array_equal(a.data(n), b.data(n)) for n in a.tensors)
        assert not any(key.startswith(("ggq.prepass", "ggq.recipe")) for key in b.metadata)


def test_an_embedding_that_stays_is_not_surveyed(source, text, tmp_path, monkeypatch):
    """A tied head in F16 has no codes: the teacher does not run for it beforehand."""
    pytest.importorskip("torch")
    from ggq.converters.prepasses.solving import streams

    runs, run = [], streams.StreamOps.run
    monkeypatch.setattr(streams.StreamOps, "run", lambda *a: runs.append(1) or run(*a))
    tied = make_hf(
        tmp_path / "tied", hidden_size=64, intermediate_size=64, tie_word_embeddings=True
    )
    for kind, n in (("F16", 1), ("Q8_0", 3)):
        given = {"prepasses": [parse("gptq:tokens=1024", calibration=text)]}
        convert(tied, tmp_path / f"{kind}.gguf", "Q8_0", token_embedding_type=kind, **given)
        assert len(runs) == n


def test_targets_that_are_no_numbers_and_plans_without_a_folder(source, tmp_path, capsys):
    command = ["convert", source, tmp_path / "x.gguf"]
    assert failed(capsys, *command, "--target-bpw", "nan").endswith(
        "expected a number from 1 to 32"
    )
    plan = tmp_path / "none" / "p.json"
    assert "no such folder" in failed(capsys, *command, "--target-bpw", "6", "--plan", plan)


def test_eval_names_the_text_and_checks_the_plot_first(source, text, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (path,) = convert(source, tmp_path / "x.gguf", type="F16")
    (tmp_path / "short.txt").write_text("hello")
    told = failed(capsys, "eval", path, "--text", tmp_path / "short.txt", "-q")
    assert "short.txt: too short to score" in told
    base = ["--text", tmp_path / "none.txt", "--against", "none.gguf"]  # never looked for
    for name, message in (("p.xyz", "p.xyz: a name in ."), ("none/p.png", "none is no folder")):
        assert message in failed(capsys, "eval", path, *base, "--plot", tmp_path / name)
    assert main(["eval", str(path), "--prompts", text, "-n", "-3"]) == 2


def test_inputs_that_are_not_finite_or_too_large_are_named(source, text, tmp_path, capsys):
    pytest.importorskip("torch")
    folder, sizes = tmp_path / "hf", {"hidden_size": 64, "intermediate_size": 128}
    make_hf(folder, **sizes)
    rng = np.random.RandomState(1)
    tensors = {n: weights(rng, s) for n, s in shapes_of({**LLAMA, **sizes, "vocab_size": 384})}
    up = tensors["model.layers.0.mlp.up_proj.weight"]
    command = ["--calibration", text, "--target-bpw", 6, "-q"]
    for factor, message in ((np.nan, "are not finite"), (1e25, "are too large")):
        save(folder, tensors | {"model.layers.0.mlp.up_proj.weight": up * np.float32(factor)})
        told = failed(capsys, "imatrix", folder, "--text", text, "-o", tmp_path / "i.dat")
        assert f"the inputs of blk.0.ffn_down.weight {message}" in told
        if message == "are not finite":
            told = failed(capsys, "convert", folder, tmp_path / "x.gguf", *command)
            assert "block 0 gives values that are not finite" in told


def test_experts_that_no_token_reaches_are_told(text, tmp_path, capsys):
    pytest.importorskip("torch")
    from safetensors.numpy import load_file
    from test_prepasses import make_experts

    folder = make_experts(tmp_path / "moe")
    config = json.loads((folder / "config.json").read_text()) | {"num_experts_per_tok": 1}
    (folder / "config.json").write_text(json.dumps(config))
    tensors, name = load_file(folder / "model.safetensors"), "block_sparse_moe.gate.weight"
    gate = tensors[f"model.layers.0.{name}"]
    gate[3] = (gate[0] + gate[1]) / 2  # never above both
    save(folder, tensors)
    given = ["--text", text, "-o", str(tmp_path / "i.gguf"), "--chunks", "2", "-q"]
    assert main(["imatrix", str(folder), *given]) == 0
    told = capsys.readouterr().err
    assert "reaches 3 experts' matrices, such as number 3 of blk.0.ffn_" in told


def test_every_small_type_has_a_better_one_to_suggest():
    from ggq import quants

    lattices = [q for q in quants.all() if q.name.startswith("IQ")]
    assert len(lattices) == 9 and all(q.better for q in lattices)
    for name, better in [(q.name, q.better) for q in quants.all() if q.better]:
        small, large = quants.get(name), quants.get(better)
        assert large.bits_per_weight > small.bits_per_weight
        assert small.block_size % large.block_size == 0  # the same rows can have it
