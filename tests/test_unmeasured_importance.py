"""Zeros in an importance matrix mean "not measured": told, and no weight is lost to them."""

import os
import struct

import numpy as np
import pytest
from hfmaker import make_hf
from test_prepasses import make_experts

import ggq
from ggq import quants
from ggq.cli import main
from ggq.converters.imatrix import Imatrix, read_imatrix, without_gaps, write_imatrix
from ggq.errors import FormatError, UsageError
from ggq.gguf import open_gguf

UP = "blk.0.ffn_up.weight"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unmeasured") / "hf"
    return make_hf(folder, hidden_size=256, intermediate_size=256, num_hidden_layers=1)


def dat(path, entries, calls=1):
    """Write the older form: name -> sums."""
    out = struct.pack("<i", len(entries))
    for name, sums in entries.items():
        raw = np.asarray(sums, "<f4")
        out += struct.pack("<i", len(name)) + name.encode()
        out += struct.pack("<ii", calls, raw.size) + raw.tobytes()
    path.write_bytes(out)
    return path


def values_of(path, name):
    with open_gguf(path) as file:
        kind = quants.by_id(file.tensors[name].type_id)
        return kind.dequantize(np.ascontiguousarray(file.data(name)))


@pytest.mark.parametrize("type_name", ["Q4_K_M", "Q2_K", "Q6_K", "Q4_0"])
def test_a_tensor_of_zeros_is_as_without_importance(source, tmp_path, type_name):
    importance = dat(tmp_path / "i.dat", {UP: np.zeros(256), "blk.0.attn_q.weight": np.ones(256)})
    assert read_imatrix(importance).unmeasured == [UP]
    made = ggq.convert(source, tmp_path / "a.gguf", type_name, imatrix=importance)
    assert any("zeros mean not measured" in w and UP in w for w in made.warnings)
    rest = dat(tmp_path / "r.dat", {"blk.0.attn_q.weight": np.ones(256)})
    (plain,) = ggq.convert(source, tmp_path / "b.gguf", type_name, imatrix=rest)
    np.testing.assert_array_equal(values_of(made[0], UP), values_of(plain, UP))
    assert np.abs(values_of(made[0], UP)).max() > 0


@pytest.mark.parametrize("type_name, told", [("Q4_0", True), ("IQ4_NL", True), ("Q8_0", False)])
def test_tensors_without_importance_are_counted(source, tmp_path, capsys, type_name, told):
    """In every type whose search goes by it, and in no other."""
    importance = dat(tmp_path / "i.dat", {UP: np.ones(256)})
    out = tmp_path / "a.gguf"
    words = ["convert", source, out, "--type", type_name, "--imatrix", importance]
    assert main([os.fspath(word) for word in words]) == 0
    said = capsys.readouterr().err
    assert ("no importance for " in said) == told and f"such as {UP}" not in said


def test_a_matrix_of_nothing_but_zeros_is_told_and_no_importance(source, tmp_path):
    importance = dat(tmp_path / "i.dat", {UP: np.zeros(256)})
    made = ggq.convert(source, tmp_path / "a.gguf", "Q4_K_M", imatrix=importance)
    assert any("zeros mean not measured" in w and UP in w for w in made.warnings)
    assert np.abs(values_of(made[0], UP)).max() > 0


@pytest.mark.parametrize("names, sums, said", [
    (("a", "a"), 1, "entry a is there twice"), (("a", "b"), -1, "entry a: a square below zero"),
])  # fmt: skip
def test_entries_that_no_measuring_gives_are_refused(tmp_path, names, sums, said):
    path = dat(tmp_path / "i.dat", {name: np.full(8, sums) for name in ("a", "b")})
    path.write_bytes(path.read_bytes().replace(b"\1\0\0\0b", b"\1\0\0\0" + names[1].encode()))
    with pytest.raises(FormatError, match=said):
        read_imatrix(path)


@pytest.mark.skipif(os.name != "posix", reason="FIFOs and devices of POSIX")
def test_what_would_be_read_without_end_is_no_matrix(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(UsageError, match="is not a file"):
            read_imatrix(path)


def test_types_that_need_importance_are_refused_without_it(source, tmp_path):
    importance = dat(tmp_path / "i.dat", {UP: np.zeros(256), "blk.0.attn_q.weight": np.ones(256)})
    with pytest.raises(UsageError, match=f"needs an importance matrix .* for .*{UP}"):
        ggq.convert(
            source,
            tmp_path / "a.gguf",
            "IQ2_XS",
            imatrix=importance,
            tensor_types=[f"^(?!{UP}).*=Q4_K"],
        )


@pytest.mark.parametrize("form", [".dat", ".gguf"])
def test_an_expert_that_no_token_reached_keeps_its_weights(tmp_path, form):
    folder = make_experts(tmp_path / "hf")
    with ggq.converters.prepare.prepare(folder, tmp_path / "x.gguf") as job:
        shapes = {n: t.shape for n, t in job.tensors.items() if "_exps." in n}
    name, (n_experts, _, n) = next(iter(shapes.items()))
    sums = np.ones((n_experts, n), np.float32)
    sums[1] = 0
    path = tmp_path / f"i{form}"
    if form == ".dat":
        dat(path, {name: sums.ravel()})
    else:
        write_imatrix(path, {name: sums}, {name: np.ones(n_experts, np.float32)}, "x", (1, 4))
    made = ggq.convert(folder, tmp_path / "a.gguf", "Q4_0", imatrix=path)
    assert any("columns count alike in 1 experts" in w and name in w for w in made.warnings)
    assert (np.abs(values_of(made[0], name)).reshape(n_experts, -1).max(1) > 0).all()


KINDS = ("Q4_0", "Q5_0", "Q2_K", "Q3_K", "Q4_K", "Q6_K", "IQ4_NL", "IQ4_XS")
KINDS += ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [8, 32, 256])
def test_columns_of_zeros_lose_no_weights(kind, width):
    """No group of weights is erased: its error stays near that of measured columns."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 512)).astype(np.float32)
    importance = rng.uniform(0.5, 1.5, 512).astype(np.float32)
    importance[:width] = 0
    found = quants.get(kind)
    values = found.dequantize(found.quantize(x, without_gaps(importance)))
    error = np.sqrt(np.square(values - x)[:, :width].mean())
    even = found.dequantize(found.quantize(x, np.ones(512, np.float32)))
    assert error < 2 * np.sqrt(np.square(even - x)[:, :width].mean())


def test_measured_importance_stays_bit_for_bit():
    rng = np.random.default_rng(0)
    importance = rng.uniform(0, 1, 256).astype(np.float32)
    importance[::3] = 0  # dead columns among others
    assert without_gaps(importance) is importance
    matrix = Imatrix({UP: importance})
    np.testing.assert_array_equal(matrix.slice_for(UP, (4, 256), 0), importance)
    assert (without_gaps(np.zeros(30, np.float32)) == 1).all()
