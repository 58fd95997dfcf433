"""model.safetensors.index.json decides: what it lists is there or refused, what it does not is not
used, and of two shards with one name the one that it says."""

import json

import numpy as np
import pytest
from hfmaker import make_hf, save

import ggq
from ggq.cli import main
from ggq.converters.prepare import prepare
from ggq.converters.safetensors import SafetensorsFile
from ggq.errors import FormatError
from ggq.gguf import open_gguf

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
BIAS = "model.layers.0.self_attn.q_proj.bias"
UP = "model.layers.0.mlp.up_proj.weight"
MTP = "mtp.layers.0.weight"


class Folder:
    """A tiny model in two shards whose contents and index can be made to differ."""

    def __init__(self, path):
        self.path = make_hf(path, hidden_size=64, intermediate_size=96, num_hidden_layers=1)
        one = SafetensorsFile(self.path / "model.safetensors")
        tensors = {n: t.read(slice(None)).reshape(t.shape).copy() for n, t in one.tensors.items()}
        one.close()
        (self.path / "model.safetensors").unlink()
        names = list(tensors)
        halves = names[::2], names[1::2]
        self.shards = {
            s: {n: tensors[n] for n in half} for s, half in zip(SHARDS, halves, strict=True)
        }
        self.weight_map = {n: s for s, held in self.shards.items() for n in held}

    def shard_of(self, name):
        return self.weight_map[name]

    def write(self):
        for shard, held in self.shards.items():
            save(self.path, held)
            (self.path / "model.safetensors").rename(self.path / shard)
        (self.path / INDEX).write_text(json.dumps({"weight_map": self.weight_map}))
        return self.path

    def convert(self):
        made = ggq.convert(self.write(), self.path / "x.gguf", type="F32")
        with open_gguf(made[0]) as file:
            return made.warnings, {n: file.data(n).view("<f4").copy() for n in file.tensors}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "hf")


def test_an_index_that_fits_says_nothing(folder):
    warnings, tensors = folder.convert()
    assert warnings == () and "blk.0.attn_q.bias" not in tensors


@pytest.mark.parametrize("name", [BIAS, "lm_head.weight", UP, "model.layers.7.mlp.up_proj.weight"])
def test_what_is_listed_and_absent_is_refused(folder, name):
    shard = folder.weight_map.setdefault(name, SHARDS[0])
    folder.shards[shard].pop(name, None)
    with pytest.raises(
        FormatError, match=f"tensor {name}: {INDEX} lists it in {shard}, which does"
    ):
        folder.convert()


def test_what_is_there_and_unlisted_is_not_used(folder):
    folder.shards[SHARDS[0]][BIAS] = np.full(64, 7, np.float32)
    warnings, tensors = folder.convert()
    assert "blk.0.attn_q.bias" not in tensors
    assert [w for w in warnings if BIAS in w and "not used" in w]


def test_of_two_shards_the_index_says_which(folder):
    first = folder.shard_of(UP)
    (other,) = set(SHARDS) - {first}
    wanted = folder.shards[first][UP]
    folder.shards[other][UP] = wanted * 2  # an earlier version, say
    assert np.array_equal(folder.convert()[1]["blk.0.ffn_up.weight"], wanted)


def test_an_overlay_shard_replaces_what_it_holds(folder):
    wanted = folder.shards[folder.shard_of(UP)][UP] * 2
    folder.shards["overlay.safetensors"] = {UP: wanted}
    folder.weight_map[UP] = "overlay.safetensors"
    warnings, tensors = folder.convert()
    assert np.array_equal(tensors["blk.0.ffn_up.weight"], wanted)
    assert any(UP in w and "not used" in w for w in warnings)


def test_a_missing_shard_is_refused_where_a_tensor_of_it_is_needed(folder):
    del folder.shards[SHARDS[1]]
    with pytest.raises(FormatError, match=f"tensor .*: its shard {SHARDS[1]} is missing"):
        folder.convert()
    (folder.path / SHARDS[0]).unlink()
    with pytest.raises(FormatError, match=f"shard {SHARDS[0]} is missing"), prepare(folder.path):
        pass


def test_a_missing_shard_that_nobody_needs_is_told(folder):
    folder.weight_map["model.layers.0.self_attn.rotary_emb.inv_freq"] = "extra.safetensors"
    warnings, tensors = folder.convert()
    assert "blk.0.attn_q.weight" in tensors
    assert any("extra.safetensors is missing" in w and "left out anyway" in w for w in warnings)


def test_one_file_beside_an_index_without_shards_is_taken(folder):
    held = {n: x for shard in folder.shards.values() for n, x in shard.items()}
    folder.write()
    for shard in SHARDS:
        (folder.path / shard).unlink()
    folder.shards = {}
    save(folder.path, held)
    with prepare(folder.path, folder.path / "x.gguf") as job:
        assert any("none of its shards is" in w for w in job.warnings)


def test_check_says_what_convert_will(folder, capsys):
    folder.weight_map[BIAS] = SHARDS[0]
    assert main(["check", str(folder.write())]) == 1
    assert BIAS in capsys.readouterr().err
