"""What ggq serve sets for requests that do not say: tokens, templates, thoughts, the prefix."""

import json
import subprocess

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from click.testing import CliRunner
from servers import CHAT, HI, events, saying, serving

from ggq.commands.serve import command
from ggq.errors import UsageError

THINK = "<think>\nHard it is, very hard.\n</think>\n\nEasy."
SHOUT = "{% for m in messages %}{{ m.content | upper }}!{% endfor %}{{ tone }}"


def chat(client, **body):
    return client.post(CHAT, json={"messages": HI, "temperature": 0, **body})


def prompt(client, **body):
    return client.post("/apply-template", json={"messages": HI, **body}).json()["prompt"]


def test_tokens_of_an_answer(model):
    with serving(model, n_predict=3) as client:
        every = {"ignore_eos": True}
        assert chat(client, **every).json()["usage"]["completion_tokens"] == 3
        assert chat(client, max_tokens=5, **every).json()["usage"]["completion_tokens"] == 5
        text = client.post("/v1/completions", json={"prompt": "a", **every}).json()
        assert text["usage"]["completion_tokens"] == 3
        native = client.post("/completion", json={"prompt": "a", **every}).json()
        assert native["tokens_predicted"] == native["generation_settings"]["n_predict"] == 3
        lines = client.post("/api/chat", json={"model": "m", "messages": HI}).text.splitlines()
        assert json.loads(lines[-1])["eval_count"] <= 3
    with serving(model, n_predict=9, max_tokens=4) as client:
        for given in ({}, {"max_tokens": -1}):  # no limit but the server's
            assert chat(client, ignore_eos=True, **given).json()["usage"]["completion_tokens"] == 4


def test_a_template_in_place_of_the_models(model):
    with serving(model, template=SHOUT, template_kwargs={"tone": "?"}) as client:
        assert prompt(client) == "HI!?"
        assert prompt(client, chat_template_kwargs={"tone": "."}) == "HI!."
        assert client.get("/props").json()["chat_template"] == SHOUT
    with serving(model, template="gemma") as client:
        assert "<start_of_turn>user\nhi<end_of_turn>" in prompt(client)
    with pytest.raises(UsageError, match="there are: chatml"), serving(model, template="none"):
        pass


def test_where_thoughts_stand(model):
    with saying(model, THINK, reasoning_format="none") as client:
        message = chat(client).json()["choices"][0]["message"]
        assert message["content"] == THINK
        assert "reasoning_content" not in message
        deltas = [c["choices"][0]["delta"] for c in events(chat(client, stream=True))]
        assert "".join(d.get("content", "") for d in deltas) == THINK
        beside = chat(client, reasoning_format="deepseek").json()["choices"][0]["message"]
        assert beside["content"] == "Easy."
        native = {"model": "m", "messages": HI, "max_tokens": 99}  # has a place for thoughts
        blocks = client.post("/v1/messages", json=native).json()["content"]
        assert [block["type"] for block in blocks] == ["thinking", "text"]
    with saying(model, THINK, reasoning_format="deepseek-legacy") as client:
        message = chat(client).json()["choices"][0]["message"]
        assert message["content"] == THINK
        assert message["reasoning_content"] == "Hard it is, very hard."


@pytest.mark.parametrize("opened", [False, True], ids=["by the model", "by the prompt"])
def test_a_budget_of_thoughts(model, opened):
    own = model.template.source
    template = f"{own}{{% if add_generation_prompt %}}<think>\n{{% endif %}}" if opened else own
    said = THINK.removeprefix("<think>\n") if opened else THINK
    for budget, thoughts in ((0, ""), (6, "Hard i"), (99, "Hard it is, very hard.")):
        with saying(model, said, reasoning_budget=budget, template=template) as client:
            message = chat(client).json()["choices"][0]["message"]
            found = message.get("reasoning_content", "")
            assert thoughts.startswith(found) and (found == thoughts or budget == 6), budget
            assert len(found) <= max(budget, 0) or budget == 99
    with saying(model, said, template=template) as client:
        message = chat(client, thinking_budget_tokens=4).json()["choices"][0]["message"]
        assert len(message["reasoning_content"]) <= 4
        thinking = {"type": "enabled", "budget_tokens": 4}
        body = {"model": "m", "messages": HI, "max_tokens": 99, "thinking": thinking}
        first = client.post("/v1/messages", json=body).json()["content"][0]
        assert first["type"] == "thinking" and len(first["thinking"]) <= 4
        wrong = client.post(
            "/v1/messages", json={**body, "thinking": {**thinking, "budget_tokens": 0}}
        )
        assert wrong.status_code == 400 and "budget_tokens" in wrong.text


