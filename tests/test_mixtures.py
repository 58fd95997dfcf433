"""The planner against llama.cpp's own snapshots of which type each tensor gets, and its options."""

import re
from types import SimpleNamespace

import pytest

from ggq import models
from ggq.errors import UsageError
from ggq.gguf import spec
from ggq.quants.mixtures import (
    FILE_TYPES,
    KEPT_ROLES,
    MixtureOptions,
    PlanTensor,
    file_type,
    more_bits,
    plan,
    plan_types,
    tensor_order,
)

SNAPSHOTS = {  # schema -> architecture and row lengths that are no multiple of 256
    "deepseek-v3.1": ("deepseek2", {"attn_k_b": 128}),
    "gemma-3-4b-it": ("gemma3", {}),
    "glm-4.6v": ("glm4moe", {"ffn_down": 10944, "ffn_down_exps": 1408, "ffn_down_shexp": 1408}),
    "gpt-oss-120b": ("gpt-oss", {"attn_output": 4096, "*": 2880}),
    "meta-llama-3.1-70b-instruct": ("llama", {}),
    "nemotron-nano-3-30b-a3b": (
        "nemotron_h_moe",
        {
            "attn_output": 4096,
            "ssm_out": 4096,
            "ffn_down_exps": 1856,
            "ffn_down_shexp": 3712,
            "*": 2688,
        },
    ),
    "qwen3-0.6b": ("qwen3", {}),
    "qwen3-14b": ("qwen3", {}),
    "qwen3-coder-next": ("qwen3next", {}),
    "qwen3.5-397b-a17b": ("qwen35moe", {}),
    "qwen3.6-27b": ("qwen35", {}),
    "step-3.5-flash": ("step35", {}),
}


def read_schema(path):
    """Return (facts, {file type: (base, {tensor: type})}) of a snapshot."""
    text = path.read_text()
    facts = {k: int(v) for k, v in re.findall(r"(n_\w+)=(\d+)", text)}
    sections = {}
    for line in text.splitlines():
        if match := re.match(r"\[(\w+)\] (\w+)", line):
            sections[match[1]] = (match[2], {})
            current = sections[match[1]][1]
        elif line and not line.startswith("#"):
            name, _, kind = line.rpartition(" ")
            current[name] = kind
    return facts, sections


def tensors_of(sections, widths):
    names = {n for _, listed in sections.values() for n in listed}
    tensors = []
    for name in names:
        part = re.sub(r"^blk\.\d+\.|\.weight$", "", name)
        width = widths.get(part, widths.get("*", 4096))
        shape = (8, 512, width) if "_exps" in name or "_k_b" in name else (512, width)
        tensors.append(PlanTensor(name, shape, "F32"))
    return tensors


@pytest.mark.parametrize("arch", models.all_architectures(), ids=lambda a: a.name)
def test_roles_of_a_table_are_those_that_names_say(arch):
    for row in arch.tensors:
        if len(row.shape) > 1 and row.shape[0] != "1":
            name = row.gguf.replace("{i}", "3")
            by_table, by_name = PlanTensor(name, (), "F16", row.role), PlanTensor(name, (), "F16")
            kept = by_table.category in KEPT_ROLES, by_name.category in KEPT_ROLES
            assert all(kept) or by_table.category == by_name.category, name


@pytest.mark.parametrize("schema", SNAPSHOTS)
@pytest.mark.parametrize("wanted", [t for t in FILE_TYPES if t != "BF16"])
def test_snapshots_of_llama_cpp(shared_dir, schema, wanted):
    arch, widths = SNAPSHOTS[schema]
    facts, sections = read_schema(shared_dir / "golden" / "mixtures" / f"{schema}.schema")
    model = SimpleNamespace(
        arch=arch,
        n_block=facts["n_layer"],
        n_head=facts["n_head"],
        n_head_kv=facts["n_head_kv"],
        n_expert=facts.get("n_expert", 0),
    )
    base, exceptions = sections[wanted]
    got = dict(plan_types(tensors_of(sections, widths), model, wanted))
    want = {name: exceptions.get(name, base).upper() for name in got}
    assert {n: t for n, t in got.items() if t != want[n]} == {}


LLAMA = SimpleNamespace(arch="llama", n_block=32, n_head=32, n_head_kv=8, n_expert=0)


