"""A batch in byte ranges: the same cuts everywhere, parts whole or absent, merged once in order."""

import json

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from ggq.errors import UsageError
from ggq.runtime.server.batch import output_line
from ggq.runtime.server.parts import Parts, ranges, requests

ASKED = {"model": "m"}


def answers(one, source):
    lines = requests(one.read(source))
    made = (
        output_line(raw, n, json.loads(raw)["custom_id"], (200, {}))
        for n, raw in enumerate(lines, one.number)
    )
    return [json.dumps(line).encode() for line in made]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("\n" + "".join(json.dumps({"custom_id": f"ü{i}"}) + "\n\n" for i in range(21)))
    return path


def test_ranges_hold_every_byte_and_line_once(source):
    cut = ranges(source)
    assert [one.n_lines for one in cut] == [4, 4, 4, 4, 4, 1]
    assert [one.number for one in cut] == [0, 4, 8, 12, 16, 20]
    assert [one.start for one in cut[1:]] == [one.start + one.raw_bytes for one in cut[:-1]]
    assert b"".join(one.read(source) for one in cut).strip() == source.read_bytes().strip()
    source.write_text("{}\n" * 100_000)
    assert {one.n_lines for one in ranges(source)} == {64, 100_000 % 64}


def test_parts_in_any_order_become_one_file(source, tmp_path):
    cut, out = ranges(source), tmp_path / "out.jsonl"
    parts = Parts(source, out, cut)
    parts.belong(ASKED)
    for one in reversed(cut[2:]):
        parts.put(one, answers(one, source))
    again = Parts(source, out, ranges(source))
    again.belong(ASKED)
    assert again.missing() == cut[:2]
    for one in cut[:2]:
        again.put(one, answers(one, source))
    assert again.merge() == 0
    found = [json.loads(x)["custom_id"] for x in out.read_text("utf-8").splitlines()]
    assert found == [f"ü{i}" for i in range(21)]
    assert not parts.folder.exists()
    assert Parts(source, out, cut).complete


def test_what_belongs_to_others_is_refused_and_kept(source, tmp_path):
    cut, out = ranges(source), tmp_path / "out.jsonl"
    parts = Parts(source, out, cut)
    parts.belong(ASKED)
    wrong = answers(cut[1], source)
    for lines in (wrong, answers(cut[0], source)[1:], [b"{}"] * 4):
        with pytest.raises(UsageError, match="does not answer its lines"):
            parts.put(cut[0], lines)
    parts.put(cut[0], answers(cut[0], source))
    with pytest.raises(UsageError, match="another model or other settings"):
        parts.belong({"model": "n"})
    source.write_text(source.read_text().replace("u00fc0", "u00fc9"))
    with pytest.raises(UsageError, match="has changed"):
        cut[0].read(source)
    source.write_text('{"custom_id": "other"}\n')
    with pytest.raises(UsageError, match="parts of another input"):
        Parts(source, out, ranges(source))
    assert (parts.folder / cut[0].name).exists()


def test_a_damaged_part_is_told_not_merged(source, tmp_path):
    cut, out = ranges(source), tmp_path / "out.jsonl"
    parts = Parts(source, out, cut)
    parts.belong(ASKED)
    for one in cut:
        parts.put(one, answers(one, source))
    (parts.folder / cut[3].name).write_bytes(b"")
    with pytest.raises(UsageError, match="delete it and run again"):
        parts.merge()
    assert not out.exists()
