"""Mistakes as people make them: each ends in one line that says what is wrong or what to do.

A row is the words after ``ggq`` and what the line holds. {m} is a model, {f} a Hugging Face folder.
"""

import shlex
import shutil
from importlib.util import find_spec

import pytest
from ggufmaker import make_tiny_llama
from hfmaker import make_hf
from picturemaker import picture_bytes

from ggq import made
from ggq.cli import main

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
MISTAKES = [
    ("comvert {f}", "did you mean convert?"),
    ("quantise {m}", "did you mean quantize?"),
    ("{m}", "ggq chat"),
    ("lst", "did you mean"),
    ("xyzzy", "ggq --help lists them"),
    ("chat --temprature 1", "--temp"),
    ("chat {m} --temp hot -p x", "'hot' is not a valid float"),
    ("chat {m} --temp -1 -p x", "temperature"),
    ("chat {m} --top-p 5 -p x", "top_p"),
    ("chat {m} --top-k -3 -p x", "top_k"),
    ("chat {m} -n x -p x", "'x' is not a valid integer"),
    ("chat missing.gguf -p x", "missing.gguf: no such file"),
    ("chat qwen3-4bb -p x", "did you mean qwen3-4b?"),
    ("chat empty -p x", "ggq convert"),
    ("chat text.txt -p x", "GGUF"),
    ("chat cut.gguf -p x", "cut.gguf"),
    ("chat lfs.gguf -p x", "git lfs pull"),
    ("chat zero.gguf -p x", "zero.gguf"),
    ("chat {m} -p ''", "the prompt is empty"),
    ("chat {m} -c 8 -p 'the the the the the the the the the the the the'", "--ctx"),
    ("chat {m} --cache-type q9 -p x", "q9"),
    ("chat {m} --device tpu -p x", "tpu"),
    ("chat {m} --template nope -p x", "no chat template"),
    ("chat {m} --draft nope -p x", "neither off, "),
    ("chat {m} --draft-max 0 -p x", "--draft-max"),
    ("chat {m} --threads 0 -p x", "threads must be in 1..1024"),
    ("chat {m} --raw --server http://localhost:1 -p x", "--raw needs the model here"),
    ("chat {m} --grammar 'root ::= (' -j {{}} -p x", "give one of them"),
    ("chat {m} --grammar 'root ::= (' -p x", "--grammar: "),
    ("chat {m} --grammar-file missing.gbnf -p x", "missing.gbnf: No such file"),
    ("chat {m} -j '[' -p x", "--json-schema: is no JSON"),
    ("chat {m} -jf missing.json -p x", "missing.json: No such file"),
    ("run", "Missing argument 'MODEL'"),
    ("run {m} hello -p hello", "give the prompt once"),
    ("convert", "Missing argument 'SOURCE'"),
    ("convert {f} o.gguf --type Q4_K_X", "did you mean Q4_K_"),
    ("convert {f} o.gguf --type ''", "is empty"),
    ("convert missing o.gguf", "missing"),
    ("convert empty o.gguf", "config.json"),
    ("convert {m} o.gguf --type Q8_0 --target-size 5Q", "is no size; write 500M"),
    ("convert {f} o.gguf --tensor-type Q8_0", "expected REGEX=TYPE"),
    ("convert {f} o.gguf --tensor-type ffn=Q8_9", "did you mean Q8_0?"),
    ("convert {f} o.gguf --tensor-type '(=Q8_0'", "("),
    ("convert {f} o.gguf --prepass gptg", "gptq"),
    ("convert {f} o.gguf --prepass gptq:dampp=1", "damp"),
    ("convert {f} o.gguf --quality better", "'better' is not one of"),
    ("convert {f} o.gguf --imatrix missing.dat", "missing.dat"),
    ("convert {f} o.gguf --imatrix text.txt", "text.txt"),
    ("convert {f} o.gguf --recipe missing.yaml", "missing.yaml"),
    ("convert {f} taken.gguf", "--force overwrites it"),
    ("convert {f} no/such/folder/o.gguf", "folder"),
    ("convert {f} o.gguf -o p.gguf", "the output is given twice"),
    ("quantize {m} o.gguf Q9_0", "did you mean Q8_0?"),
    ("quantize {m} o.gguf Q8_0 --type Q4_0", "type is given twice"),
    ("quantize {m} o.gguf Q8_0 two", "unexpected argument"),
    ("info", "Missing argument"),
    ("info missing.gguf", "missing.gguf"),
    ("info text.txt", "text.txt"),
    ("tokenize {m}", "Missing argument"),
    ("eval {m} --text missing.txt", "missing.txt"),
    ("eval {m} --text text.txt", "too short to score"),
    ("bench missing.gguf", "missing.gguf"),
    ("split {m} o --max-size 0", "size"),
    ("hash missing.gguf", "missing.gguf"),
    ("verify missing.gguf", "missing.gguf"),
    ("diff {m}", "Missing argument"),
    ("embed {m} --pooling cls hello", "pooling cls"),
    ("rerank {m} query document", "no reranker"),
    ("classify {m} hello", "no classifier"),
    ("pull nope", "no known name"),
    ("rm nope", "ggq list"),
    ("export {m}", "Missing argument"),
    ("set-metadata {m} o.gguf --set general.name", "KEY"),
    ("completion tcsh", "'tcsh' is not one of"),
    ("serve {m} --port 99999", "99999 is not in the range"),
    ("serve missing.gguf", "missing.gguf"),
    ("batch missing.jsonl o.jsonl -m {m}", "missing.jsonl"),
    ("help cnvert", "did you mean convert?"),
    ("chat {m} --mmproj missing.gguf -p x", "missing.gguf: No such file"),
    ("chat {m} --mmproj text.txt -p x", "text.txt: header: not a GGUF file"),
    ("chat {m} --mmproj {m} -p x", "a projector file (mmproj) says clip"),
    ("serve {m} --mmproj {m}", "a projector file (mmproj) says clip"),
    ("chat {m} --lora missing.gguf -p x", "missing.gguf: No such file"),
    ("chat {m} --lora {m} -p x", "is no LoRA adapter"),
    ("chat {m} --lora {m}=abc -p x", "expected FILE or FILE=SCALE"),
    ("chat {m} --lora '' -p x", "expected FILE or FILE=SCALE"),
    ("chat {m} --lora {f} -p x", "ggq convert hf --base MODEL makes one"),
    ("serve {m} --lora text.txt", "text.txt: header: not a GGUF file"),
    ("serve --lora {m}", "ggq serve MODEL --lora FILE"),
    ("chat {m} --lora {m} --server http://localhost:1 -p x", "told when it starts"),
    ("chat --server http://localhost:1 -p x", "does ggq serve run there?"),
    ("chat --server nowhere -p x", "begins with http://"),
    ("ps --server http://localhost:1", "does ggq serve run there?"),
    ("chat {m} --draft missing.gguf -p x", "neither off, ngram, mtp nor a model"),
    ("chat {m} --draft text.txt -p x", "text.txt: header: not a GGUF file"),
    ("chat {m} --draft mtp -p x", "take ngram"),
    ("chat {m} --grammar-file text.txt -p x", "--grammar-file text.txt: "),
    ("chat {m} --grammar '' -p x", "expected the text of a grammar"),
    ("chat {m} -jf text.txt -p x", "--json-schema-file text.txt: is no JSON"),
    ("chat {m} -j 5 -p x", "expected a JSON schema"),
    ('chat {m} -j \'{{"type": "nope"}}\' -p x', "--json-schema: Invalid type: nope"),
    ("convert {f} out --type W4A15", "did you mean W4A16?"),
    ("convert {f} out.gguf --type W4A16", "name it without .gguf"),
    ("convert {f} out --type W4A16", "--group-size 32 may"),
    ("convert {f} out --type W4A16 --group-size 5", "'5' is not one of '32', '64', '128'"),
    ("convert {f} out --type FP8 --group-size 128", "FP8 has a scale for each row"),
    ("convert {f} out --type W4A16 --ignore '('", "--ignore ("),
    ("convert {f} out --type W4A16 --card", "--card: not for a folder of W4A16"),
    ("convert {f} out --type GPTQ --target-size 1M", "not for a folder of GPTQ"),
    ("convert {f} o.gguf --group-size 128", "for the types of serving engines only"),
    ("convert {f} o.gguf --ignore lm_head", "for the types of serving engines only"),
    ("convert {f} o.gguf --mmproj", "has no vision part"),
    ("convert {f} o.gguf --only-mmproj", "has no vision part"),
    ("convert {f} o.gguf --mmproj-type F16", "needs --mmproj"),
    ("convert {f} o.gguf --base {m}", "is no adapter folder"),
    ("convert {f} o.gguf --merge-lora missing", "missing: no such folder"),
    ("convert {f} o.gguf --merge-lora {f}", "is it a PEFT adapter?"),
    ("convert {f} o.gguf --pre gpt-5", "--pre gpt-5: did you mean"),
    ("convert {f} o.gguf --report r.pdf", "a name in .html or .json"),
    ("convert {f} o.gguf --plan text.txt", "text.txt: is no plan"),
    ("batch text.txt text.txt -m {m}", "name another file or delete it"),
    ("serve {m} --keep-alive 5m", "leave MODEL out"),
    ("serve {m} --api-prefix 'a b'", "expected a path such as /ggq"),
    ("serve {m} --ssl-cert text.txt", "give both, or neither"),
    ("serve {m} --chat-template-kwargs '[]'", '{"enable_thinking": false}'),
    ("serve {m} --chat-template-file missing.jinja", "missing.jinja: No such file"),
    ("merge {m} o.gguf", "it is one file already"),
    ("set-metadata {m} o.gguf", "give --set or --remove"),
    ("export {m} {f}", "--force"),
    ("chat '' -p x", "the model's name is empty"),
    ("chat {m} extra -p x", "unexpected extra argument (extra)"),
    ("chat {m} -c many -p x", "'many' is not a valid integer"),
    ("chat {m} -c -5 -p x", "a context of -5 tokens"),
    ("chat {m} -c 99999999999 -p x", "GB of memory"),
    ("chat {m} -n -5 -p x", "-1 goes on to the context's end"),
    ("chat {m} --seed -1 -p x", "from 0 to 18446744073709551615"),
    ("chat {m} --stop '' -p x", "an empty text would end every answer"),
    ("chat {m} --logit-bias 5 -p x", "expected ID=BIAS"),
    ("chat {m} --logit-bias 99999=1 -p x", "outside the vocabulary"),
    ("chat {m} --samplers quux -p x", "unknown sampler 'quux'"),
    ("chat {m} --mirostat 3 -p x", "from 0 to 2"),
    ("chat {m} --cache-disk lots -p x", "is no size; write 500M"),
    ("chat {m} --image", "requires an argument"),
    ("chat weights.safetensors -p x", "convert its folder (ggq convert)"),
    ("chat https://huggingface.co/Qwen/Qwen3-4B -p x", "goes by its name: Qwen/Qwen3-4B"),
    ("chat hf.co/Qwen/Qwen3-4B -p x", "goes by its name: Qwen/Qwen3-4B"),
    ("chat ../away.gguf -p x", "../away.gguf: no such file"),
    ("run nope hello", "nope: no such file"),
    ("serve {m} --port abc", "'abc' is not a valid integer"),
    ("serve {m} --host 'no host'", "cannot listen on no host:8080: "),
    ("serve --models-dir missing", "missing: is no folder"),
    ("serve {m} --models-dir .", "leave MODEL out"),
    ("serve --memory 4X", "is no size"),
    ("serve --keep-alive soon", "is no duration: 5m"),
    ("serve {m} --api-key ''", "--api-key: is empty"),
    ("serve {m} --api-key-file empty.txt", "empty.txt: holds no key"),
    ("serve {m} --reasoning-format xml", "'xml' is not one of"),
    ("serve {m} -n 0", "-1 for no limit"),
    ("serve {f}", "ggq convert hf"),
    ("convert {f} Q8_0", "--type Q8_0, or ./Q8_0 for a file of that name"),
    ("convert {f}/config.json o.gguf", "give the folder, hf"),
    ("convert text.txt o.gguf", "not a GGUF file"),
    ("convert {f} o.gguf --target-bpw 50", "50.0 is not in the range"),
    ("convert {f} o.gguf --target-size 1", "is too small for this model"),
    ("convert {f} o.gguf --target-size 1M --target-bpw 4", "give one of them"),
    ("convert {f} o.gguf --target-kld -1", "-1.0 is not in the range"),
    ("convert {f} o.gguf --split-max-size 0", "one byte at least"),
    ("convert {f} o.gguf --shard 3/2", "such as 3/16"),
    ("convert {f} o.gguf --task-memory 4G", "only with --cluster"),
    ("convert {f} o.gguf --only-mmproj --mmproj", "give one of them"),
    ("convert {f} o.gguf --quality fast --calibration missing.txt", "missing.txt: no such file"),
    ("quantize {m} Q8_0 o.gguf", "OUT goes before TYPE"),
    ("quantize {m} {m} Q8_0", "is a file that is read; name another"),
    ("eval {m}", "give --text FILE to score"),
    ("eval {m} --text text.txt --ctx 2", "2 is not in the range"),
    ("bench {m} -o xml", "'xml' is not one of"),
    ("split {m} o", "give --max-size or --max-tensors"),
    ("embed {m} hello --dimensions 99999", "the model has"),
    ("pull", "ggq pull --list shows the short names"),
    ("pull a/b/c/d", "no known name, nor org/repo"),
    ("rm ../m.gguf", "is not among the fetched models"),
    ("verify {m} --imatrix text.txt", "goes with --source"),
    ("set-metadata {m} o.gguf --set general.name:u9=3", "u9"),
    ("set-metadata {m} o.gguf --set a.b:u8=300", "300"),
    ("set-metadata {m} o.gguf --remove nope", "nope"),
    ("set-metadata {m} o.gguf --set general.name=@missing.txt", "missing.txt"),
    ("estimate text.txt", "not a GGUF file"),
    ("recommend {f} --ctx 0", "0 is not in the range"),
    ("attest {m}", "convert with --provenance"),
    ("completion", "name a shell: bash, zsh or fish"),
    ("list --avail", "Did you mean '--available'?"),
]
if find_spec("torch"):
    MISTAKES += [("imatrix {f} --text empty.txt -o i.gguf", "too short to calibrate")]
