"""Takes a picture of the chat page at work: `python tests/tools/page_picture.py MODEL OUT.png`.

The server and the browser are real ones; the model answers two questions first.
"""

import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from browsing import chromium, drawn, idle, wait, write

QUESTIONS = (
    "Write a Python function that returns the n-th Fibonacci number. Only the code.",
    "What is its running time? Answer in one sentence, then show a call of it with n = 10.",
)


def take(model, out):
    """Start a server for ``model``, ask the page the questions, and write its picture."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "ggq", "serve", model, "--port", str(port)]
    server = subprocess.Popen(command)
    try:
        _wait_for(f"{url}/health")
        with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as browser:
            browser.set_window_size(1180, 860)
            browser.get(url)
            wait(browser, idle)
            for question in QUESTIONS:
                write(browser, question)
                wait(browser, lambda b: not idle(b))
                wait(browser, idle, 300)
            drawn(browser)
            browser.save_screenshot(out)
    finally:
        server.terminate()
        server.wait()


def _wait_for(url):
    for _ in range(600):
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


if __name__ == "__main__":
    take(*sys.argv[1:])
