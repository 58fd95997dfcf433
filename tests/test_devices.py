"""Names of devices, and the commands that take them; torch's CPU device stands for a GPU."""

import json
import subprocess
import sys

import pytest
from ggufmaker import make_tiny_llama
from schedules import ask, drain

import ggq
from ggq import cli, quants
from ggq.errors import UsageError
from ggq.extras import how_to_install
from ggq.runtime import model
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.engine import devices
from ggq.runtime.engine.devices import Device

torch = pytest.importorskip("torch")

from ggq.runtime.engine.torch import devices as torch_devices  # noqa: E402


@pytest.fixture
def path(tmp_path):
    return str(make_tiny_llama(tmp_path / "tiny.gguf", quants.get("Q4_0").ggml_id))


@pytest.fixture
def at_home(monkeypatch):
    """Let the name mps mean torch's CPU device."""
    real = devices.resolve

    def resolve(name, weights):
        return Device("cpu:0", weights) if name == "mps" else real(name, weights)

    monkeypatch.setattr(model, "resolve", resolve)


def greedy(model, ids, n):
    session = model.session()
    logits = session.evaluate(ids)
    for _ in range(n - 1):
        logits = session.evaluate([int(logits.argmax())])
    text = [*session.ids[len(ids) :], int(logits.argmax())]
    session.close()
    return text


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps"])
def test_devices_that_are_not_here_are_named(name):
    if name.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is a Mac's GPU")
    with pytest.raises(UsageError, match=f"device {name}: torch .* finds none on this machine"):
        devices.resolve(name)


@pytest.mark.parametrize("name", ["tpu", "cpu:0", "cuda:", "cuda:x", "mps:0", "", "cu\nda"])
def test_unknown_devices_are_refused_in_one_line(name):
    with pytest.raises(UsageError, match="one of auto, cpu, mps, cuda") as found:
        devices.resolve(name)
    assert "\n" not in str(found.value)


def test_unknown_ways_to_keep_weights_are_refused():
    with pytest.raises(UsageError, match="device weights q4: one of auto, packed, f16"):
        devices.resolve("cpu", "q4")


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as refused:
        devices.resolve("cuda")
    assert str(refused.value) == f"device cuda needs torch: {how_to_install('torch')}"
    assert devices.resolve("auto") == devices.CPU


@pytest.mark.parametrize(("platform", "has", "want"), [
    ("darwin", True, "mps"), ("darwin", False, "cpu"), ("linux", True, "cpu"),
])  # fmt: skip
def test_auto_is_a_macs_gpu(platform, has, want, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(torch_devices, "has_mps", lambda: has)
    assert devices.resolve("auto").name == want


def test_wrong_cache_types_are_refused(path, at_home):
    with pytest.raises(UsageError, match="cache type q5_0: one of f16"):
        ggq.load(path, device="mps", cache_type="q5_0")
    with (
        ggq.load(path, device="mps", cache_type="q8_0") as opened,
        pytest.raises(UsageError, match="cache type q8_0: f16 or f32"),
    ):
        opened.engine  # noqa: B018


def test_the_cpu_needs_no_torch(path):
    code = (
        "import sys, ggq\n"
        f"model = ggq.load({path!r}, device='auto', threads=1)\n"
        "print(len(list(model.generate('the', max_tokens=2, temperature=0))) > 0)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    uses_torch = sys.platform == "darwin" and torch.backends.mps.is_available()
    assert done.stdout.split() == ["True", str(uses_torch)], done.stderr


# --- commands ---


def test_chat_answers_from_the_device(path, at_home, capsys):
    words = ["run", path, "the", "--raw", "-n", "8", "--temp", "0"]
    assert cli.main([*words]) == 0
    here = capsys.readouterr().out
    assert cli.main([*words, "--device", "mps", "--device-weights", "packed"]) == 0
    assert capsys.readouterr().out == here


def test_server_answers_several_from_the_device(path, at_home):
    with ggq.load(path, device="mps") as there:
        prompts = [there.tokenize(text) for text in ("the inn", "an other", "the in an")]
        alone = [greedy(there, ids, 6) for ids in prompts]
        scheduler = Scheduler(there.engine, there.tokenizer, n_slots=3)
        asked = [
            ask(scheduler, ids, max_tokens=6, ignore_eos=True, logprobs=1)[1] for ids in prompts
        ]
        drain(scheduler)
    assert [[p.token_id for p in answer.pieces] for answer in asked] == alone


def test_bench_times_the_device(path, at_home, capsys):
    words = ["bench", path, "-p", "4", "-n", "2", "-r", "1", "-o", "json"]
    assert cli.main([*words, "--device", "mps"]) == 0
    prompt, decoding = json.loads(capsys.readouterr().out)
    assert prompt["backends"] == "CPU:0"
    assert decoding["share_of_read_bandwidth"] is None


@pytest.mark.parametrize("command", ["run", "bench", "serve"])
def test_commands_tell_a_missing_device_in_one_line(command, path, capsys):
    if torch.backends.mps.is_available():
        pytest.skip("there is a Mac's GPU")
    words = [command, path, "--device", "mps"] + ["the"] * (command == "run")
    assert cli.main(words) != 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "device mps: torch" in captured.err
