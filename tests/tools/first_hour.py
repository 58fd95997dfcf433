"""Walks a new user's first hour: `python tests/tools/first_hour.py [FOLDER]`; 5 to 10 minutes.

A wheel is built and installed into an environment without pip, in an empty home. Each step asserts
what a user would see, and a line names the numbered point of the list that it proves (tests/hour).
The Python that runs this needs selenium and, for the page, chromium and chromedriver. GGQ_CACHE
names a cache that has compiled kernels and models already; without it all is new.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hour import browser, serving, shell, talking
from hour.walk import Walk


def main(folder):
    """Walk it in an empty folder."""
    started = time.monotonic()
    walk = Walk(folder)
    shell.from_the_wheel(walk)
    shell.commands(walk)
    shell.fetching(walk)
    shell.pipes(walk)
    talking.typing(walk)
    talking.full_context(walk)
    shell.converting(walk)
    serving.from_python(walk, walk.run("pull", walk.model, "-q")[0].strip())
    serving.interfaces(walk, folder)
    serving.many_turns(walk)
    serving.the_end(walk)
    with browser.pages(walk) as found:
        if found:
            browser.tabs(walk, found)
            browser.the_context(walk, found)
    took = time.monotonic() - started
    sys.stdout.write(f"{len(walk.seen)} things seen in {took:.0f} s\n")


if __name__ == "__main__":
    given = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    place = given or Path(tempfile.mkdtemp(prefix="first-hour-"))
    main(place)
    if given is None:
        shutil.rmtree(place)
