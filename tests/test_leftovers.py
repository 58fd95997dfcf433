"""Temporary files of killed processes go with the next write of the same name, living ones stay."""

import numpy as np
import pytest

from ggq.errors import UsageError
from ggq.gguf import GGUFWriter, leftovers, open_gguf


def writer(path):
    w = GGUFWriter(path)
    w.add("general.architecture", "llama")
    w.add_tensor("t", (4,), 0)
    w.begin()
    return w


def test_what_a_killed_writer_left_is_deleted(tmp_path):
    path = tmp_path / "model[1].gguf"
    left = [leftovers.temporary(path) for _ in range(2)]
    left[0].write_bytes(b"half")
    left[1].mkdir()
    (left[1] / "config.json").touch()
    others = [leftovers.temporary(tmp_path / "other.gguf"), tmp_path / f".{path.name}.x.part"]
    for other in others:
        other.touch()
    living = writer(path)
    (temporary,) = set(tmp_path.iterdir()) - set(others)
    with writer(path) as w:  # the same name at the same time: the first to finish gets it
        w.write("t", np.arange(16, dtype=np.uint8).reshape(1, -1))
    assert temporary.exists()
    with pytest.raises(UsageError, match="exists"), living:
        living.write("t", np.zeros((1, 16), np.uint8))
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])
    with open_gguf(path) as f:
        assert f.data("t")[0, 15] == 15
