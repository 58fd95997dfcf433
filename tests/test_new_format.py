"""A way to write tool calls is one file: one that is added is recognized, read and forced."""

import json

import pytest

pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("llguidance")

from newfiles import copy_package, run_in

FORMAT = '''
"""Shout: CALL! before a JSON object and a line's end after it."""

from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

WRITTEN = Written(call=('CALL!{"name": "$NAME", "arguments": ', "}\\n"), marks=("CALL!",))


class Shout(MarkedFormat):
    name = "shout"
    calls = (("CALL!", "\\n"),)
    reader = JsonReader
    written = WRITTEN


FORMAT = Shout()
'''

SCRIPT = """
import json
from ggq.runtime.server.constraints import Constraints
from ggq.runtime.formats import choose_format
from ggq.runtime.server.schema import ChatBody, Message


class Bytes:
    n_vocab, eos_id, bos_id, eog_ids, ids = 257, 256, None, frozenset({256}), {}
    token_bytes = staticmethod(lambda i: bytes([i]) if i < 256 else b"<end>")
    is_control = staticmethod(lambda i: i == 256)
    encode = staticmethod(lambda text, **more: list(text.encode()))


form = choose_format("{% if tools %}CALL!{% endif %}", {"a", "b"})
said = {"name": form.name, "others": choose_format("<tool_call>", ()).name}
text = 'Well. CALL!{"name": "add", "arguments": {"a": 1}}\\n'
parser = form.parser({"add": {}}, False)
deltas = [d for letter in text for d in parser.push(letter)] + parser.finish()
said["content"] = "".join(d.text for d in deltas if d.kind == "content")
said["calls"] = [d.call.name for d in deltas if d.call]
said["arguments"] = "".join(
    d.call.arguments if d.call else d.text for d in deltas if d.kind == "call")
tool = {"type": "function", "function": {"name": "add", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}
body = ChatBody(messages=[Message("user", "x")], tools=[tool], tool_choice="required")
matcher = Constraints(Bytes(), form).of(body, [tool], False)()
for byte in text[text.index("CALL!"):].encode():
    assert matcher.allows(byte), chr(byte)
    matcher.accept(byte)
said["ends"] = matcher.allows(256)
print(json.dumps(said))
"""


def test_a_format_that_is_added_works(tmp_path):
    package = copy_package(tmp_path, {"runtime/formats/shout.py": FORMAT})
    said = run_in(package, SCRIPT)
    assert said.pop("arguments") == json.dumps({"a": 1})
    want = {"name": "shout", "others": "hermes", "content": "Well.", "calls": ["add"], "ends": True}
    assert said == want
