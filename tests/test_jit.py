"""The folder of compiled code: private, and rid of what no start has touched for a month."""

import os
import time


def test_folders_of_other_versions_go_after_a_month(tmp_path):
    from ggq import jit

    for name, days in (("old", 40), ("new", 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel.o").write_bytes(b"code")
        then = time.time() - days * 24 * 3600
        os.utime(tmp_path / name, (then, then))
    jit._forget_unused(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    jit._forget_unused(tmp_path / "not there")


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path):
    from ggq import jit

    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    if os.name == "posix":
        assert jit._private_folder(open_to_all) != open_to_all
    assert jit._private_folder(tmp_path / "mine") == tmp_path / "mine"