if find_spec("PIL"):
    MISTAKES += [
        ("chat {m} --image missing.png -p x", "missing.png: No such file"),
        ("chat {m} --image text.txt -p x", "is no picture: PNG, JPEG"),
        ("chat {m} --image cat.png -p x", "--mmproj"),
        ("run {m} hi --image {f}", "hf: Is a directory"),
        ("chat {m} --raw --image cat.png -p x", "not with --raw"),
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    make_tiny_llama(folder / "m.gguf", vocab="bpe")
    make_hf(folder / "hf", **SMALL)
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("This is no model.\n")
    (folder / "zero.gguf").touch()
    (folder / "empty.txt").touch()
    shutil.copy(folder / "hf/model.safetensors", folder / "weights.safetensors")
    if find_spec("PIL"):
        (folder / "cat.png").write_bytes(picture_bytes(8))
    (folder / "taken.gguf").write_text("taken")
    (folder / "lfs.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (folder / "cut.gguf").write_bytes((folder / "m.gguf").read_bytes()[:3000])
    return folder


@pytest.mark.parametrize(("words", "told"), MISTAKES)
def test_a_mistake_ends_in_one_line_that_helps(words, told, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(made, "user_cache_dir", lambda: place / "cache")
    before = sorted(p.name for p in place.iterdir())
    code = main(shlex.split(words.format(m="m.gguf", f="hf")))
    lines = capsys.readouterr().err.splitlines()
    assert code in (1, 2) and told in lines[-1], lines
    if code == 2:  # wrong words: how to ask goes before, in three lines
        lines = [line for line in lines if line and not line.startswith(("Usage:", "Try '"))]
    errors = [line for line in lines if line.startswith(("ggq: error: ", "Error: "))]
    assert errors == lines[-1:] and len(errors[0]) < 500
    assert sorted(p.name for p in place.iterdir() if p.name != "cache") == before


def test_there_are_many_of_them():
    assert len({words for words, _ in MISTAKES}) > 180
