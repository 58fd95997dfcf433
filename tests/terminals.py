"""A program at the other end of a real pseudo-terminal, typed into by hand. Not a test itself."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

UP, ALT_ENTER, TAB = b"\x1b[A", b"\x1b\r", b"\t"
CTRL_C, CTRL_D, CTRL_R = b"\x03", b"\x04", b"\x12"


class Terminal:
    """A program in a terminal of its own; waits end after ``patience`` seconds."""

    def __init__(self, program, folder, columns=80, patience=30.0, **env):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:  # the child
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # shells' background jobs ignore it
            os.chdir(folder)
            os.environ.pop("NO_COLOR", None)
            os.environ.update({"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **env})
            os.execvp(program[0], program)
        self.patience, self.seen = patience, b""
        self.resize(columns, 24)

    def __enter__(self):
        self.wait_for(b">>>")
        return self

    def __exit__(self, *_):
        os.close(self.fd)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def resize(self, columns, lines):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_for(self, *texts):
        """Read until one of ``texts`` comes, then ``met``; return what came before it."""
        end = time.monotonic() + self.patience
        while not any(text in self.seen for text in texts):
            assert time.monotonic() < end, self.seen
            if select.select([self.fd], [], [], 0.2)[0]:
                self.seen += os.read(self.fd, 65536)
        self.met = min(texts, key=lambda text: self.seen.find(text) % (1 << 60))
        before, _, self.seen = self.seen.partition(self.met)
        return before.decode("utf-8", "replace")

    def type(self, *keys):
        for key in keys:
            os.write(self.fd, key)
            time.sleep(0.15)  # an escape and what follows it would be one key

    def paste(self, text):
        """Send a text as terminals send what is pasted."""
        self.type(b"\x1b[200~" + text.encode() + b"\x1b[201~")

    def ask(self, *keys):
        """Type a message and Enter; return what is shown up to the next prompt."""
        self.type(*keys, b"\r")
        return self.wait_for(b"[prompt ") + self.wait_for(b">>>")

    def command(self, text, told):
        """Type a command; return what is shown from what it has to tell to the next prompt."""
        self.type(text.encode(), b"\r")
        self.wait_for(told.encode())
        return told + self.wait_for(b">>>")

    def exit_code(self):
        """Wait for the program's end."""
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    os.read(self.fd, 65536)
                except OSError:  # Linux: the other end is closed
                    break
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)
