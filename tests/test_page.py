"""The chat page in a real headless browser; skipped where there is none.

GGQ_SCREENSHOTS names a folder that gets pictures to look at.
"""

import os
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("selenium")

from ggufmaker import make_tiny_llama
from schedules import Scripted
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from servers import listening

import ggq
from ggq.runtime.batching.scheduler import Scheduler

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver")

ANSWER = """<think>A greeting, and some code.</think>**Hello** there, `code` & <b>no html</b>:

1. one
2. two
   - inner

```python
print("hi")
```

| a | b |
|---|---|
| 1 | 2 |

A [link](https://example.org/x) and the end."""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1100,800",
)  # fmt: skip


class Slow(Scripted):
    """Says the script at a pace that can be stopped."""

    seconds = 0.0

    def step(self, parts):
        time.sleep(self.seconds)
        return super().step(parts)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", n_ctx=2048, vocab="bpe")
    with ggq.load(path, vocab_only=False, threads=1) as model:
        script = model.tokenizer.encode(ANSWER, add_special=False)
        engine = Slow([*script, model.tokenizer.eos_id], model.tokenizer.n_vocab, n_ctx=8192)
        with listening(model, Scheduler(engine, model.tokenizer)) as (url, scheduler):
            yield url, engine, scheduler


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    faults = [e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    driver.quit()
    assert faults == [], "nothing is refused by the page's policy, nothing is missing"


def wait(browser, condition, seconds=20):
    """Wait for a condition; what is looked at may be drawn anew meanwhile."""
    again = (StaleElementReferenceException, NoSuchElementException)
    return WebDriverWait(browser, seconds, 0.05, again).until(condition)


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def texts(browser, selector):
    return [e.text for e in browser.find_elements(By.CSS_SELECTOR, selector)]


def button(browser, label, among="main"):
    found = browser.find_elements(By.CSS_SELECTOR, f"{among} button")
    return next(b for b in found if b.text.strip() == label)


def write(browser, text):
    find(browser, "#prompt").send_keys(text, Keys.ENTER)


def idle(browser):
    return find(browser, "#send").is_displayed()


def visit(browser, url):
    browser.get(url)
    wait(browser, lambda b: "tiny" in b.title)  # what the server says of itself has been read


def picture(browser, name):
    if folder := os.environ.get("GGQ_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_talk_stop_and_come_back(page, browser):
    url, engine, scheduler = page
    engine.seconds = 0.0
    visit(browser, url)
    picture(browser, "empty")
    write(browser, "Hello <i>you</i>")
    wait(browser, lambda b: "the end." in find(b, "#log").text and idle(b))
    assert texts(browser, ".user .body") == ["Hello <i>you</i>"]
    answer = find(browser, ".assistant .body")
    assert answer.find_element(By.CSS_SELECTOR, "strong").text == "Hello"
    assert "<b>no html</b>" in answer.text
    assert [e.tag_name for e in answer.find_elements(By.CSS_SELECTOR, "ol, ol ul, table")] == [
        "ol", "ul", "table"]  # fmt: skip
    assert answer.find_element(By.CSS_SELECTOR, "figure code").text == 'print("hi")'
    assert answer.find_element(By.CSS_SELECTOR, "details summary").text == "Thoughts"
    link = answer.find_element(By.CSS_SELECTOR, "a")
    assert (link.get_attribute("href"), link.get_attribute("rel")) == (
        "https://example.org/x", "noopener noreferrer")  # fmt: skip
    assert "tokens of the context used" in find(browser, "#status").text
    assert "per second" in find(browser, ".assistant .tools").text
    assert find(browser, "#log").get_attribute("aria-busy") == "false"
    picture(browser, "answer")

    engine.seconds = 0.02
    write(browser, "Again")
    wait(
        browser, lambda b: len(texts(b, ".assistant")) == 2 and "Hello" in texts(b, ".assistant")[1]
    )
    picture(browser, "streaming")
    find(browser, "#stop").click()
    wait(browser, idle)
    wait(browser, lambda b: not scheduler.n_running)
    assert "stopped" in texts(browser, ".assistant")[1]
    cut = texts(browser, ".assistant .body")[1]
    assert "the end." not in cut

    browser.refresh()
    wait(browser, lambda b: len(texts(b, ".message")) == 4)
    assert texts(browser, ".assistant .body")[1] == cut
    assert find(browser, "#title").text == "Hello <i>you</i>"


def test_edit_regenerate_and_conversations(page, browser):
    url, engine, _ = page
    engine.seconds = 0.0
    visit(browser, url)
    write(browser, "First")
    wait(browser, lambda b: "the end." in find(b, "#log").text and idle(b))
    button(browser, "Regenerate").click()
    wait(
        browser,
        lambda b: idle(b) and texts(b, ".assistant") and "the end." in texts(b, ".assistant")[0],
    )
    find(browser, "#prompt").send_keys(Keys.ARROW_UP)  # edits the last message
    area = wait(browser, lambda b: find(b, ".message textarea"))
    area.send_keys(" changed", Keys.ENTER)
    wait(browser, lambda b: idle(b) and texts(b, ".user .body") == ["First changed"])
    wait(browser, lambda b: "the end." in find(b, "#log").text)
    button(browser, "New conversation", "nav").click()
    assert texts(browser, ".message") == []
    write(browser, "Second")
    wait(browser, lambda b: "the end." in find(b, "#log").text and idle(b))
    assert texts(browser, "nav .open") == ["Second", "First"]
    button(browser, "First", "nav").click()
    assert texts(browser, ".user .body") == ["First changed"]
    find(browser, 'button[aria-label="Delete First"]').click()
    browser.switch_to.alert.accept()
    assert texts(browser, "nav .open") == ["Second"]


def test_settings_reach_the_server(page, browser):
    url, engine, scheduler = page
    engine.seconds = 0.0
    seen = []
    submit = scheduler.submit
    scheduler.submit = lambda request, listener: seen.append(request) or submit(request, listener)
    try:
        browser.get(url)
        wait(browser, lambda b: "tiny" in b.title)
        find(browser, "#settings").click()
        assert find(browser, "#temperature").get_attribute("placeholder") == "0.8"
        find(browser, "#system").send_keys("Be brief.")
        find(browser, "#temperature").send_keys("0.25")
        find(browser, "#max_tokens").send_keys("5")
        find(browser, "#theme").send_keys("dark")
        picture(browser, "settings")
        find(browser, "#done").click()
        write(browser, "Hi")
        wait(browser, lambda b: "5 tokens" in find(b, "#log").text and idle(b))
    finally:
        del scheduler.submit
    assert seen[0].params.temperature == 0.25
    assert seen[0].max_tokens == 5
    prompt = scheduler.tokenizer.decode(seen[0].ids)
    assert prompt.startswith("<|im_start|>system\nBe brief.")
    color = find(browser, "body").value_of_css_property("background-color")
    assert "22, 23, 29" in color
    browser.refresh()  # settings stay
    assert find(browser, "html").get_attribute("data-theme") == "dark"
    picture(browser, "dark")


def test_on_a_phone(page, browser):
    url, engine, _ = page
    engine.seconds = 0.0
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    visit(browser, url)
    write(browser, "Hello on a phone")
    wait(browser, lambda b: "the end." in find(b, "#log").text and idle(b))
    picture(browser, "phone")
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 390
    assert not find(browser, "nav").is_displayed()
    find(browser, "#menu").click()
    wait(browser, lambda b: find(b, "nav").rect["x"] == 0)
    picture(browser, "phone-menu")
    assert find(browser, "#menu").get_attribute("aria-expanded") == "true"
    find(browser, "body").send_keys(Keys.ESCAPE)
    wait(browser, lambda b: not find(b, "nav").is_displayed())


def test_names_for_a_screen_reader_and_ways_by_keyboard(page, browser):
    url, engine, _ = page
    engine.seconds = 0.0
    visit(browser, url)
    assert browser.switch_to.active_element == find(browser, "#prompt")
    assert not find(browser, "#send").is_enabled()  # there is nothing to send yet
    button(browser, "Write a haiku about the sea").send_keys(Keys.ENTER)
    wait(browser, lambda b: "the end." in find(b, "#log").text and idle(b))
    controls = browser.find_elements(By.CSS_SELECTOR, "button, input, textarea, select")
    shown = [c for c in controls if c.is_displayed()]
    assert len(shown) > 8
    assert [c.get_attribute("outerHTML") for c in shown if not c.accessible_name] == []
    assert find(browser, "#log").aria_role == "log"  # a live region: answers are read out
    assert find(browser, "#status").aria_role == "status"
    code = find(browser, "figure button")
    code.send_keys(Keys.ENTER)
    wait(browser, lambda b: code.text == "Copied")
    engine.seconds = 0.02
    write(browser, "Again")
    wait(browser, lambda b: find(b, "#stop").is_displayed())
    find(browser, "body").send_keys(Keys.ESCAPE)  # stops
    wait(browser, idle)
    log = find(browser, "#log")
    browser.execute_script("arguments[0].scrollTop = 0", log)
    wait(browser, lambda b: find(b, "#down").is_displayed())
    find(browser, "#down").send_keys(Keys.ENTER)
    wait(browser, lambda b: not find(b, "#down").is_displayed())
    assert browser.switch_to.active_element == find(browser, "#prompt")


def test_errors_are_shown(page, browser):
    url, _, scheduler = page
    visit(browser, url)
    browser.execute_script("document.getElementById('prompt').value = 'x'.repeat(9000)")
    find(browser, "#prompt").send_keys(Keys.ENTER)
    fault = wait(browser, lambda b: find(b, ".fault"))
    assert f"context of {scheduler.n_ctx}" in fault.text
    browser.get_log("browser")  # chromium logs every answer of 400
