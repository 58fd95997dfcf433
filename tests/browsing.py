"""What tests of the page share: a server that answers by a script, a headless browser.

Not a test itself. GGQ_SCREENSHOTS names a folder that gets pictures.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path

from ggufmaker import make_tiny_llama
from schedules import Scripted
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from servers import listening

import ggq
from ggq.runtime.batching.scheduler import Scheduler

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

ANSWER = r"""<think>A greeting, and some *code*.</think>**Hello** there, `code` & <b>no html</b>:

1. one
2. two
   - inner

   still two

- [x] done
- [ ] to do

```python
def hi(name: str) -> None:
    print(f"hi {name}", 1 + 2)  # greets
```

| a | b |
|---|--:|
| 1 | `x \| y` |

The root is \(x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}\), and

$$\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}$$

A [link](https://example.org/x), [no link](javascript:alert(1)) and the end."""
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


@contextlib.contextmanager
def page_server(folder, answer=ANSWER, **settings):
    """Yield (address, engine, scheduler) of a server that answers everything with ``answer``."""
    path = make_tiny_llama(folder / "t.gguf", n_ctx=2048, vocab="bpe")
    with ggq.load(path, vocab_only=False, threads=1) as model:
        script = model.tokenizer.encode(answer, add_special=False)
        engine = Slow([*script, model.tokenizer.eos_id], model.tokenizer.n_vocab, n_ctx=8192)
        scheduler = Scheduler(engine, model.tokenizer)
        with listening(model, scheduler, **settings) as (url, _):
            yield url, engine, scheduler


@contextlib.contextmanager
def chromium(folder):
    """Yield a browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    allowed = {"profile.default_content_setting_values.automatic_downloads": 1}
    prefs = {"download.default_directory": str(folder), **allowed}
    options.add_experimental_option("prefs", prefs)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.command_executor.client_config.timeout = 600  # the machine may stand still for a while
    try:
        yield driver
    finally:
        driver.quit()


@contextlib.contextmanager
def fresh(driver, url):
    """Yield a browser that knows nothing of ``url`` yet; nothing may be refused or missing."""
    driver.get(f"{url}/health")
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
    driver.execute_script("sessionStorage.clear()")
    driver.get_log("browser")
    yield driver
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    faults = [e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    assert faults == []


def wait(browser, condition, seconds=60):
    """Wait for a condition; what is looked at may be drawn anew meanwhile."""
    again = (StaleElementReferenceException, NoSuchElementException)
    return WebDriverWait(browser, seconds, 0.05, again).until(condition)


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def texts(browser, selector):
    return [e.text for e in browser.find_elements(By.CSS_SELECTOR, selector)]


def named(browser, label, among="main"):
    """Return the button that shows or is read out as ``label``."""

    def look(b):
        found = b.find_elements(By.CSS_SELECTOR, f"{among} button")
        return next((x for x in found if label in (x.text.strip(), x.accessible_name)), None)

    return wait(browser, look)


def press(browser, label, among="main"):
    """Press a button, which may be shown only under the mouse."""
    browser.execute_script("arguments[0].click()", named(browser, label, among))


def go_to(browser, title, *keys):
    """Open a conversation by its entry in the list, or send it keys; the list may be drawn anew."""

    def act(b):
        entry = find(b, f'#chats .open[title="{title}"]')
        if keys:
            entry.send_keys(*keys)
        else:
            entry.click()
        return True

    wait(browser, act)


def choose(browser, opener, entry):
    """Choose an entry of the menu that a button opens."""
    browser.execute_script("arguments[0].click()", opener)
    press(browser, entry, "#popup")


def pick(browser, selector, text):
    """Choose an option of a select element."""
    Select(find(browser, selector)).select_by_visible_text(text)


def write(browser, text):
    find(browser, "#prompt").send_keys(text, Keys.ENTER)


def idle(browser):
    return find(browser, "#send").is_displayed()


def visit(browser, url):
    browser.get(url)
    wait(browser, lambda b: "tiny" in b.title)  # what the server says of itself has been read


def ask(browser, text):
    """Write a message and wait for the whole answer."""
    write(browser, text)
    answered(browser)


def answered(browser):
    wait(browser, lambda b: idle(b) and "the end." in "".join(texts(b, ".assistant > .body")[-1:]))


def drawn(browser):
    """Return the text of the last answer once it does not change any more."""
    seen = [""]

    def same(b):
        time.sleep(0.3)
        seen.append(texts(b, ".assistant > .body")[-1])
        return seen[-1] == seen[-2] and seen[-1]

    return wait(browser, same)


def picture(browser, name):
    if folder := os.environ.get("GGQ_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


RECORDS = """
const done = arguments[arguments.length - 1], request = indexedDB.open("ggq");
request.onsuccess = () => {
  const all = request.result.transaction("conversations").objectStore("conversations").getAll();
  all.onsuccess = () => { request.result.close(); done(all.result); };
};
"""


def records(browser):
    """Return what the browser has stored, oldest first."""
    return sorted(browser.execute_async_script(RECORDS), key=lambda record: record["created"])


def said(browser):
    """Return the user's messages on the screen."""
    return texts(browser, ".user > .body")


def entries(browser):
    """Return the titles in the list of conversations."""
    return texts(browser, "#chats .open > span:first-child")
