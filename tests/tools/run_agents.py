"""Run real agents against ggq: `run_agents.py claude|codex|opencode|aider PROGRAM`.

The model is played (tests/speaking.py): it has a file written and read, then says that it is done.
PROGRAM is the agent's executable. Its home is a new folder; nothing of the user's is read. What it
sent is printed, and whether the file is there.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from ggufmaker import make_tiny_llama  # noqa: E402
from speaking import call, playing, turns  # noqa: E402

import ggq  # noqa: E402

ASK = "Write hello.txt that says hello, then read it."
SECONDS = 100


def write_as_text(body):
    """Return a whole file as aider wants it: it knows no tools."""
    return "hello.txt\n```\nhello\n```\n"


def parts(folder: Path) -> dict[str, list[str]]:
    """Return what the model says to each agent."""
    file = str(folder / "hello.txt")
    done = "It says hello. Done."
    return {
        "claude": [
            call("Write", file_path=file, content="hello\n"),
            call("Read", file_path=file) + "\n" + call("Bash", command="ls", description="List"),
            done,
        ],
        "codex": [
            call("exec_command", cmd="echo hello > hello.txt"),
            call("exec_command", cmd="cat hello.txt") + "\n" + call("exec_command", cmd="ls"),
            done,
        ],
        "opencode": [
            call("write", filePath=file, content="hello\n"),
            call("read", filePath=file) + "\n" + call("bash", command="ls", description="List"),
            done,
        ],
    }


def command(agent: str, program: str, url: str, home: Path) -> tuple[list[str], dict[str, str]]:
    """Return an agent's command line and the environment that points it at ``url``."""
    if agent == "claude":
        words = [program, "-p", ASK, "--permission-mode", "acceptEdits", "--verbose"]
        words += ["--allowedTools", "Bash", "--output-format", "stream-json"]
        quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        return words, {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": "none", **quiet,
                       "ANTHROPIC_MODEL": "tiny", "ANTHROPIC_SMALL_FAST_MODEL": "tiny"}  # fmt: skip
    if agent == "codex":
        settings = home / ".codex"
        settings.mkdir()
        (settings / "config.toml").write_text(
            'model = "tiny"\nmodel_provider = "ggq"\n[model_providers.ggq]\nname = "ggq"\n'
            f'base_url = "{url}/v1"\nwire_api = "responses"\n'
        )
        flags = ["--skip-git-repo-check", "--sandbox", "danger-full-access", "--json"]
        return [program, "exec", *flags, ASK], {}
    if agent == "aider":
        flags = "--yes-always --no-git --no-check-update --no-show-model-warnings --no-analytics"
        words = [program, "--model", "openai/tiny", *flags.split(), "--message", ASK, "hello.txt"]
        return words, {"OPENAI_API_BASE": f"{url}/v1", "OPENAI_API_KEY": "none"}
    settings = home / ".config" / "opencode"
    settings.mkdir(parents=True)
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{url}/v1"},
        "models": {"tiny": {"name": "tiny"}},
    }
    (settings / "opencode.json").write_text(json.dumps({"provider": {"ggq": provider}}))
    return [program, "run", "-m", "ggq/tiny", ASK], {"OPENCODE_DISABLE_AUTOUPDATE": "1"}


def main(agent: str, program: str) -> int:
    """Run an agent; return 0 where it wrote the file and ended well."""
    with tempfile.TemporaryDirectory() as name:
        home, folder = Path(name) / "home", Path(name) / "work"
        home.mkdir()
        folder.mkdir()
        path = make_tiny_llama(Path(name) / "t.gguf", n_ctx=1024, vocab="bpe")
        play = write_as_text if agent == "aider" else turns(*parts(folder)[agent])
        with (
            ggq.load(path, n_ctx=4096, threads=1) as model,
            playing(model, play) as (url, service),
        ):
            words, more = command(agent, program, url, home)
            kept = {n: os.environ[n] for n in ("PATH", "LANG", "TERM") if n in os.environ}
            done = subprocess.run(
                words, cwd=folder, env={**kept, "HOME": str(home), **more}, timeout=SECONDS,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )  # fmt: skip
            print(done.stdout[-3000:], done.stderr[-3000:], sep="\n---\n")
            for body in service.heard:
                names = [t.get("function", t).get("name") for t in body.tools or ()]
                roles = " ".join(m.role for m in body.messages)
                print(f"{len(names)} tools {names[:60]}: {roles}; stream {body.stream}")
            wrote = (folder / "hello.txt").is_file()
            print(
                f"{agent}: exit {done.returncode}, hello.txt {'is there' if wrote else 'missing'}"
            )
            return 0 if wrote and not done.returncode else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
