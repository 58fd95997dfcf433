"""The command group: lazy loading by file name, exit codes, environment variables, quick help."""

import subprocess
import sys
import textwrap

import pytest

import ggq
import ggq.commands
from ggq import cli

COMMANDS = {
    "fails": """
        from ggq.errors import FormatError
        @click.command()
        def command():
            raise FormatError("bad key 'a\\x1b[31m'")
    """,
    "stops": """
        @click.command()
        def command():
            raise KeyboardInterrupt
    """,
    "set_number": """
        @click.command()
        @click.option("--number", type=int, default=1)
        def command(number):
            click.echo(f"number {number}")
            return 7
    """,
    "explodes": 'raise RuntimeError("imported although not asked for")',
    "full_disk": """
        @click.command()
        def command():
            raise OSError(28, "No space left on device")
    """,
    "no_memory": """
        @click.command()
        def command():
            raise MemoryError
    """,
}


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Stand-in commands in place of the real ones."""
    for name, body in COMMANDS.items():
        text = f'"""Help of {name}.\n\nMore."""\nimport click\n' + textwrap.dedent(body)
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(ggq.commands, "__path__", [str(tmp_path)])
    yield
    for name in COMMANDS:
        sys.modules.pop(f"ggq.commands.{name}", None)


def test_commands_are_files(commands, capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "set-number" in out
    assert "Help of set_number" in out
    assert "More" not in out
    assert "Help of explodes" in out  # listed from its source, not imported


def test_option_from_environment_and_return_value_is_no_exit_code(commands, capsys, monkeypatch):
    monkeypatch.setenv("GGQ_SET_NUMBER_NUMBER", "42")
    assert cli.main(["set-number"]) == 0
    assert capsys.readouterr().out == "number 42\n"
    assert cli.main(["set-number", "--number", "3"]) == 0
    assert capsys.readouterr().out == "number 3\n"


def test_errors_are_one_clean_line(commands, capsys):
    assert cli.main(["fails"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "ggq: error: bad key 'a\\x1b[31m'\n"
    for command, words in (
        ("no-memory", "out of memory"),
        ("full-disk", "No space left on device"),
    ):
        assert cli.main([command]) == 1
        assert capsys.readouterr().err == f"ggq: error: {words}\n"


@pytest.mark.parametrize(
    "args", [["nonsense"], ["set-number", "--number", "x"], ["set-number", "--wrong"]]
)
def test_wrong_usage_exits_2(commands, capsys, args):
    assert cli.main(args) == 2
    assert "Error:" in capsys.readouterr().err


def test_interrupt_exits_130(commands):
    assert cli.main(["stops"]) == 130


def test_python_dash_m_and_version():
    run = subprocess.run(
        [sys.executable, "-m", "ggq", "--version"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, f"ggq {ggq.__version__}\n")


def test_help_of_every_command_is_light():
    """``ggq --help`` imports nothing heavy, and every real command has a short help."""
    code = (
        "import sys; from ggq import cli; code = cli.main(['--help'])\n"
        "heavy = {'numba', 'llvmlite', 'numpy', 'torch', 'jinja2', 'rich'} & set(sys.modules)\n"
        "print('heavy', sorted(heavy)); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy []" in run.stdout
    group = cli.cli
    for name in group.list_commands(None):
        assert cli.about(f"ggq.commands.{name.replace('-', '_')}").help, name


def test_closed_pipe_is_quiet(commands):
    with subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        run = subprocess.run(
            [sys.executable, "-m", "ggq", "--help"],
            stdout=reader.stdin,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert run.stderr == b""
    assert run.returncode == 1
