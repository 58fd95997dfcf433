"""lm-evaluation-harness over the server: the scores that transformers gives on the same weights."""

import json

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from servers import listening

import ggq

lm_eval = pytest.importorskip("lm_eval", reason="the extra oracle is not installed")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow
CHOICES = [
    ("Once upon a time, there was a little", [" girl", " zebra", " economy"], 0),
    ("The dog was very", [" quantum", " happy", "."], 1),
    ("She went to the park to", [" play", " compile"], 0),
]
TEXTS = ["Once upon a time there was a cat. The cat was big.", "Lily and Ben like to play."]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
target_delimiter: ""
output_type: {kind}
doc_to_text: "{text}"
doc_to_target: "{target}"
{more}
metric_list: [{{metric: {metric}}}]
"""


def tasks(folder):
    """Write a task of choices and one of whole texts; return what finds them."""
    from lm_eval.tasks import TaskManager

    rows = [{"q": q, "c": c, "a": a} for q, c, a in CHOICES]
    for name, data, fields in (
        ("choices", rows, ("multiple_choice", "{{q}}", "{{a}}", 'doc_to_choice: "{{c}}"', "acc")),
        ("texts", [{"t": t} for t in TEXTS],
         ("loglikelihood_rolling", "", "{{t}}", "", "word_perplexity")),
    ):  # fmt: skip
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in data))
        given = dict(zip(("kind", "text", "target", "more", "metric"), fields, strict=True))
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=path, **given))
    return TaskManager(include_path=str(folder), include_defaults=False)


def test_two_tasks_have_the_scores_of_transformers(shared_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    folder = shared_dir / "models" / "stories15M"
    (path,) = ggq.convert(folder, tmp_path / "m.gguf", type="F32", progress=False)
    with (
        ggq.load(path, n_ctx=256, threads=1, cache_type="f32") as model,
        listening(model) as (address, _),
    ):
        found = lm_eval.simple_evaluate(
            model="local-completions",
            model_args={
                "base_url": f"{address}/v1/completions",
                "model": "any",
                "tokenizer": str(folder),
                "add_bos_token": True,
                "max_length": 256,
            },
            tasks=["choices", "texts"],
            task_manager=tasks(tmp_path),
            log_samples=True,
            bootstrap_iters=0,
        )
    assert found["results"]["choices"]["acc,none"] == 1.0

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def score(ids, begin):
        with torch.no_grad():
            logprobs = reference(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(logprobs[i - 1, ids[i]]) for i in range(begin, len(ids)))

    samples = found["samples"]
    for sample, (question, answers, _) in zip(samples["choices"], CHOICES, strict=True):
        begin = len(tokenizer(question)["input_ids"])
        want = [score(tokenizer(question + answer)["input_ids"], begin) for answer in answers]
        assert np.allclose([resp[0][0] for resp in sample["resps"]], want, atol=1e-3)
    for sample, text in zip(samples["texts"], TEXTS, strict=True):
        ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]  # the harness puts one before
        assert sample["resps"][0][0] == pytest.approx(score(ids, 1), abs=2e-3)
