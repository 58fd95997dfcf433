"""Files that are written: never a device, FIFO or folder; a link's own file; for every writer."""

import json
import os
import socket
import stat

import numpy as np
import pytest
from ggufmaker import make_tiny_llama
from hfmaker import make_hf

import ggq
from ggq.cli import main
from ggq.converters.imatrix import write_imatrix
from ggq.converters.prepasses.allocation import write_plan
from ggq.converters.report.write import report_path
from ggq.errors import UsageError
from ggq.gguf import open_gguf
from ggq.outputs import output_file
from ggq.runtime.generation import saved

pytestmark = pytest.mark.skipif(os.name != "posix", reason="FIFOs and links of POSIX")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_hf(tmp_path_factory.mktemp("outputs") / "hf")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("outputs") / "t.gguf", vocab="bpe")


def no_files(folder):
    """Yield what is no file: (path, how it is called)."""
    os.mkfifo(folder / "fifo")
    yield folder / "fifo", "is a FIFO"
    (folder / "folder.gguf").mkdir()
    yield folder / "folder.gguf", "is a folder"
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)  # a socket's name is short
        listener.bind("s")
        os.chdir(here)
    yield folder / "s", "is a socket"
    yield "/dev/null", "is a device"
    (folder / "to-fifo").symlink_to(folder / "fifo")
    yield folder / "to-fifo", "is a FIFO"
    (folder / "circle").symlink_to(folder / "circle")
    yield folder / "circle", "cannot write"


def test_what_is_no_file_is_refused_and_left_alone(tmp_path):
    for path, what in no_files(tmp_path):
        before = os.lstat(path)
        with pytest.raises(UsageError, match=what):
            output_file(path)
        assert stat.S_IFMT(os.lstat(path).st_mode) == stat.S_IFMT(before.st_mode)


def test_a_file_a_link_and_a_name_to_be(tmp_path):
    (tmp_path / "there").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "dangling").symlink_to(tmp_path / "later")
    assert output_file(tmp_path / "there") == tmp_path / "there"
    assert output_file(tmp_path / "link") == (tmp_path / "there").resolve()
    assert output_file(tmp_path / "dangling") == (tmp_path / "later").resolve()
    assert output_file(tmp_path / "new", force=False) == tmp_path / "new"
    for name in ("there", "link", "dangling"):
        with pytest.raises(UsageError, match="exists"):
            output_file(tmp_path / name, force=False)
    with pytest.raises(UsageError, match="no such folder"):
        output_file(tmp_path / "none" / "x")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none" / "x")
    with pytest.raises(UsageError, match="no such folder"):
        output_file(tmp_path / "nowhere")


SUMS = {"blk.0.attn_q.weight": np.ones((1, 4), np.float32)}
COUNTS = {"blk.0.attn_q.weight": np.ones(1, np.float32)}
WRITERS = {
    "convert": lambda out, source, gguf: ggq.convert(source, out, type="F16", force=True),
    "imatrix": lambda out, *_: write_imatrix(out, SUMS, COUNTS, "x", (1, 4), force=True),
    "imatrix.dat": lambda out, *_: write_imatrix(out, SUMS, COUNTS, "x", (1, 4), force=True),
    "plan": lambda out, *_: write_plan(out, {"a": "F16"}),
    "report": lambda out, *_: report_path(out),
    "chat": lambda out, *_: saved.write(out, [], ""),
    "split": lambda out, source, gguf: command("split", gguf, out, "--split-max-size", "1G"),
    "set-metadata": lambda out, source, gguf: command(
        "set-metadata", gguf, out, "--set", "general.name=x", "--force"
    ),
}


def command(*given):
    if main([str(one) for one in given]):
        raise UsageError("refused")


@pytest.mark.parametrize("name", [n for n in WRITERS if n not in ("split", "set-metadata")])
def test_every_writer_asks(name, source, gguf, tmp_path):
    suffix = {"imatrix.dat": ".dat", "report": ".json"}.get(name, ".gguf")
    os.mkfifo(tmp_path / f"fifo{suffix}")
    with pytest.raises(UsageError, match="is a FIFO"):
        WRITERS[name](tmp_path / f"fifo{suffix}", source, gguf)
    assert stat.S_ISFIFO(os.lstat(tmp_path / f"fifo{suffix}").st_mode)


