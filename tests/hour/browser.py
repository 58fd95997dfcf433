"""Of a first hour: the page in a real browser (points 2, 7, 8 and 9)."""

import contextlib

from browsing import (
    CHROMIUM,
    DRIVER,
    Keys,
    choose,
    chromium,
    entries,
    find,
    idle,
    press,
    records,
    said,
    texts,
    wait,
    write,
)

from hour.walk import until

ENDLESS = ("--logit-bias", "2=-100", "--temp", "0")  # the token that ends an answer never comes
STORY = "Tell me a very long story about the sea."


@contextlib.contextmanager
def pages(walk):
    """Yield a browser, or None where there is none."""
    if not (CHROMIUM and DRIVER):
        walk.saw("8", "NOT SEEN: no chromium and chromedriver")
        yield None
        return
    with chromium(walk.folder / "browser") as browser:
        yield browser


def _open(browser, url):
    browser.get(url)
    wait(browser, lambda b: find(b, "#model").text or find(b, "#models").is_displayed())


def _begun(browser, n, seconds):
    """Wait until the n-th answer has begun."""
    wait(browser, lambda b: len("".join(texts(b, ".assistant > .body")[n - 1 :])) > 40, seconds)


def _note(browser, start, seconds):
    wait(browser, lambda b: any(x.startswith(start) for x in texts(b, ".note span")), seconds)
    return next(x for x in texts(browser, ".note span") if x.startswith(start))


def tabs(walk, browser):
    """Two tabs, a reload in the middle of an answer, a server that is killed and comes back."""
    seconds = walk.patience
    with walk.serving(walk.model, *ENDLESS, "-c", "4096") as (server, url):
        _open(browser, url)
        first = browser.current_window_handle
        write(browser, STORY)
        _begun(browser, 1, seconds)
        browser.switch_to.new_window("tab")
        _open(browser, url)
        wait(browser, lambda b: said(b) == [STORY], seconds)
        _note(browser, "Being written in another tab.", seconds)
        press(browser, "New conversation", "nav")
        write(browser, "Say hi.")
        wait(browser, lambda b: said(b) == ["Say hi."], seconds)
        _begun(browser, 1, seconds)
        find(browser, "body").send_keys(Keys.ESCAPE)
        wait(browser, idle, seconds)
        second = browser.current_window_handle
        browser.switch_to.window(first)
        assert not idle(browser)  # the other tab's Escape was not for this one
        wait(browser, lambda b: sorted(entries(b)) == ["Say hi.", STORY], seconds)
        kept = records(browser)
        assert sorted(len(r["nodes"]) for r in kept) == [2, 2]
        walk.saw("8", "two tabs: each its conversation and its stream, neither overwrites")
        browser.switch_to.window(second)
        browser.close()
        browser.switch_to.window(first)
        until(lambda: len(_answer(browser)) > 200, seconds)  # saved every second
        before = _answer(browser)
        browser.refresh()
        _note(browser, "The page was closed before the end of this answer.", seconds)
        wait(browser, lambda b: texts(b, ".assistant > .body"), seconds)
        assert _answer(browser).startswith(before[:200])
        walk.saw("8", f"reload in the middle: {len(before)} characters found again, and told")
        press(browser, "Continue")
        wait(browser, lambda b: not idle(b), seconds)
        until(lambda: len(_answer(browser)) > len(before) + 50, seconds)
        server.kill()
        line = _note(browser, "The connection broke before the end of this answer.", seconds)
        walk.saw("8", f"kill -9 of the server: {line}")
        server.wait()
    port = url.rsplit(":", 1)[1]
    with walk.serving(walk.model, *ENDLESS, "-c", "4096", "--port", port) as (_, again):
        assert again == url
        broken = _answer(browser)
        press(browser, "Continue")
        until(lambda: len(_answer(browser)) > len(broken) + 20, seconds)
        find(browser, "body").send_keys(Keys.ESCAPE)
        wait(browser, idle, seconds)
        assert _answer(browser).startswith(broken[:200])
        press(browser, "Regenerate")
        wait(browser, lambda b: texts(b, ".assistant .branches span") == ["2/2"], seconds)
        find(browser, "body").send_keys(Keys.ESCAPE)
        wait(browser, idle, seconds)
        press(browser, "Previous version")
        assert _answer(browser).startswith(broken[:200])
        walk.saw("8", "the server comes back: Continue goes on; Regenerate keeps the other answer")
    browser.get_log("browser")  # it logs that the server was gone


def _answer(browser):
    """Return the stored text of the answer that the page is at."""
    nodes = [n for r in records(browser) for n in r["nodes"].values() if n["role"] == "assistant"]
    return max((n["content"] for n in nodes), key=len, default="")


def the_context(walk, browser):
    """Answers cut by length and by the context are told; each way out goes on."""
    seconds = walk.patience
    with walk.serving(walk.model, *ENDLESS, "-c", "256", "-n", "96") as (_, url):
        for way, line in (
            ("Leave out the oldest messages", "The messages above are no longer sent to the model"),
            ("Summarize them", "The messages above are sent to the model as a summary"),
        ):
            _open(browser, url)
            write(browser, "Name a fish.")
            _note(browser, "Cut off: the longest answer that is allowed", seconds)
            for question in ("Name a bird.", "Name a tree."):
                write(browser, question)
                wait(browser, lambda b: idle(b) and texts(b, ".note:not([hidden])"), seconds)
                if any("context" in x for x in texts(browser, ".note:not([hidden]) span")):
                    break
            told = _note(browser, "Cut off: the context of 256 tokens is full.", seconds)
            press(browser, way)
            wait(browser, lambda b, line=line: texts(b, ".cut") == [line], seconds)
            wait(browser, idle, seconds)
            walk.saw("2", f"the page: {told} {way}: goes on")
            choose(browser, find(browser, "#more"), "Delete")
