"""Commands as people know them: llama-quantize's words, other names, what is near, the Tab key."""

import importlib
import importlib.util
import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from ggufmaker import make_tiny_llama
from hfmaker import make_hf

from ggq import hub, made
from ggq.cli import cli
from ggq.errors import UsageError
from ggq.gguf import open_gguf, spec

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


def run(*args):
    return CliRunner().invoke(cli, [str(a) for a in args])


def kind(path):
    with open_gguf(path) as file:
        return spec.type_name(file.tensors["blk.0.ffn_up.weight"].type_id)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(made, "user_cache_dir", lambda: tmp_path / "cache")


@pytest.fixture
def source(tmp_path):
    return make_tiny_llama(tmp_path / "in.gguf", vocab="bpe")


def test_quantize_takes_the_words_of_llama_quantize(source):
    assert run("quantize", source, "out.gguf", "q8_0").exit_code == 0
    assert kind("out.gguf") == "Q8_0"
    assert run("quantize", source, "out2.gguf", "Q4_0", "2").exit_code == 0
    assert kind("out2.gguf") == "Q4_0"
    named = run("quantize", source, "Q5_0")
    assert named.stdout.strip().endswith("-Q5_0.gguf") and kind(named.stdout.strip()) == "Q5_0"
    assert run("quantize", "--outtype", "q4_1", "-o", "out3.gguf", source).exit_code == 0
    assert kind("out3.gguf") == "Q4_1"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["in.gguf", "o.gguf", "Q8_0", "--type", "Q4_0"], "type is given twice: Q8_0 and --type"),
        (["in.gguf", "o.gguf", "Q9_0"], "unknown file type Q9_0: did you mean Q8_0?"),
        (["in.gguf", "o.gguf", "Q8_0", "2", "-j", "3"], "threads is given twice: 2 and --threads"),
        (["in.gguf", "o.gguf", "Q8_0", "2", "x"], "unexpected argument '2'"),
        (["in.gguf", "o.gguf", "-o", "p.gguf"], "the output is given twice: o.gguf and --outfile"),
    ],
)
def test_words_of_quantize_that_contradict_each_other(source, words, told):
    done = run("quantize", *words)
    assert told in done.output + str(done.exception)
    assert not list(Path().glob("[op]*.gguf")) and done.exit_code != 0


def test_the_last_line_says_what_was_written_and_what_is_next(tmp_path, source):
    told = run("quantize", source, "out.gguf", "Q8_0").stderr.splitlines()[-1]
    size = Path("out.gguf").stat().st_size
    assert told.startswith(f"wrote out.gguf ({size / 1e3:.1f} kB, ")
    assert " bits a weight) in " in told and told.endswith(" s; next: ggq chat out.gguf")
    assert run("quantize", source, "again.gguf", "Q8_0", "--quiet").stderr == ""


def test_what_falls_back_is_one_line_and_with_v_each_tensor(tmp_path):
    folder = make_hf(tmp_path / "hf", **SMALL)
    short = run("convert", folder, "a.gguf", "-t", "Q4_K_M", "--dry-run")
    assert short.exit_code == 0
    lines = [
        line for line in run("convert", folder, "a.gguf").stderr.splitlines() if "fall" in line
    ]
    assert len(lines) == 1 and lines[0].endswith("(-v: which)") and "Q4_K to Q5_0" in lines[0]
    every = run("convert", folder, "b.gguf", "-v").stderr
    assert every.count("Q4_K to Q5_0") > 2 and "blk.0.ffn_up.weight: Q4_K to Q5_0" in every


def test_a_folder_stands_for_what_was_made_of_it(tmp_path):
    folder = make_hf(tmp_path / "hf", **SMALL)
    with pytest.raises(UsageError, match="make one: ggq convert"):
        hub.resolve_model(folder)
    assert run("convert", folder, "a.gguf", "-t", "Q8_0").exit_code == 0
    assert hub.resolve_model(folder) == Path("a.gguf").resolve()
    assert run("convert", folder, "b.gguf", "-t", "Q4_0").exit_code == 0
    assert hub.resolve_model("hf") == Path("b.gguf").resolve()
    Path("b.gguf").rename(folder / "c.gguf")
    assert hub.resolve_model(folder) == folder / "c.gguf"
    Path("a.gguf").rename(folder / "d.gguf")
    with pytest.raises(UsageError, match=r"name one of c\.gguf, d\.gguf"):
        hub.resolve_model(folder)
    (tmp_path / "cache/made.json").write_text("[broken")
    with pytest.raises(UsageError, match="a folder of 2 models"):
        hub.resolve_model(folder)


