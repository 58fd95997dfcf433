"""The Python interface used wrongly: one GGQError, and sensible answers at the edges."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from ggufmaker import make_tiny_llama

import ggq
from ggq.arguments import checked
from ggq.converters.conversion import Options
from ggq.converters.convert import make_request
from ggq.converters.prepasses.base import parse
from ggq.runtime.cache.memory import free_memory

IDS = [5, 6]
HUGE = 10**30
NAN = float("nan")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", vocab="bpe")


def test_a_closed_model_says_so(path):
    with ggq.load(path, n_ctx=64, threads=1) as model:
        assert len(list(model.generate("the", max_tokens=2, stop=None))) <= 2
    with pytest.raises(ggq.GGQError, match="was closed"):
        model.logits([5])


def test_a_vocabulary_alone_writes_nothing(path):
    with ggq.load(path, vocab_only=True) as model:
        assert model.detokenize(model.tokenize("the")) == "the"
        with pytest.raises(ggq.GGQError, match="vocab_only"):
            list(model.generate("the", max_tokens=2))


def test_one_text_is_one_vector_and_none_is_none(path):
    with ggq.load(path, n_ctx=64, threads=1) as model:
        one = model.embed("the end")
        assert np.array_equal(one, model.embed(["the end"]))
        assert model.embed([]).shape == (0, one.shape[1])


def test_passes_may_be_named(path, tmp_path):
    for name in ("nope", "base"):  # base.py holds what passes share
        with pytest.raises(
            ggq.GGQError, match=f"{name}: unknown; one of activations, awq, distill, gptq"
        ):
            ggq.convert(path, tmp_path / "out.gguf", type="Q8_0", prepasses=[name])


@pytest.fixture(scope="module")
def model(path):
    with ggq.load(path, n_ctx=64, threads=1) as model:
        yield model


WRONG = {  # of each method: argument -> values that it cannot take
    "load": {
        "path": [None, 5, b"x", ["x"]],
        "n_ctx": ["a", 1.5, True, [64]],
        "threads": ["a", 1.5],
        "device": [None, 5],
        "device_weights": [None],
        "cache_type": [
            None,
            5,
            "q9",
            "",
            ("f16",),
            ("f16", "f32", "f16"),
            ("f16", 3),
            ("f16", "q9"),
        ],
        "vocab_only": ["no", 5, None],
    },
    "tokenize": {"text": [None, 5, b"the", ["the"]]},
    "detokenize": {"ids": [None, 5, "the", ["a"], [1.5], [None], [[1]], np.array([1.5])]},
    "logits": {"ids": [None, 5, "the", ["a"], [1.5], np.array([[1, 2]])]},
    "embed": {"texts": [None, 5, [5], b"x"]},
    "generate": {
        "prompt": [None, 5, b"the", ["a"], {"a": 1}],
        "max_tokens": ["5", 1.5, [5], -2, -(10**30)],
        "stop": [5, [5], b"x", [None], "", ["a", ""]],
        "temperature": ["hot", True, 10**400, -1, NAN, float("inf")],
        "top_p": [5, -0.1, NAN],
        "min_p": [NAN, 1.1],
        "top_k": [-1, 0.5],
        "mirostat": [3],
        "seed": [1.5, "x", -1, 2**64, True],
        "logit_bias": [5, [1], {"a": 1}, {1: "x"}, {1: None}, {999: 1}],
        "dry_breakers": [5, "x", [5]],
        "sequence": [5, "zz"],
        "misspelt": [1],
    },
    "chat": {
        "messages": [
            *(None, 5, "hi", [5], {"role": "user", "content": "x"}, [("user", "x")]),
            *([], [{}], [{"content": "x"}], [{"role": 5, "content": "x"}]),
            *([{"role": "user", "content": 5}], [{"role": "user", "content": [5]}]),
        ],
        "tools": [5, "x", [5], {}],
    },
    "convert": {
        "source": [None, 5, b"x"],
        "out": [5, b"x", ""],
        "type": [5, "", " "],
        "force": ["no", 5],
        "provenance": ["maybe"],
        "pure": ["x"],
        "output_tensor_type": [""],
        "via": ["", "f32"],
        "pre": ["", "nope"],
        "quality": [5, "better"],
        "target_bpw": ["x", 0.5, 33, float("nan")],
        "target_kld": ["x", 0.0, -1.0, float("nan"), float("inf")],
        "target_size": [1.5, [5]],
        "tensor_types": ["x=F16", ["F16"], [5]],
        "threads": ["a"],
        "misspelt": [1],
        "prepasses": [None, 5, "gptq", [5]],
        "imatrix": [5],
        "progress": [5],
        "options": [None, {}],
    },
    "evaluate": {
        "text": [None, 5, b"x"],
        "n_ctx": ["a", 1.5],
        "chunks": ["a", 1.5],
        "threads": ["a"],
        "progress": [5],
    },
}
GIVEN = {
    "tokenize": {"text": "the"},
    "generate": {"prompt": "the"},
    "chat": {"messages": [{"role": "user", "content": "x"}]},
}
CASES = [(f, name, value) for f, of in WRONG.items() for name, vs in of.items() for value in vs]


@pytest.mark.parametrize(("function", "name", "value"), CASES)
def test_an_argument_of_the_wrong_type_is_named(function, name, value, path, model, tmp_path):
    own = {
        "load": {"path": path},
        "convert": {"source": path, "out": tmp_path / "o.gguf"},
        "evaluate": {"model": path, "text": "the"},
    }
    given = {**own.get(function, {}), **GIVEN.get(function, {}), name: value}
    call = getattr(ggq, function) if function in own else getattr(model, function)
    with pytest.raises(ggq.GGQError, match=name.replace("_", "[_ -]")) as refused:
        call(**given)  # at the call, before the first piece is asked for
    assert len(str(refused.value)) < 250 and "\n" not in str(refused.value)


def test_what_stands_for_nothing_and_numpys_numbers_are_taken(model):
    options = {"max_tokens": np.int64(2), "seed": np.int64(1), "temperature": np.float32(0)}
    want = list(model.generate("the", **options))
    ids = np.array(model.tokenize("the"))
    assert list(model.generate(ids, stop=None, logit_bias=None, **options)) == want
    assert model.detokenize(iter(model.tokenize("the"))) == "the"
    assert np.array_equal(model.embed(iter(["the"])), model.embed("the"))
    for beyond in ([HUGE], [-1], [999]):
        with pytest.raises(ggq.GGQError, match="token id"):
            model.logits(beyond)


def test_options_and_passes_are_held_to_their_types():
    with pytest.raises(ggq.GGQError, match="threads: expected a whole number or None, not 'a'"):
        Options(threads="a")
    for beyond in (0, -1, 1025):
        with pytest.raises(ggq.GGQError, match=rf"threads must be in 1\.\.1024, not {beyond}"):
            Options(threads=beyond)
    for none in (0, -3):
        with pytest.raises(ggq.GGQError, match=f"'{none}': a size is one byte at least"):
            Options(split_max_bytes=none)
        for size in ("target_size", "split_max_size"):
            with pytest.raises(ggq.GGQError, match=f"'{none}': a size is one byte at least"):
                make_request("a", **{size: none})
    for wrong in ({"damp": "x"}, {"tokens": "x"}, {"tokens": -1}, {"progress": 5}):
        with pytest.raises(ggq.GGQError, match=next(iter(wrong))):
            ggq.prepass.GPTQ(**wrong)
    with pytest.raises(ggq.GGQError, match="n_ctx: expected windows of at least 4 tokens"):
        parse("gptq:n_ctx=0")


@pytest.mark.parametrize("n_ctx", [10**12, HUGE])
def test_a_context_that_no_memory_holds_is_told_in_bytes(path, n_ctx):
    here = "" if free_memory() is None else ", .* GB are free"
    with pytest.raises(ggq.GGQError, match=f"{n_ctx} tokens takes .* GB of memory{here}"):
        ggq.load(path, n_ctx=n_ctx, threads=1)


def test_what_is_no_model_is_not_evaluated():
    for model in (None, 5):
        with pytest.raises(ggq.GGQError, match="neither a file nor an open model"):
            ggq.evaluate(model, "the")


def test_no_windows_are_nothing_to_score(path, model):
    with pytest.raises(ggq.GGQError, match="0 windows: nothing to score"):
        ggq.evaluate(model, "the " * 200, n_ctx=32, chunks=0)


@pytest.mark.parametrize(
    ("hint", "good", "bad", "words"),
    [
        (int, [5, np.int32(5)], [5.0, "5", True, None, np.array([5])], "a whole number"),
        (float, [5, 5.5, np.float32(5)], ["5", True, None, np.array([5.0])], "a number"),
        (bool, [True, False, 0, 1, np.True_], ["no", "", None, 2, 0.0, []], "True or False"),
        (str | None, ["x", None], [5, b"x"], "text or None"),
        (Path | str, ["x", Path("x")], [5, b"x"], "a path or text"),
        (Sequence[int], [[5], (5,), {5}, range(3), iter([5])], [5, "5", {5: 5}], "whole numbers"),
        (Iterable[str], [["x"], []], ["x", ["x", 5]], "a list of texts"),
        (Mapping[int, float], [{}, {1: 2}], [[], 5], "a dictionary"),
        (tuple[str, str], [("a", "b"), ["a", "b"]], [("a",), "ab", 5], "a pair of texts"),
        (Callable[[int], int] | None, [abs, None], [5], "a function or None"),
        (Sequence[str | int], [["x", 5]], [[None]], "a list of texts or whole numbers"),
        (np.ndarray, [np.zeros(3)], [[1]], "ndarray"),
    ],
)
def test_annotations_are_what_is_taken(hint, good, bad, words):
    @checked
    def function(value):
        return value

    function.__wrapped__.__annotations__["value"] = hint
    for value in good:
        function(value)
    for value in bad:
        with pytest.raises(ggq.GGQError, match=f"value: expected .*{words}"):
            function(value)
