"""The page under axe-core, a checker of accessibility, in the states that a user meets.

``npm pack axe-core`` fetches it; GGQ_AXE names its axe.min.js. Skipped without that.
"""

import os
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("selenium")

from browsing import Keys, answered, ask, drawn, find, idle, pick, press, texts, visit, wait, write

pytest_plugins = ["pagefixtures"]

AXE = os.environ.get("GGQ_AXE")
pytestmark = pytest.mark.skipif(not AXE, reason="GGQ_AXE names no axe.min.js")
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
RUN = "axe.run().then(found => arguments[arguments.length - 1](found.violations))"


def check(browser):
    browser.execute_script(Path(AXE).read_text("utf-8"))
    found = browser.execute_async_script(RUN)
    assert [(v["id"], n["html"]) for v in found for n in v["nodes"]] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page, browser, theme):
    url, engine, _ = page
    visit(browser, url)
    find(browser, "#settings").click()
    pick(browser, "#theme", theme)
    check(browser)
    press(browser, "Done", "dialog")
    check(browser)  # an empty conversation
    ask(browser, "Hello")
    press(browser, "Regenerate")
    wait(browser, lambda b: find(b, ".branches"))
    answered(browser)
    drawn(browser)
    browser.execute_script("document.querySelector('.thoughts').open = true")
    check(browser)
    engine.seconds = 0.02
    write(browser, "Again")
    wait(browser, lambda b: "Hello" in "".join(texts(b, ".assistant > .body")[1:]))
    check(browser)  # an answer in progress
    find(browser, "body").send_keys(Keys.ESCAPE)
    wait(browser, idle)
    drawn(browser)
    press(browser, "Delete message", ".assistant:last-child")
    wait(browser, lambda b: find(b, "#notice div"))
    check(browser)
    find(browser, "#more").click()
    check(browser)
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    press(browser, "Edit")
    check(browser)
    find(browser, ".editing textarea").send_keys(Keys.ESCAPE)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    check(browser)
    find(browser, "#menu").click()
    wait(browser, lambda b: find(b, "nav").rect["x"] == 0)
    check(browser)