@pytest.mark.parametrize("name", ["split", "set-metadata"])
def test_commands_that_copy_files_ask(name, source, gguf, tmp_path):
    os.mkfifo(tmp_path / "fifo.gguf")
    with pytest.raises(UsageError, match="refused"):
        WRITERS[name](tmp_path / "fifo.gguf", source, gguf)
    assert stat.S_ISFIFO(os.lstat(tmp_path / "fifo.gguf").st_mode)


@pytest.mark.parametrize("name", ["report", "plan", "mmproj"])
def test_what_is_written_beside_is_no_file_of_the_source_either(name, tmp_path):
    folder = make_hf(tmp_path / "hf", hidden_size=64, intermediate_size=64, num_hidden_layers=1)
    before = (folder / "config.json").read_bytes()
    given = {name: folder / "config.json", "target_bpw": 5.0 if name == "plan" else None}
    with pytest.raises(UsageError, match="is a file of the source"):
        ggq.convert(folder, tmp_path / "x.gguf", "Q8_0", force=True, **given)
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("way", ["itself", "link", "hard link"])
def test_a_file_of_the_source_is_never_overwritten(name, way, tmp_path):
    folder = make_hf(tmp_path / "hf", hidden_size=64, intermediate_size=64, num_hidden_layers=1)
    before, out = (folder / name).read_bytes(), tmp_path / "x.gguf"
    if way == "itself":
        out = folder / name
    else:
        (out.symlink_to if way == "link" else out.hardlink_to)(folder / name)
    with pytest.raises(UsageError, match="is a file of the source"):
        ggq.convert(folder, out, type="F16", force=True)
    assert (folder / name).read_bytes() == before
    ggq.convert(folder, folder / "x.gguf", type="F16")
    ggq.convert(folder, folder / "x.gguf", type="F16", force=True)


@pytest.mark.parametrize("name", ["calibration", "imatrix"])
@pytest.mark.parametrize("written", ["out", "report"])
def test_what_a_conversion_reads_is_not_what_it_writes(name, written, source, tmp_path):
    read = tmp_path / ("x.gguf" if written == "out" else "x.json")
    read.write_text("read this")
    given = {"out": tmp_path / "y.gguf", written: read, name: read}
    with pytest.raises(UsageError, match="is a file that is read"):
        ggq.convert(source, type="Q8_0", force=True, **given)
    assert read.read_text() == "read this"


@pytest.mark.parametrize(
    "line",
    [
        "imatrix {f} --text {t} -o {t} --force",
        "imatrix {f} --text {t} -o {f} --force",
        "quantize {f} {f} Q4_0 --force",
        "attest {f} -o {f} --force",
        "attest {f} --private-key {t} -o {t} --force",
        "attest {f} --private-key {t} --signature {f} --force",
    ],
)
def test_commands_never_write_over_what_they_read(line, gguf, tmp_path, capsys):
    text = tmp_path / "t.gguf"
    text.write_text("words " * 999)
    before = gguf.read_bytes(), text.read_bytes()
    assert main(line.format(f=gguf, t=text).split())
    assert "is a file that is read" in capsys.readouterr().err
    assert (gguf.read_bytes(), text.read_bytes()) == before


def test_a_link_is_written_through(source, tmp_path):
    """As llama-quantize does, which opens the path: the file lies on the disk that was chosen."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "model.gguf").write_bytes(b"x")
    (tmp_path / "link.gguf").symlink_to(disk / "model.gguf")
    (path,) = ggq.convert(source, tmp_path / "link.gguf", type="F16", force=True)
    assert path == tmp_path / "link.gguf" and path.is_symlink()
    assert [p.name for p in disk.iterdir()] == ["model.gguf"]
    with open_gguf(disk / "model.gguf") as file:
        assert "output.weight" in file.tensors
    for name in ("plan.json", "chat.json"):
        (tmp_path / name).symlink_to(disk / name)
    write_plan(tmp_path / "plan.json", {"a": "F16"})
    assert json.loads((disk / "plan.json").read_text()) == {"tensors": {"a": "F16"}}
    saved.write(tmp_path / "chat.json", [], "")
    assert (tmp_path / "chat.json").is_symlink() and (disk / "chat.json").is_file()


def test_a_device_given_as_output_stays_a_device(source, tmp_path, capsys):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # never the real one
    except OSError:
        pytest.skip("only root makes devices")
    assert main(["convert", str(source), str(device), "--force", "-t", "F16"]) == 1
    assert "is a device, not a file" in capsys.readouterr().err
    assert stat.S_ISCHR(os.lstat(device).st_mode)
