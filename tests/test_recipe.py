"""Recipes: YAML and JSON alike, a file's own recipe makes the same bytes, errors are named."""

import json

import pytest
from hfmaker import make_hf

from ggq.cli import main
from ggq.converters.convert import convert
from ggq.converters.prepasses.recipe import KEY, Recipe, read_recipe
from ggq.errors import FormatError, GGQError, UsageError
from ggq.gguf import open_gguf

YAML = """
type: Q4_0
calibration: text.txt
passes:
  - imatrix: {tokens: 512, n_ctx: 64, head: false}
  - gptq:tokens=1024,n_ctx=64,sweeps=1
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 400)
    (folder / "r.yaml").write_text(YAML)
    return make_hf(folder / "hf", max_position_embeddings=64)


def test_yaml_and_json_say_the_same(source):
    yaml = pytest.importorskip("yaml")
    folder = source.parent
    (folder / "r.json").write_text(json.dumps(yaml.safe_load(YAML)))
    found = read_recipe(folder / "r.yaml")
    assert found == read_recipe(folder / "r.json")
    assert found.type == "Q4_0" and found.calibration == str(folder / "text.txt")
    first, second = found.passes()
    assert (first.tokens, first.n_ctx, first.head) == (512, 64, False)
    assert (second.sweeps, second.calibration) == (1, str(folder / "text.txt"))


def test_the_recipe_in_a_file_makes_the_same_bytes(source, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("yaml")
    folder = source.parent
    first, again = tmp_path / "a.gguf", tmp_path / "b.gguf"
    assert main(["convert", str(source), str(first), "--recipe", str(folder / "r.yaml"), "-q"]) == 0
    with open_gguf(first) as file:
        told = json.loads(file.metadata[KEY])
    assert told["type"] == "Q4_0" and [*told["passes"][1]] == ["gptq"]
    text = ["--calibration", str(folder / "text.txt")]
    assert main(["convert", str(source), str(again), "--recipe", str(first), "-q", *text]) == 0
    assert first.read_bytes() == again.read_bytes()
    recipe = read_recipe(folder / "r.yaml")
    made = convert(source, tmp_path / "c.gguf", type=recipe.type, prepasses=recipe.passes())[0]
    assert made.read_bytes() == first.read_bytes()


def test_another_text_is_not_the_recipes(source, tmp_path):
    (tmp_path / "other.txt").write_text("something else")
    recipe = Recipe(sha256="0" * 64, steps=("imatrix",))
    with pytest.raises(UsageError, match=r"other\.txt is not the text that the recipe"):
        recipe.passes(tmp_path / "other.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a recipe is an object"),
        ('{"typ": "Q4_0"}', "typ is not one of type"),
        ('{"type": 4}', "type must be text"),
        ('{"passes": "gptq"}', "passes must be a list"),
        ('{"passes": [{"gptq": 1}]}', "options of gptq must be"),
        ('{"passes": [{"gptq": {"damp": [1]}}]}', "options of gptq must be"),
        ('{"passes": [{"a": {}, "b": {}}]}', "one name with its options"),
        ('{"passes": ["nope"]}', "nope: unknown"),
        ('{"passes": [{"gptq": {"dump": 1}}]}', "dump is not one of"),
        ('{"passes": [{"gptq": {"damp": "x"}}]}', "damp must be a number"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(GGQError, match=message):
        read_recipe(tmp_path / "r.json")


def test_broken_yaml_and_missing_files_are_named(tmp_path, capsys):
    pytest.importorskip("yaml")
    (tmp_path / "r.yaml").write_text("a: [")
    with pytest.raises(FormatError, match=r"r\.yaml: is no YAML"):
        read_recipe(tmp_path / "r.yaml")
    with pytest.raises(UsageError, match="cannot read"):
        read_recipe(tmp_path / "none.yaml")
    given = ["convert", "x", "--recipe", str(tmp_path / "r.yaml"), "--quality", "best"]
    assert main(given) == 1
    assert "--recipe says which passes run" in capsys.readouterr().err


def test_yaml_without_its_library_gives_one_line(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "r.yaml").write_text(YAML)
    with pytest.raises(UsageError, match="to read YAML, pip install pyyaml"):
        read_recipe(tmp_path / "r.yaml")


def test_a_file_without_a_recipe_is_named(source, tmp_path):
    plain = convert(source, tmp_path / "p.gguf", type="Q4_0")[0]
    with pytest.raises(UsageError, match="no recipe in it"):
        read_recipe(plain)