def test_commands_have_their_usual_other_names(source):
    assert run("show", source, "--json").stdout == run("info", source, "--json").stdout
    assert run("ls", "--available").stdout == run("list", "--available").stdout
    assert run("help", "convert").stdout == run("convert", "--help").stdout
    assert run("help", "ls").exit_code == 0
    assert run("help").stdout == run("--help").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["conver"], "no command conver: did you mean convert?"),
        (["shwo"], "no command shwo: did you mean show?"),
        (["frobnicate"], "no command frobnicate: ggq --help lists them"),
        (["in.gguf"], "in.gguf is no command: ggq chat in.gguf talks with it"),
        (["help", "cnvert"], "did you mean convert?"),
        (["convert", "--tipe"], "'--type'"),
    ],
)
def test_what_is_near_is_told(words, told):
    done = run(*words)
    assert done.exit_code == 2 and told in done.output


def test_the_model_may_be_named_as_llama_cpp_has_it(source, monkeypatch):
    asked = []
    for name in ("chat", "run"):
        module = importlib.import_module(f"ggq.commands.{name}")
        monkeypatch.setattr(module, "start", lambda m, o, dialogue: asked.append((m, o["prompt"])))
    assert run("chat", "-m", source, "-p", "hi").exit_code == 0
    assert run("run", "-m", source, "say", "hi").exit_code == 0
    assert run("run", source, "say", "hi").exit_code == 0
    assert asked == [(str(source), "hi")] + [(str(source), "say hi")] * 2
    assert "give the model once" in run("chat", "other.gguf", "-m", source).output
    assert "Missing argument 'MODEL'" in run("run").output


def test_tokens_and_hashes_are_json_where_asked_for(source):
    rows = json.loads(run("tokenize", source, "the end", "--json").stdout)
    ids = run("tokenize", source, "the end", "--ids").stdout.split()
    assert [str(row["id"]) for row in rows] == ids and all(row["text"] for row in rows)
    told = json.loads(run("hash", source, "--json").stdout)
    lines = run("hash", source).stdout.splitlines()
    assert told["sha256"] in lines[-1] and len(told["tensors"]) == len(lines) - 1
    assert json.loads(run("hash", source, "--json", "--no-layer").stdout)["tensors"] == {}


def test_help_has_sections():
    lines = run("--help").stdout.splitlines()
    heads = [line for line in lines if line and not line.startswith(" ") and line.endswith(":")]
    assert heads == ["Options:", "Run:", "Convert:", "Measure:", "Files:", "Other:"]
    assert any(line.startswith("  list, ls ") for line in lines)


def offered(*words, begun):
    complete = ShellComplete(cli, {}, "ggq", "_GGQ_COMPLETE")
    return [(item.value, item.type) for item in complete.get_completions(list(words), begun)]


def test_the_tab_key_completes_commands_types_models_and_files(source, monkeypatch):
    names = [("convert", "plain")]
    assert offered(begun="conv") == names
    assert ("Q4_K_M", "plain") in offered("convert", "x", "--type", begun="q4")
    assert ("Q8_0", "plain") in offered("quantize", "in.gguf", begun="q8")
    assert offered("chat", begun="in.g") == [("in.g", "file")]  # the shell knows files
    assert ("smollm2-135m", "plain") in offered("chat", begun="smol")
    assert ("smollm2-135m", "plain") in offered("pull", begun="smol")
    assert offered("info", begun="in") == [("in", "file")]


def test_a_missing_library_is_told_before_any_work(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    for module in ("ggq.converters.job", "ggq.converters.prepasses.base"):
        hidden = lambda name, *a: None if name == "torch" else found(name, *a)  # noqa: E731
        monkeypatch.setattr(f"{module}.find_spec", hidden)
    for asked in (["--target-size", "1M"], ["--target-kld", "1"], ["--quality", "best"]):
        for dry in ([], ["--dry-run"]):
            done = run("convert", tmp_path / "missing", "o.gguf", *asked, *dry)
            assert isinstance(done.exception, UsageError), done.exception
            assert "[torch]" in str(done.exception) and "pip install" in str(done.exception)