def llama_tensors(width=4096, n_layer=32, tied=False):
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    names = [f"blk.{i}.{p}.weight" for i in range(n_layer) for p in parts]
    names += ["token_embd.weight"] + ([] if tied else ["output.weight"])
    norms = [PlanTensor(f"blk.{i}.attn_norm.weight", (width,), "F32") for i in range(n_layer)]
    return norms + [PlanTensor(n, (64, width), "BF16") for n in names]


def test_numbers_are_upstreams():
    gguf = pytest.importorskip("gguf")
    want = {t.name.removeprefix("MOSTLY_").removeprefix("ALL_"): int(t) for t in gguf.LlamaFileType}
    assert {n: want[n] for n in FILE_TYPES} == {n: t.number for n, t in FILE_TYPES.items()}
    assert {n: want.get(n, i) for n, i in spec.FILE_TYPE_IDS.items()} == spec.FILE_TYPE_IDS


def test_file_order_is_block_then_name():
    names = [n for n, _ in plan_types(llama_tensors(n_layer=12), LLAMA, "Q4_0")]
    assert names[:3] == ["output.weight", "token_embd.weight", "blk.0.attn_k.weight"]
    assert names == sorted(names, key=tensor_order)
    assert names.index("blk.2.attn_k.weight") < names.index("blk.10.attn_k.weight")


def test_more_bits_for_28_layers():
    chosen = [i for i in range(28) if more_bits(i, 28)]
    assert chosen == [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27]


def test_norms_keep_their_type_and_tied_embedding_takes_the_output_rule():
    got = dict(plan_types(llama_tensors(tied=True), LLAMA, "Q4_K_S"))
    assert got["blk.0.attn_norm.weight"] == "F32"
    assert got["token_embd.weight"] == "Q6_K"
    assert dict(plan_types(llama_tensors(), LLAMA, "Q4_K_S"))["token_embd.weight"] == "Q4_K"


def test_odd_rows_fall_back_and_are_reported():
    made = plan(llama_tensors(width=288), LLAMA, "Q4_K_M")
    got = dict(made.types)
    assert got["output.weight"] == "Q8_0" and got["blk.5.attn_q.weight"] == "Q5_0"
    assert got["blk.0.attn_v.weight"] == "Q8_0"
    assert ("blk.0.attn_v.weight", "Q6_K", "Q8_0") in made.fallbacks
    assert dict(plan_types(llama_tensors(width=40), LLAMA, "Q8_0"))["blk.0.ffn_up.weight"] == "F16"


def test_imatrix_lifts_the_first_ffn_down_layers():
    for wanted, lifted in (("Q4_0", "Q4_1"), ("Q5_0", "Q5_1")):
        with_it = dict(plan_types(llama_tensors(), LLAMA, wanted, MixtureOptions(imatrix=True)))
        assert with_it["blk.3.ffn_down.weight"] == lifted
        assert with_it["blk.4.ffn_down.weight"] == wanted
        assert dict(plan_types(llama_tensors(), LLAMA, wanted))["blk.3.ffn_down.weight"] == wanted


def test_q2_k_s_names_the_tensors_that_need_importance():
    made = plan(llama_tensors(), LLAMA, "Q2_K_S")
    assert "blk.9.ffn_up.weight" in made.need_imatrix
    assert "token_embd.weight" not in made.need_imatrix
    assert plan(llama_tensors(), LLAMA, "Q2_K").need_imatrix == []


def test_types_around_two_bits_have_rules_of_their_own():
    mixtral = SimpleNamespace(arch="llama", n_block=32, n_head=32, n_head_kv=32, n_expert=8)
    got = dict(plan_types(llama_tensors(), mixtral, "IQ2_XXS"))
    assert {got[f"blk.9.{n}.weight"] for n in ("attn_v", "attn_k")} == {"Q4_K"}
    assert got["blk.9.attn_output.weight"] == got["output.weight"] == "Q5_K"
    assert got["token_embd.weight"] == got["blk.3.ffn_down.weight"] == "Q2_K"
    assert got["blk.4.ffn_down.weight"] == got["blk.9.attn_q.weight"] == "IQ2_XXS"
    made = plan(llama_tensors(), LLAMA, "IQ2_M")
    got = dict(made.types)
    assert (got["blk.9.attn_output.weight"], got["blk.9.ffn_up.weight"]) == ("IQ3_S", "IQ2_S")
    assert "blk.9.ffn_up.weight" in made.need_imatrix
    assert "blk.9.attn_output.weight" not in made.need_imatrix


