"""Importance matrices: both of llama.cpp's forms, experts' slices, files that lie."""

import numpy as np
import pytest
from hfmaker import make_hf

from ggq.converters.convert import convert
from ggq.converters.imatrix import Imatrix, read_imatrix, write_imatrix
from ggq.errors import FormatError, UsageError


def test_imatrix_forms_agree_and_misfits_are_named(tmp_path):
    sums = {"blk.0.ffn_up.weight": np.arange(1, 65, dtype=np.float32).reshape(1, 64)}
    counts = {"blk.0.ffn_up.weight": np.array([4], np.float32)}
    for suffix in ("gguf", "dat"):
        path = tmp_path / f"m.{suffix}"
        write_imatrix(path, sums, counts, "text.txt", (2, 512))
        matrix = read_imatrix(path)
        assert (matrix.chunks, matrix.dataset) == (2, "text.txt")
        np.testing.assert_allclose(matrix.values["blk.0.ffn_up.weight"], sums.popitem()[1][0] / 4)
        sums = {"blk.0.ffn_up.weight": np.arange(1, 65, dtype=np.float32).reshape(1, 64)}
        with pytest.raises(UsageError, match="exists"):
            write_imatrix(path, sums, counts, "text.txt", (2, 512))
    folder = make_hf(tmp_path / "hf", hidden_size=32, intermediate_size=64, num_attention_heads=2)
    with pytest.raises(FormatError, match=r"entry blk\.0\.ffn_up\.weight has 64 values.*needs 32"):
        convert(folder, tmp_path / "x.gguf", "Q8_0", imatrix=matrix)
    experts = Imatrix({"e": np.arange(6, dtype=np.float32)})
    np.testing.assert_array_equal(experts.slice_for("e", (2, 8, 3), 1), [3, 4, 5])
    assert experts.slice_for("other", (2, 8, 3), 1) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends within an entry"),
        (b"\xff\xff\xff\xff", "a size of -1"),
        (b"\x01\0\0\0\x04\0\0\0name\x01\0\0\0\xff\0\0\0", "ends within an entry"),
        (b"\0\0\0\0", "no entries"),
        (b"\x01\0\0\0\x01\0\0\0n\x01\0\0\0\x01\0\0\0\0\0\xc0\x7f", "entry n is not finite"),
    ],
)
def test_bad_imatrix_files_end_in_one_line(tmp_path, data, message):
    (tmp_path / "m.dat").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        read_imatrix(tmp_path / "m.dat")
