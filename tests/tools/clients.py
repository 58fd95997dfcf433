"""Real client packages against a server: `python tests/tools/clients.py URL [PACKAGE ...]`.

Run it with the Python that has the packages; each that is missing is left out. Calls are forced, so
that any model makes them (`ggq serve smollm2-135m -n 64`). A line per package says what was tried,
or what failed.
"""

import asyncio
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

URL = (sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080").rstrip("/")
HI = [{"role": "user", "content": "Say hi."}]
ASK = [{"role": "user", "content": "What is the weather in Bern?"}]
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Bern", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "description": "Weather of a city.", "parameters": PLACE}
TOOL = {"type": "function", "function": WEATHER}


def with_openai():
    import openai

    client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
    short = {"model": "any", "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(messages=HI, **short)
    stream = client.chat.completions.create(messages=HI, stream=True, **short)
    text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    assert text == whole.choices[0].message.content
    forced = {"tools": [TOOL], "tool_choice": "required", "model": "any", "max_tokens": 90}
    first = client.chat.completions.create(messages=ASK, **forced).choices[0]
    (call,) = first.message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Bern", "Rome")
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    again = [*ASK, first.message, result]
    assert client.chat.completions.create(messages=again, tools=[TOOL], **short).choices
    tool = {"type": "function", **WEATHER, "strict": True}
    found = client.responses.create(
        model="any", input="Weather in Bern?", tools=[tool], tool_choice="required"
    )
    assert found.output[-1].name == "get_weather"
    with client.responses.stream(model="any", input="hi", max_output_tokens=8) as events:
        kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and "response.output_text.delta" in kinds
    assert len(client.embeddings.create(model="any", input=["a", "b"]).data) == 2
    assert client.completions.create(prompt="a", **short).choices
    assert client.models.list().data
    return "chat, stream, tools and their results, responses, text, vectors, models"


def with_anthropic():
    import anthropic

    client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
    tool = {"name": "get_weather", "description": "Weather.", "input_schema": PLACE}
    whole = client.messages.create(model="any", max_tokens=12, messages=HI)
    assert whole.content[0].type == "text" and whole.usage.output_tokens
    with client.messages.stream(model="any", max_tokens=12, messages=HI) as stream:
        assert "".join(stream.text_stream) == stream.get_final_text()
    forced = {"tools": [tool], "tool_choice": {"type": "any"}, "model": "any", "max_tokens": 90}
    first = client.messages.create(messages=ASK, **forced)
    (use,) = (block for block in first.content if block.type == "tool_use")
    assert use.input["city"] in ("Bern", "Rome") and first.stop_reason == "tool_use"
    with client.messages.stream(messages=ASK, **forced) as stream:
        assert stream.get_final_message().content[-1].input["city"] in ("Bern", "Rome")
    result = [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}]
    again = [*ASK, {"role": "assistant", "content": first.content}]
    again.append({"role": "user", "content": result})
    assert client.messages.create(model="any", max_tokens=12, messages=again, tools=[tool]).content
    begun = [*HI, {"role": "assistant", "content": "Hi"}]
    assert client.messages.create(model="any", max_tokens=5, messages=begun).content
    assert client.messages.count_tokens(model="any", messages=HI).input_tokens > 3
    try:
        client.messages.create(model="any", max_tokens=0, messages=HI)
    except anthropic.BadRequestError as error:
        assert "max_tokens" in str(error)
    return "messages, stream, tools and their results, a begun answer, tokens counted, errors"


def with_ollama():
    import ollama

    client, short = ollama.Client(URL), {"num_predict": 8, "temperature": 0}
    name = client.list().models[0].model
    whole = client.chat(name, HI, options=short)
    parts = client.chat(name, HI, options=short, stream=True)
    assert "".join(p.message.content for p in parts) == whole.message.content
    assert client.generate(name, "hi", options=short).response is not None
    assert len(client.embed(name, ["a", "b"]).embeddings) == 2
    assert json.loads(client.chat(name, HI, format=PLACE).message.content)["city"]
    assert client.show(name).capabilities and client.ps().models
    return "chat, stream, generate, embed, format, show, ps, list"


def with_litellm():
    import litellm

    litellm.suppress_debug_info = True
    openai = {"model": "openai/any", "api_base": f"{URL}/v1", "api_key": "none", "max_tokens": 8}
    claude = {"model": "anthropic/any", "api_base": URL, "api_key": "none", "max_tokens": 8}
    for given in (openai, claude):
        assert litellm.completion(messages=HI, **given).choices[0].message.content is not None
        assert list(litellm.completion(messages=HI, stream=True, **given))
    forced = {**openai, "max_tokens": 90, "tools": [TOOL], "tool_choice": "required"}
    (call,) = litellm.completion(messages=ASK, **forced).choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    vectors = {"model": "openai/any", "api_base": f"{URL}/v1", "api_key": "none"}
    assert litellm.embedding(input=["a"], **vectors).data
    return "openai/ and anthropic/: chat, stream; tools, vectors"


def with_langchain_openai():
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=f"{URL}/v1", api_key="none", model="any", temperature=0)
    assert chat.bind(max_tokens=8).invoke("hi").content is not None
    assert list(chat.bind(max_tokens=8).stream("hi"))
    forced = chat.bind_tools([TOOL], tool_choice="required")
    assert forced.invoke("Weather in Bern?").tool_calls[0]["name"] == "get_weather"
    shaped = chat.with_structured_output({"title": "place", **PLACE}, method="json_schema")
    assert shaped.invoke("Where?")["city"] in ("Bern", "Rome")
    return "invoke, stream, tools, structured output"