def test_importance_changes_what_iq3_xxs_mixes():
    for imatrix, down, first in ((False, "Q3_K", "Q4_K"), (True, "IQ3_XXS", "IQ3_XXS")):
        llama = SimpleNamespace(arch="llama", n_block=32, n_head=32, n_head_kv=32, n_expert=0)
        options = MixtureOptions(imatrix=imatrix)
        got = dict(plan_types(llama_tensors(), llama, "IQ3_XXS", options))
        assert (got["blk.3.ffn_down.weight"], got["blk.4.ffn_down.weight"]) == (first, down)
        assert got["blk.9.attn_v.weight"] == ("IQ3_XXS" if imatrix else "IQ3_S")


def test_eight_experts_and_70b_rules():
    mixtral = SimpleNamespace(arch="llama", n_block=32, n_head=32, n_head_kv=8, n_expert=8)
    got = dict(plan_types(llama_tensors(), mixtral, "Q4_K_M"))
    assert got["blk.7.attn_v.weight"] == got["blk.7.attn_k.weight"] == "Q8_0"
    assert got["blk.7.attn_output.weight"] == "Q5_K"
    big = SimpleNamespace(arch="llama", n_block=80, n_head=64, n_head_kv=8, n_expert=0)
    got = dict(plan_types(llama_tensors(n_layer=80), big, "Q4_K_M"))
    assert got["blk.11.attn_v.weight"] == "Q5_K"


def test_overrides_in_their_order():
    options = MixtureOptions(
        tensor_types=((r"ffn_(up|gate)", "q5_k"), ("ffn", "Q8_0")),
        output_tensor_type="q8_0",
        token_embedding_type="F16",
    )
    got = dict(plan_types(llama_tensors(), LLAMA, "Q4_K_M", options))
    assert got["blk.3.ffn_up.weight"] == "Q5_K" and got["blk.3.ffn_down.weight"] == "Q8_0"
    assert got["output.weight"] == "Q8_0" and got["token_embd.weight"] == "F16"
    pure = dict(plan_types(llama_tensors(), LLAMA, "Q4_K_M", MixtureOptions(pure=True)))
    assert {t for n, t in pure.items() if "norm" not in n} == {"Q4_K"}
    half = dict(plan_types(llama_tensors(), LLAMA, "F16", options))
    assert half["blk.3.ffn_up.weight"] == "F16"


def test_names_in_any_case_and_bad_ones_named():
    assert file_type("q4_k").name == file_type(" Q4_K_M").name == "Q4_K_M"
    with pytest.raises(UsageError, match=r"Q4_K_X: did you mean Q4_K_"):
        file_type("Q4_K_X")
    with pytest.raises(UsageError, match=r"NOPE: one of F32, F16, .*, MXFP4_MOE, .*, IQ1_S$"):
        file_type("NOPE")


@pytest.mark.parametrize(
    ("pattern", "kind", "error"),
    [
        ("(", "Q8_0", r"pattern '\(': missing \)"),
        (r"blk\.99\.", "Q8_0", r"pattern 'blk\\.99\\.' matches no tensor"),
        ("ffn", "Q9", "unknown tensor type Q9: one of F32, "),
        ("ffn", "Q6_K_", r"unknown tensor type Q6_K_: did you mean Q6_K\?"),
    ],
)
def test_a_pattern_that_can_have_no_effect_is_named(pattern, kind, error):
    with pytest.raises(UsageError, match=error):
        plan_types(
            llama_tensors(), LLAMA, "Q4_K_M", MixtureOptions(tensor_types=((pattern, kind),))
        )


@pytest.mark.parametrize(("wanted", "kept"), [("F16", True), ("Q4_K_M", True), ("F32", False)])
def test_experts_that_are_mxfp4_already_stay_so(wanted, kept):
    tensor = PlanTensor("blk.0.ffn_up_exps.weight", (4, 64, 256), "MXFP4")
    model = SimpleNamespace(arch="gpt-oss", n_block=1, n_head=4, n_head_kv=4, n_expert=4)
    assert (plan_types([tensor], model, wanted) == [(tensor.name, "MXFP4")]) is kept
