"""Adapters over HTTP: /lora-adapters, a request's own scales, and what is refused."""

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from hfmaker import make_hf
from loramaker import make_lora
from servers import serving
from test_lora_convert import SMALL, tensors_of

import ggq

ASK = {"prompt": "the quick fox", "max_tokens": 8, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    base = make_hf(folder / "hf", **SMALL)
    held = tensors_of(base / "model.safetensors")
    shapes = {n: x.shape for n, x in held.items() if "proj" in n or "lm_head" in n}
    lora = make_lora(folder / "one", shapes, ("q_proj", "down_proj", "lm_head"), alpha=16)
    ggq.convert(base, folder / "base.gguf", type="F32")
    ggq.convert(lora, folder / "one.gguf", base=base)
    with (
        ggq.load(folder / "base.gguf", n_ctx=1024, threads=1, lora=[folder / "one.gguf"]) as model,
        serving(model) as client,
    ):
        yield client


def text(client, **more):
    found = client.post("/v1/completions", json={**ASK, **more})
    assert found.status_code == 200, found.text
    return found.json()["choices"][0]["text"]


def test_scales_for_all_and_for_one_request(served):
    listed = served.get("/lora-adapters").json()
    assert [(a["id"], a["scale"]) for a in listed] == [(0, 1.0)]
    assert listed[0]["path"].endswith("one.gguf")
    tuned, plain = text(served), text(served, lora=[])
    assert tuned != plain
    assert text(served, lora=[{"id": 0, "scale": 1.0}]) == tuned
    assert served.post("/lora-adapters", json=[]).json() == {"success": True}
    assert served.get("/lora-adapters").json()[0]["scale"] == 0.0
    assert text(served) == plain and text(served, lora=[{"id": 0, "scale": 1}]) == tuned
    assert served.post("/lora-adapters", json=[{"id": 0, "scale": 1}]).status_code == 200
    assert text(served) == tuned


def test_scores_of_an_echoed_prompt_are_of_the_same_scales(served):
    def scores(**more):
        body = {**ASK, "echo": True, "logprobs": 1, **more}
        found = served.post("/v1/completions", json=body).json()
        return found["choices"][0]["logprobs"]["token_logprobs"]

    assert scores(lora=[]) != scores(lora=[{"id": 0, "scale": 1}])
    assert scores(lora=[]) == scores(lora=[])


@pytest.mark.parametrize(
    "lora", [[{"id": 1, "scale": 1}], [{"id": 0}], [{"id": 0, "scale": "x"}], {"id": 0}, [{"a": 1}]]
)
def test_wrong_scales_are_refused(served, lora):
    assert served.post("/v1/completions", json={**ASK, "lora": lora}).status_code == 400
    assert served.post("/lora-adapters", json=lora).status_code == 400
    assert served.get("/lora-adapters").json()[0]["scale"] == 1.0
