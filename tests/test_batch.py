"""Batches: every line answered in order, errors in their place, a killed run resumed."""

import asyncio
import json

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from ggufmaker import make_tiny_llama
from servers import HI

import ggq
from ggq import cli
from ggq.errors import UsageError
from ggq.runtime.server.batch import run_batch
from ggq.runtime.server.service import Service
from ggq.runtime.server.settings import Settings
from ggq.runtime.server.slots import make_scheduler


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return make_tiny_llama(folder / "t.gguf", n_ctx=512, vocab="bpe")


@pytest.fixture(scope="module")
def service(path):
    with ggq.load(path, n_ctx=256, threads=1) as model:
        scheduler = make_scheduler(model, n_slots=3, max_waiting=1000).start()
        yield Service(model, scheduler, Settings())
        scheduler.close()


def line(number, **body):
    given = {"messages": HI, "max_tokens": 1 + number % 5, "temperature": 0, **body}
    return {
        "custom_id": f"r{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": given,
    }


def write(path, lines):
    texts = (x if isinstance(x, str) else json.dumps(x) for x in lines)
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")
    return path


def read(path):
    return [json.loads(text) for text in path.read_text("utf-8").splitlines()]


def test_lines_in_order_with_errors_in_place(service, tmp_path):
    lines = [line(i) for i in range(30)]
    lines[3] = line(3, temperature=-1)
    lines[4] = {"custom_id": "r4", "url": "/v1/nothing", "body": {}}
    lines[5] = "no json"
    lines[6] = {"custom_id": "r6", "url": "/v1/completions", "body": {"prompt": "the"}}
    source, out = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    seen = []
    failed = asyncio.run(run_batch(service, source, out, seen.append))
    found = read(out)
    assert failed == 3
    assert seen == list(range(31))
    assert [f["custom_id"] for f in found] == [None if i == 5 else f"r{i}" for i in range(30)]
    assert found[3]["response"]["status_code"] == 400
    assert found[3]["response"]["body"]["error"]["param"] == "temperature"
    assert found[5]["error"]["code"] == "invalid_line"
    assert found[6]["response"]["body"]["object"] == "text_completion"
    assert found[9]["response"]["body"]["usage"]["completion_tokens"] == 5


def test_a_killed_run_goes_on(service, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(i) for i in range(12)])
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    asyncio.run(run_batch(service, source, whole))
    kept = whole.read_bytes().split(b"\n")
    for cut in (0, 7, 12):
        out.write_bytes(b"".join(text + b"\n" for text in kept[:cut]) + kept[cut][:20])
        before = service.scheduler.stats.finished
        assert asyncio.run(run_batch(service, source, out)) == 0
        assert service.scheduler.stats.finished - before == 12 - cut
        texts = [[f["response"]["body"]["choices"] for f in read(p)] for p in (whole, out)]
        assert texts[0] == texts[1]
    write(source, [line(i) for i in range(50, 60)])
    with pytest.raises(UsageError, match="line 1 answers another input"):
        asyncio.run(run_batch(service, source, out))


@pytest.mark.parametrize("held", [b"my notes\n", b"my notes", b"GGUF\x03\0\n\n", b"{}\n"])
def test_a_file_that_holds_other_things_is_left_alone(service, tmp_path, held):
    source, out = write(tmp_path / "in.jsonl", [{"prompt": 5}]), tmp_path / "out.jsonl"
    out.write_bytes(held)
    with pytest.raises(UsageError, match="line 1 is no answer of a batch"):
        asyncio.run(run_batch(service, source, out))
    assert out.read_bytes() == held


def test_command(path, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [line(i) for i in range(3)] + [line(3, n=0)])
    out = tmp_path / "out.jsonl"
    assert cli.main(["batch", str(source), str(out), "-m", str(path), "-t", "1"]) == 1
    assert len(read(out)) == 4
    err = capsys.readouterr().err
    assert "4/4 lines" in err
    assert "1 lines could not be answered" in err
    assert cli.main(["batch", str(tmp_path / "missing"), str(out), "-m", str(path)]) == 1
    assert "missing" in capsys.readouterr().err


def test_a_model_is_no_file_of_requests(path, tmp_path, capsys):
    assert cli.main(["batch", str(path), str(tmp_path / "out.jsonl"), "-m", str(path)]) == 1
    assert "is a model: SOURCE is a file of requests" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
