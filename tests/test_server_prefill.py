"""continue_final_message: an answer that was cut off goes on where it ended."""

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from ggufmaker import make_tiny_llama
from servers import CHAT, HI, events, saying

import ggq
from ggq.runtime import formats

START = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", n_ctx=512, vocab="bpe")
    with ggq.load(path, threads=1) as model:
        yield model


def body(**answer):
    return {
        "messages": [*HI, {"role": "assistant", "content": "", **answer}],
        "continue_final_message": True,
    }


@pytest.mark.parametrize(
    ("answer", "prompt"),
    [
        ({"content": "Once upon "}, f"{START}Once upon "),
        ({"reasoning_content": "Let me"}, f"{START}<think>\nLet me"),
        (
            {"reasoning_content": "Let me", "content": "Yes"},
            f"{START}<think>\nLet me\n</think>\n\nYes",
        ),
        ({}, START),
    ],
)
def test_the_prompt_ends_with_the_answer_so_far(model, answer, prompt):
    with saying(model, "x") as client:
        assert client.post("/apply-template", json=body(**answer)).json()["prompt"] == prompt


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_goes_on_with_its_white_space(model, stream):
    with saying(model, " more</think>and") as client:
        answer = client.post(CHAT, json={**body(reasoning_content="one"), "stream": stream})
        if stream:
            deltas = [c["delta"] for e in events(answer) for c in e["choices"]]
            thoughts = "".join(d.get("reasoning_content") or "" for d in deltas)
            text = "".join(d.get("content") or "" for d in deltas)
        else:
            message = answer.json()["choices"][0]["message"]
            thoughts, text = message["reasoning_content"], message["content"]
        assert (thoughts, text) == (" more", "and")
    with saying(model, " <think>no mark") as client:
        answer = client.post(CHAT, json=body(content="one"))
        assert answer.json()["choices"][0]["message"]["content"] == " <think>no mark"


@pytest.mark.parametrize(
    ("said", "thoughts", "prompt", "said_more"),
    [
        ("", "Let me", "<|channel|>analysis<|message|>Let me", ("reasoning", "see")),
        ("It is", "", "<|channel|>final<|message|>It is", ("content", "see")),
        (
            "It is",
            "Let me",
            "<|channel|>analysis<|message|>Let me<|end|><|start|>assistant"
            "<|channel|>final<|message|>It is",
            ("content", "see"),
        ),
    ],
)
def test_harmony_goes_on_within_a_channel(said, thoughts, prompt, said_more):
    """Of gpt-oss: thoughts and the answer are messages, the last of which stays open."""
    form = next(f for f in formats.all_formats() if f.name == "harmony")
    segments, thinking = form.begun(said, thoughts, "<|start|>assistant", False)
    assert "".join(segment.text for segment in segments) == prompt
    assert [s.parse_special for s in segments] == [s.text.startswith("<|") for s in segments]
    parser = form.parser({}, thinking, continued=True)
    found = parser.push("se") + parser.push("e<|end|>") + parser.finish()
    assert [(d.kind, d.text) for d in found] == [(said_more[0], "se"), (said_more[0], "e")]


@pytest.mark.parametrize(
    "messages",
    [
        HI,
        [{"role": "assistant", "content": "a"}],
        [*HI, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
    ],
)
def test_what_cannot_be_continued_is_refused(model, messages):
    with saying(model, "x") as client:
        request = {"messages": messages, "continue_final_message": True}
        answer = client.post(CHAT, json=request)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "continue_final_message"