def test_a_budget_and_a_grammar(model):
    pytest.importorskip("llguidance")
    own = model.template.source
    opens = f"{own}{{% if add_generation_prompt %}}<think>\n{{% endif %}}"
    with serving(model, template=opens, reasoning_budget=5) as client:
        body = chat(client, grammar='root ::= "yes"', max_tokens=60).json()
        message = body["choices"][0]["message"]
        assert message["content"] == "yes"
        assert len(message.get("reasoning_content", "")) <= 5  # a character or less a token


def test_no_thoughts_is_told_to_the_template(model):
    template = "{{ enable_thinking is defined and not enable_thinking }}"
    with serving(model, template=template, reasoning_budget=0) as client:
        assert prompt(client) == "True"
        assert prompt(client, chat_template_kwargs={"enable_thinking": True}) == "False"


def test_a_prefix(model):
    with serving(model, prefix="/a/b", api_keys=("k",)) as client:
        key = {"authorization": "Bearer k"}
        assert client.get("/a/b/v1/models", headers=key).json()["data"][0]["id"] == "tiny"
        assert client.get("/a/b/v1/models").status_code == 401
        assert client.get("/a/b/health").status_code == 200  # without a key, as ever
        assert (
            client.get("/a/b", follow_redirects=False, headers=key).headers["location"] == "/a/b/"
        )
        assert "<title>ggq</title>" in client.get("/a/b/").text
        assert client.get("/a/b/page/main.js").status_code == 200
        for path in ("/v1/models", "/", "/a/bc/health", "/health"):
            assert client.get(path, headers=key).status_code == 404, path
        wrong = client.post("/a/b/v1/messages", json={}, headers=key).json()
        assert wrong["type"] == "error"  # Anthropic's own form
        assert 'path="/v1/messages"' in client.get("/a/b/metrics", headers=key).text


def test_props_are_llama_servers(model):
    with serving(model, sampling={"temperature": 0.25}, n_predict=7) as client:
        props = client.get("/props").json()
        params = props["default_generation_settings"]["params"]
        assert (params["temperature"], params["n_predict"]) == (0.25, 7)
        assert params["samplers"][:2] == ["penalties", "dry"]
        assert props["modalities"] == {"vision": False, "audio": False}
        assert props["total_slots"] == 4 and props["n_ctx"] == 1024
        assert "/" not in props["model_path"]
        assert props["build_info"].startswith("ggq-")


WRONG = [
    ("-n", "0"),
    ("--chat-template", "{% if %}"),
    ("--chat-template-file", "missing.jinja"),
    ("--chat-template-kwargs", "[1]"),
    ("--chat-template-kwargs", "{"),
    ("--chat-template-kwargs", '{"messages": 1}'),
    ("--reasoning-format", "loud"),
    ("--reasoning-budget", "-2"),
    ("--api-prefix", "a b"),
    ("--ssl-cert", "missing.pem"),
]


@pytest.mark.parametrize("given", WRONG, ids=lambda given: " ".join(given))
def test_wrong_flags_are_told_before_any_work(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"no model")
    done = CliRunner().invoke(command, ["m.gguf", *given])
    told = str(done.exception or "") + done.output
    assert done.exit_code, told
    assert given[0].lstrip("-") in told or given[0] in told
    assert "m.gguf" not in told


def test_a_certificate_is_checked(tmp_path):
    from ggq.runtime.server.start import check_certificate

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    try:
        files = ["-keyout", str(key), "-out", str(cert)]
        subprocess.run([*make, *files], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl is not here")
    check_certificate(cert, key)
    with pytest.raises(UsageError, match="no certificate and its key"):
        check_certificate(key, cert)
