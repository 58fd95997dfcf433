"""The commands convert and quantize: names, overrides, exact plans without a compiler, sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hfmaker import make_hf

from ggq.cli import cli
from ggq.converters.convert import convert
from ggq.converters.metadata.names import name_parts, size_label
from ggq.gguf import open_gguf, spec

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


def run(*args, cwd=None):
    return CliRunner().invoke(cli, [str(a) for a in args])


def test_commands_convert_and_quantize(tmp_path, monkeypatch):
    folder = make_hf(tmp_path / "tiny-llama-1B-chat", **SMALL)
    monkeypatch.chdir(tmp_path)
    done = run("convert", folder, "--type", "q8_0")
    assert done.exit_code == 0 and done.stdout.strip().endswith("-Q8_0.gguf")
    made = Path(done.stdout.strip())
    assert made.is_file() and "tiny-llama" in made.name
    again = run("convert", folder, made, "-t", "Q8_0")
    assert again.exit_code != 0 and "--force" in str(again.exception)
    assert run("convert", folder, made, "-t", "Q8_0", "--force").exit_code == 0
    told = json.loads(run("convert", folder, "told.gguf", "-t", "Q8_0", "--json").stdout)
    assert told["files"] == ["told.gguf"] and told["bytes"] == Path("told.gguf").stat().st_size
    asked = ["quantize", made, tmp_path / "q4.gguf", "Q4_0", "--allow-requantize"]
    asked += ["--tensor-type", "ffn_down=Q5_1", "--output-tensor-type", "q8_0", "-j", "1"]
    assert run(*asked).exit_code == 0
    with open_gguf(tmp_path / "q4.gguf") as file:
        kinds = {n: spec.type_name(t.type_id) for n, t in file.tensors.items()}
    assert kinds["blk.0.ffn_down.weight"] == "Q5_1" and kinds["output.weight"] == "Q8_0"
    assert kinds["blk.0.ffn_up.weight"] == "Q4_0"
    wrong = run("convert", folder, "x.gguf", "--tensor-type", "Q8_0")
    assert "expected REGEX=TYPE" in str(wrong.exception)


def test_dry_run_tells_the_exact_size_and_loads_no_compiler(tmp_path):
    folder = make_hf(tmp_path / "hf", **SMALL)
    code = (
        "import sys; from ggq.cli import main\n"
        f"args = ['convert', {str(folder)!r}, {str(tmp_path / 'x.gguf')!r}]\n"
        "code = main([*args, '--dry-run', '--json'])\n"
        "bad = [m for m in ('numba', 'torch') if m in sys.modules]\n"
        "print(code, bad)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    plan, state = done.stdout.strip().splitlines()
    assert state == "0 []" and not (tmp_path / "x.gguf").exists()
    (path,) = convert(folder, tmp_path / "x.gguf")
    assert json.loads(plan)["bytes"] == path.stat().st_size
    text = run("convert", folder, tmp_path / "y.gguf", "--dry-run").stdout
    assert f"{path.stat().st_size} bytes" in text and "fall back" in text


def test_types_that_need_importance_say_so_before_and_when_it_counts(tmp_path):
    shape = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4}
    folder, out = make_hf(tmp_path / "hf", **shape), tmp_path / "x.gguf"
    asked = ("convert", folder, out, "-t", "IQ2_M")
    planned = run(*asked, "--dry-run")
    assert planned.exit_code == 0 and "warning: IQ2_M needs importance: --imatrix" in planned.stderr
    assert "importance" not in run(*asked, "--dry-run", "--quality", "good").stderr
    assert "IQ2_M needs an importance matrix" in str(run(*asked).exception)
    assert not out.exists()


@pytest.mark.parametrize("option", ["--target-size", "--split-max-size"])
def test_sizes_that_are_none_are_named(tmp_path, option):
    folder = make_hf(tmp_path / "hf", **SMALL)
    for size in ("lots", "0"):
        wrong = run("convert", folder, tmp_path / "x.gguf", option, size)
        assert f"'{size}'" in str(wrong.exception)


def test_a_folder_of_the_hub_cache_is_called_by_its_repository(tmp_path):
    cache = tmp_path / "models--some-org--Tiny-1B-chat" / "snapshots" / "0123abc"
    folder = make_hf(cache, **SMALL)
    (path,) = convert(folder, tmp_path / "x.gguf", "F16")
    with open_gguf(path) as file:
        assert file.metadata["ggq.source"] == "some-org/Tiny-1B-chat"
        assert file.metadata["general.name"] == "Tiny 1B Chat"
        assert file.metadata["general.organization"] == "Some Org"


def test_names_and_sizes():
    parts = name_parts("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400)
    assert (parts.organization, parts.basename) == ("meta-llama", "Llama-3.2")
    assert (parts.size_label, parts.finetune) == ("1B", "Instruct")
    parts = name_parts("Mixtral-8x7B-Instruct-v0.1", 46_702_792_704)
    assert (parts.basename, parts.size_label) == ("Mixtral", "8x7B")
    assert (parts.finetune, parts.version) == ("Instruct", "v0.1")
    assert name_parts("SmolLM2-135M-8k", 134_515_008).finetune == "8k"
    assert name_parts("A plain sentence").name == "A plain sentence"
    assert [size_label(n) for n in (999, 134_515_008, 8_030_261_248)] == ["1.0K", "135M", "8.0B"]
    assert size_label(0, 1_600_000_000, 5_600_000_000, 8) == "8x7.2B"
