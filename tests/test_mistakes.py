"""Sixty mistakes as people make them: each ends in one line that says what is wrong or what to do.

A row is the words after ``ggq`` and what the line holds. {m} is a model, {f} a Hugging Face folder.
"""

import shlex

import pytest
from ggufmaker import make_tiny_llama
from hfmaker import make_hf

from ggq import made
from ggq.cli import main

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
MISTAKES = [
    ("comvert {f}", "did you mean convert?"),
    ("quantise {m}", "did you mean quantize?"),
    ("{m}", "ggq chat"),
    ("lst", "did you mean"),
    ("xyzzy", "ggq --help lists them"),
    ("chat --temprature 1", "--temp"),
    ("chat {m} --temp hot -p x", "'hot' is not a valid float"),
    ("chat {m} --temp -1 -p x", "temperature"),
    ("chat {m} --top-p 5 -p x", "top_p"),
    ("chat {m} --top-k -3 -p x", "top_k"),
    ("chat {m} -n x -p x", "'x' is not a valid integer"),
    ("chat missing.gguf -p x", "missing.gguf: no such file"),
    ("chat qwen3-4bb -p x", "did you mean qwen3-4b?"),
    ("chat empty -p x", "ggq convert"),
    ("chat text.txt -p x", "GGUF"),
    ("chat cut.gguf -p x", "cut.gguf"),
    ("chat lfs.gguf -p x", "git lfs pull"),
    ("chat zero.gguf -p x", "zero.gguf"),
    ("chat {m} -p ''", "the prompt is empty"),
    ("chat {m} -c 8 -p 'the the the the the the the the the the the the'", "--ctx"),
    ("chat {m} --cache-type q9 -p x", "q9"),
    ("chat {m} --device tpu -p x", "tpu"),
    ("chat {m} --template nope -p x", "no chat template"),
    ("chat {m} --draft nope -p x", "neither off, "),
    ("chat {m} --draft-max 0 -p x", "--draft-max"),
    ("chat {m} --threads 0 -p x", "threads must be in 1..1024"),
    ("chat {m} --raw --server http://localhost:1 -p x", "--raw needs the model here"),
    ("chat {m} --grammar 'root ::= (' -j {{}} -p x", "give one of them"),
    ("chat {m} --grammar 'root ::= (' -p x", "--grammar: "),
    ("chat {m} --grammar-file missing.gbnf -p x", "missing.gbnf: No such file"),
    ("chat {m} -j '[' -p x", "--json-schema: is no JSON"),
    ("chat {m} -jf missing.json -p x", "missing.json: No such file"),
    ("run", "Missing argument 'MODEL'"),
    ("run {m} hello -p hello", "give the prompt once"),
    ("convert", "Missing argument 'SOURCE'"),
    ("convert {f} o.gguf --type Q4_K_X", "did you mean Q4_K_"),
    ("convert {f} o.gguf --type ''", "is empty"),
    ("convert missing o.gguf", "missing"),
    ("convert empty o.gguf", "config.json"),
    ("convert {m} o.gguf --type Q8_0 --target-size 5Q", "is no size; write 500M"),
    ("convert {f} o.gguf --tensor-type Q8_0", "expected REGEX=TYPE"),
    ("convert {f} o.gguf --tensor-type ffn=Q8_9", "did you mean Q8_0?"),
    ("convert {f} o.gguf --tensor-type '(=Q8_0'", "("),
    ("convert {f} o.gguf --prepass gptg", "gptq"),
    ("convert {f} o.gguf --prepass gptq:dampp=1", "damp"),
    ("convert {f} o.gguf --quality better", "'better' is not one of"),
    ("convert {f} o.gguf --imatrix missing.dat", "missing.dat"),
    ("convert {f} o.gguf --imatrix text.txt", "text.txt"),
    ("convert {f} o.gguf --recipe missing.yaml", "missing.yaml"),
    ("convert {f} taken.gguf", "--force overwrites it"),
    ("convert {f} no/such/folder/o.gguf", "folder"),
    ("convert {f} o.gguf -o p.gguf", "the output is given twice"),
    ("quantize {m} o.gguf Q9_0", "did you mean Q8_0?"),
    ("quantize {m} o.gguf Q8_0 --type Q4_0", "type is given twice"),
    ("quantize {m} o.gguf Q8_0 two", "unexpected argument"),
    ("info", "Missing argument"),
    ("info missing.gguf", "missing.gguf"),
    ("info text.txt", "text.txt"),
    ("tokenize {m}", "Missing argument"),
    ("eval {m} --text missing.txt", "missing.txt"),
    ("eval {m} --text text.txt", "too short to score"),
    ("bench missing.gguf", "missing.gguf"),
    ("split {m} o --max-size 0", "size"),
    ("hash missing.gguf", "missing.gguf"),
    ("verify missing.gguf", "missing.gguf"),
    ("diff {m}", "Missing argument"),
    ("embed {m} --pooling cls hello", "pooling cls"),
    ("rerank {m} query document", "no reranker"),
    ("classify {m} hello", "no classifier"),
    ("pull nope", "no known name"),
    ("rm nope", "ggq list"),
    ("export {m}", "Missing argument"),
    ("set-metadata {m} o.gguf --set general.name", "KEY"),
    ("completion tcsh", "'tcsh' is not one of"),
    ("serve {m} --port 99999", "99999 is not in the range"),
    ("serve missing.gguf", "missing.gguf"),
    ("batch missing.jsonl o.jsonl -m {m}", "missing.jsonl"),
    ("help cnvert", "did you mean convert?"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    make_tiny_llama(folder / "m.gguf", vocab="bpe")
    make_hf(folder / "hf", **SMALL)
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("This is no model.\n")
    (folder / "zero.gguf").touch()
    (folder / "taken.gguf").write_text("taken")
    (folder / "lfs.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (folder / "cut.gguf").write_bytes((folder / "m.gguf").read_bytes()[:3000])
    return folder


@pytest.mark.parametrize(("words", "told"), MISTAKES)
def test_a_mistake_ends_in_one_line_that_helps(words, told, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(made, "user_cache_dir", lambda: place / "cache")
    before = sorted(p.name for p in place.iterdir())
    code = main(shlex.split(words.format(m="m.gguf", f="hf")))
    lines = capsys.readouterr().err.splitlines()
    assert code in (1, 2) and told in lines[-1], lines
    if code == 2:  # wrong words: how to ask goes before, in three lines
        lines = [line for line in lines if line and not line.startswith(("Usage:", "Try '"))]
    errors = [line for line in lines if line.startswith(("ggq: error: ", "Error: "))]
    assert errors == lines[-1:] and len(errors[0]) < 500
    assert sorted(p.name for p in place.iterdir() if p.name != "cache") == before


def test_there_are_sixty_of_them():
    assert len({words for words, _ in MISTAKES}) >= 60
