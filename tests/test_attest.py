"""Statements about files, signatures of files, and what differs between two of them."""

import hashlib
import json
import sys

import pytest
from hfmaker import make_hf

from ggq import cli
from ggq.converters.convert import convert
from ggq.gguf import open_gguf


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attest") / "my-model"
    return make_hf(folder, num_hidden_layers=1, hidden_size=64, intermediate_size=96)


@pytest.fixture(scope="module")
def made(source):
    (path,) = convert(source, source.parent / "made.gguf", "Q8_0", provenance=True)
    return path


@pytest.fixture
def ggq(capsys):
    def run(*args):
        code = cli.main([str(a) for a in args])
        done = capsys.readouterr()
        return code, done.out, done.err

    return run


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_statement_names_the_file_and_what_it_is_made_of(ggq, made, source, tmp_path):
    code, out, _ = ggq("attest", made)
    told = json.loads(out)
    assert code == 0 and told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["subject"] == [{"name": "made.gguf", "digest": {"sha256": sha256(made)}}]
    assert told["predicateType"] == "https://slsa.dev/provenance/v1"
    build = told["predicate"]["buildDefinition"]
    assert build["externalParameters"] == {"source": "my-model", "type": "Q8_0"}
    read = {d["name"]: d["digest"]["sha256"] for d in build["resolvedDependencies"]}
    assert read["model.safetensors"] == sha256(source / "model.safetensors")
    assert told["predicate"]["runDetails"]["builder"]["id"].startswith("pkg:pypi/ggq@")
    assert ggq("attest", made, "-o", tmp_path / "a.json")[0] == 0
    assert json.loads((tmp_path / "a.json").read_text()) == told
    code, _, err = ggq("attest", made, "-o", tmp_path / "a.json")
    assert code == 1 and "exists" in err


def test_a_file_that_tells_nothing_is_refused(ggq, source, tmp_path):
    (path,) = convert(source, tmp_path / "m.gguf", "Q8_0")
    code, _, err = ggq("attest", path)
    assert code == 1 and "--provenance" in err


def test_signing_needs_its_library_and_keys(ggq, made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)  # as where it is not installed
    (tmp_path / "x.sig").write_text("{}")
    (tmp_path / "k.pem").write_text("")
    for words in (
        ("verify", made, "--signature", tmp_path / "x.sig", "--public-key", tmp_path / "k.pem"),
        ("attest", made, "--private-key", tmp_path / "k.pem", "--signature", tmp_path / "y.sig"),
    ):
        code, _, err = ggq(*words)
        assert code == 1 and "[sign]" in err
    code, _, err = ggq("verify", made, "--signature", tmp_path / "none.sig")
    assert code == 1 and "none.sig: no such file" in err
    code, _, err = ggq("attest", made, "--signature", tmp_path / "y.sig")
    assert code == 1 and "--private-key" in err


def test_a_signature_holds_until_a_byte_changes(ggq, source, tmp_path):
    pytest.importorskip("model_signing.signing", reason="needs the extra sign (model-signing)")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = []
    for name in ("a", "b"):
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        keys.append((tmp_path / f"{name}.key", tmp_path / f"{name}.pub"))
        keys[-1][0].write_bytes(private)
        keys[-1][1].write_bytes(public)
    (path,) = convert(source, tmp_path / "m.gguf", "Q8_0", provenance=True)
    assert ggq("attest", path, "-o", tmp_path / "m.json", "--private-key", keys[0][0])[0] == 0
    check = ("verify", path, "--signature", f"{path}.sig", "--public-key")
    code, out, err = ggq(*check, keys[0][1])
    assert code == 0 and "the signature holds" in out, err
    code, _, err = ggq(*check, keys[1][1])
    assert code == 1 and "the signature does not hold" in err and err.count("\n") == 1
    code, _, err = ggq("verify", path, "--signature", f"{path}.sig")
    assert code == 1 and "--public-key" in err
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    code, _, err = ggq(*check, keys[0][1])
    assert code == 1 and "the signature does not hold" in err


def test_diff(ggq, source, made, tmp_path):
    (other,) = convert(source, tmp_path / "other.gguf", "Q4_0")
    code, out, _ = ggq("diff", made, other)
    assert code == 0 and "key general.file_type: 7 -> 2" in out
    assert "Q8_0 -> Q4_0" in out and "relative RMS" in out and "tensors equal" in out
    code, out, _ = ggq("diff", made, other, "--json")
    found = json.loads(out)
    row = next(r for r in found["tensors"] if r["name"] == "blk.0.attn_q.weight")
    assert row["types"] == ["Q8_0", "Q4_0"] and 0.02 < row["relative_rms"] < 0.2 and row["max"] > 0
    assert found["template"] == [] and found["only_in_first"] == []
    code, out, _ = ggq("diff", made, made)
    with open_gguf(made) as file:
        assert out == f"{len(file.tensors)} tensors equal, 0 differ, 0 keys\n"


def test_diff_shows_templates_and_lone_tensors(ggq, tmp_path):
    from ggufmaker import make_tiny_llama

    template = "tokenizer.chat_template"
    a = make_tiny_llama(tmp_path / "a.gguf", metadata={template: "one\ntwo"})
    b = make_tiny_llama(tmp_path / "b.gguf", metadata={template: "one\nthree"}, n_layer=1)
    code, out, _ = ggq("diff", a, b)
    assert code == 0 and "\n-two\n+three\n" in out
    assert "only in the first: blk.1.attn_q.weight" in out