def with_instructor():
    from typing import Literal

    import instructor
    import openai
    from pydantic import BaseModel

    class Place(BaseModel):
        city: Literal["Bern", "Rome"]

    base = openai.OpenAI(base_url=f"{URL}/v1", api_key="none")
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS_STRICT):
        client = instructor.from_openai(base, mode=mode)
        found = client.chat.completions.create(model="any", messages=ASK, response_model=Place)
        assert found.city in ("Bern", "Rome")
    return "tools, strict tools, JSON schema"


def with_llm():
    with tempfile.TemporaryDirectory() as name:
        entry = f"- model_id: ours\n  model_name: any\n  api_base: {URL}/v1\n  api_key_name: none\n"
        (Path(name) / "extra-openai-models.yaml").write_text(entry)
        (Path(name) / "keys.json").write_text('{"none": "x"}')
        words = [sys.executable, "-m", "llm", "-m", "ours", "-o", "max_tokens", "9", "hi"]
        done = subprocess.run(
            [*words, "--no-log"], capture_output=True, text=True, timeout=100, check=False,
            env={**os.environ, "LLM_USER_PATH": name},
        )  # fmt: skip
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
    return "the command, streamed"


def with_openai_agents():
    import agents
    from openai import AsyncOpenAI

    agents.set_tracing_disabled(True)
    settings = agents.ModelSettings(tool_choice="required", max_tokens=90)
    heard = []

    @agents.function_tool
    def get_weather(city: str) -> str:
        """Weather of a city."""
        heard.append(city)
        settings.tool_choice = "none"  # small models would ask again and again
        return "sunny"

    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="none")
    for kind in (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel):
        agent = agents.Agent(
            name="A", instructions="Use the tool, then answer.", tools=[get_weather],
            model=kind(model="any", openai_client=client), model_settings=settings,
            reset_tool_choice=False,
        )  # fmt: skip
        settings.tool_choice = "required"
        run = asyncio.run(agents.Runner.run(agent, "Weather in Bern?", max_turns=3))
        assert heard and run.final_output is not None, (heard, run)
        settings.tool_choice = "required"

        async def streamed(agent=agent):
            run = agents.Runner.run_streamed(agent, "Weather in Rome?", max_turns=3)
            return [event.type async for event in run.stream_events()]

        assert "raw_response_event" in asyncio.run(streamed())
    return "a run with a tool and its result, whole and streamed, on responses and on chat"


PACKAGES = {
    "openai": with_openai, "anthropic": with_anthropic, "ollama": with_ollama,
    "litellm": with_litellm, "langchain-openai": with_langchain_openai,
    "instructor": with_instructor, "llm": with_llm, "openai-agents": with_openai_agents,
}  # fmt: skip


def main():
    """Try each package; return how many failed."""
    failed = 0
    for name in sys.argv[2:] or PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            print(f"{name}: is not installed", flush=True)
            continue
        try:
            print(f"| {name} | {version} | {PACKAGES[name]()} |", flush=True)
        except Exception:
            failed += 1
            print(f"{name} {version}: FAILED\n{traceback.format_exc()[-2500:]}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
