"""The chat page in a real headless browser; skipped where there is none.

GGQ_SCREENSHOTS names a folder that gets pictures to look at.
"""

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("selenium")

from browsing import (
    By,
    Keys,
    answered,
    ask,
    drawn,
    find,
    fresh,
    idle,
    named,
    page_server,
    pick,
    picture,
    press,
    texts,
    visit,
    wait,
    write,
)

pytestmark = pytest.mark.slow

pytest_plugins = ["pagefixtures"]


def test_an_answer_is_rendered(page, browser):
    visit(browser, page[0])
    picture(browser, "empty")
    ask(browser, "Hello <i>you</i>")
    assert texts(browser, ".user > .body") == ["Hello <i>you</i>"]
    assert texts(browser, ".who") == ["tiny"]
    answer = find(browser, ".assistant > .body")
    wait(browser, lambda b: answer.find_elements(By.CSS_SELECTOR, "math[display=block] msqrt"))
    assert answer.find_element(By.CSS_SELECTOR, "strong").text == "Hello"
    assert "<b>no html</b>" in answer.text
    assert [e.tag_name for e in answer.find_elements(By.CSS_SELECTOR, "ol, ol ul, table")] == [
        "ol", "ul", "table"]  # fmt: skip
    assert answer.find_element(By.CSS_SELECTOR, "ol > li:last-child > p:last-child").text == (
        "still two"
    )
    assert texts(browser, ".task") == ["☑ done", "☐ to do"]
    assert answer.find_element(By.CSS_SELECTOR, "td.right code").text == "x | y"
    assert answer.find_element(By.CSS_SELECTOR, "figure code").text.startswith("def hi(")
    keyword = answer.find_element(By.CSS_SELECTOR, "figure .c-k")
    colour, text = (e.value_of_css_property("color") for e in (keyword, answer))
    assert colour != text
    assert len(answer.find_elements(By.CSS_SELECTOR, "p math mfrac msqrt")) == 1
    link = answer.find_element(By.CSS_SELECTOR, "a")
    assert (link.get_attribute("href"), link.get_attribute("rel")) == (
        "https://example.org/x", "noopener noreferrer")  # fmt: skip
    thoughts = find(browser, ".assistant > details")
    assert thoughts.find_element(By.CSS_SELECTOR, "summary").text == "Thoughts"
    assert not thoughts.get_attribute("open")
    stats = find(browser, ".assistant .stats").text
    assert "tokens" in stats and "per second" in stats and "of 2048" in stats
    wait(browser, lambda b: "of 2048 tokens of the context used" in find(b, "#status").text)
    assert find(browser, "#log").get_attribute("aria-busy") == "false"
    picture(browser, "answer")


def test_stop_and_come_back(page, browser):
    url, engine, scheduler = page
    engine.seconds = 0.02
    visit(browser, url)
    write(browser, "Hello")
    wait(browser, lambda b: "one" in find(b, ".assistant > .body").text)
    assert find(browser, ".assistant > details").get_attribute("open") is None  # folds when done
    picture(browser, "streaming")
    wait(browser, lambda b: "tokens per second" in find(b, "#status").text)
    find(browser, "body").send_keys(Keys.ESCAPE)
    wait(browser, idle)
    wait(browser, lambda b: not scheduler.n_running)
    assert texts(browser, ".note span") == ["Stopped."]
    cut = drawn(browser)
    assert "the end." not in cut
    browser.refresh()
    wait(browser, lambda b: texts(b, ".assistant > .body") == [cut])
    assert find(browser, "#title").text == "Hello"
    assert texts(browser, ".note span") == ["Stopped."]


def test_settings_reach_the_server(page, browser):
    url, _, scheduler = page
    seen = []
    submit = scheduler.submit
    scheduler.submit = lambda request, listener: seen.append(request) or submit(request, listener)
    try:
        visit(browser, url)
        find(browser, "#settings").click()
        assert find(browser, "#temperature").get_attribute("placeholder") == "0.8"
        find(browser, "#system").send_keys("Be brief.")
        find(browser, "#temperature").send_keys("0.25")
        find(browser, "#max_tokens").send_keys("5")
        pick(browser, "#theme", "dark")
        picture(browser, "settings")
        find(browser, "#done").click()
        write(browser, "Hi")
        wait(browser, lambda b: "5 tokens" in find(b, ".stats").text and idle(b))
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
    wait(browser, lambda b: find(b, ".stats"))
    find(browser, "#settings").click()
    assert find(browser, "#system").get_attribute("value") == "Be brief."


def test_presets(page, browser):
    visit(browser, page[0])
    find(browser, "#settings").click()
    find(browser, "#system").send_keys("Speak as a pirate.")
    find(browser, "#top_k").send_keys("7")
    find(browser, "#preset-name").send_keys("Pirate")
    find(browser, "#save-preset").click()
    pick(browser, "#preset", "Precise")
    assert find(browser, "#system").get_attribute("value") == ""
    assert find(browser, "#temperature").get_attribute("value") == "0.2"
    pick(browser, "#preset", "Pirate")
    assert find(browser, "#top_k").get_attribute("value") == "7"
    find(browser, "#done").click()
    press(browser, "New conversation", "nav")  # begins with the preset's system prompt
    find(browser, "#settings").click()
    assert find(browser, "#system").get_attribute("value") == "Speak as a pirate."
    find(browser, "#delete-preset").click()
    assert "Pirate" not in find(browser, "#preset").text
    find(browser, "body").send_keys(Keys.ESCAPE)
    wait(browser, lambda b: not find(b, "#dialog").is_displayed())


def test_escape_leaves_the_settings_as_they_were(page, browser):
    visit(browser, page[0])
    find(browser, "#settings").click()
    find(browser, "#temperature").send_keys("0.7", Keys.ESCAPE)
    wait(browser, lambda b: not find(b, "#dialog").is_displayed())
    find(browser, "#settings").click()
    assert find(browser, "#temperature").get_attribute("value") == ""
    press(browser, "Cancel", "dialog")


def test_a_key_is_asked_for(driver, tmp_path):
    with page_server(tmp_path, api_keys=("secret",)) as (url, *_), fresh(driver, url) as browser:
        browser.get(url)
        wait(browser, lambda b: find(b, "#key") == b.switch_to.active_element)
        find(browser, "#key").send_keys("secret", Keys.ENTER)
        wait(browser, lambda b: "tiny" in b.title)
        ask(browser, "Hello")
        assert find(browser, ".assistant strong").text == "Hello"
        browser.refresh()  # the key stays
        answered(browser)
        browser.get_log("browser")  # chromium logs every answer of 401


TWO_MODELS = """
const asked = fetch;
window.fetch = async (path, ...rest) => {
  const reply = await asked(path, ...rest);
  if (path !== "v1/models") return reply;
  const { data: [one] } = await reply.json();
  return Response.json({ data: [one, { ...one, id: "other", meta: { n_ctx: 512 } }] });
};
"""


def test_another_model_is_chosen(page, browser):
    script = {"source": TWO_MODELS}
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    visit(browser, page[0])
    pick(browser, "#models", "other")
    wait(browser, lambda b: "other" in b.title)
    ask(browser, "Hello")
    assert texts(browser, ".who") == ["other"]
    browser.refresh()
    wait(browser, lambda b: "other" in b.title)  # it stays chosen
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_on_a_phone(page, browser):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    visit(browser, page[0])
    picture(browser, "phone-empty")
    ask(browser, "Hello on a phone")
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
    find(browser, "#settings").click()
    picture(browser, "phone-settings")
    wide = browser.execute_script("return document.getElementById('dialog').scrollWidth")
    assert wide <= 390


def test_names_for_a_screen_reader_and_ways_by_keyboard(page, browser):
    url, engine, _ = page
    visit(browser, url)
    assert browser.switch_to.active_element == find(browser, "#prompt")
    assert not find(browser, "#send").is_enabled()  # there is nothing to send yet
    named(browser, "Write a haiku about the sea").send_keys(Keys.ENTER)
    answered(browser)
    drawn(browser)

    def names(b):
        controls = b.find_elements(By.CSS_SELECTOR, "button, input, textarea, select")
        return [
            (c.accessible_name, c.get_attribute("outerHTML")) for c in controls if c.is_displayed()
        ]

    shown = wait(browser, names)
    assert len(shown) > 10
    assert [html for name, html in shown if not name] == []
    assert find(browser, "#log").aria_role == "log"  # a live region: answers are read out
    assert find(browser, "#status").aria_role == "status"
    levels = [
        int(e.tag_name[1]) for e in browser.find_elements(By.CSS_SELECTOR, "main h1, main h2")
    ]
    assert levels == [1, 2, 2]
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
    find(browser, "body").send_keys(Keys.CONTROL, "k")
    assert browser.switch_to.active_element == find(browser, "#search")
    more = find(browser, "#more")
    more.send_keys(Keys.ENTER)  # a menu: arrows move, Escape returns
    wait(browser, lambda b: b.switch_to.active_element.text == "Rename")
    browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert browser.switch_to.active_element.text == "Copy all"
    browser.switch_to.active_element.send_keys(Keys.ARROW_UP, Keys.ARROW_UP)
    assert browser.switch_to.active_element.text == "Delete"
    picture(browser, "menu")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert browser.switch_to.active_element == more
    wait(browser, lambda b: more.get_attribute("aria-expanded") == "false")


def test_a_draft_outlives_a_reload(page, browser):
    visit(browser, page[0])
    find(browser, "#prompt").send_keys("not yet sent", Keys.SHIFT, Keys.ENTER, Keys.NULL, "two")
    browser.refresh()
    wait(browser, lambda b: find(b, "#prompt").get_attribute("value") == "not yet sent\ntwo")


def test_errors_are_shown(page, browser):
    url, _, scheduler = page
    visit(browser, url)
    browser.execute_script("document.getElementById('prompt').value = 'x'.repeat(9000)")
    find(browser, "#prompt").send_keys(Keys.ENTER)
    fault = wait(browser, lambda b: find(b, ".note.bad"))
    assert f"context of {scheduler.n_ctx}" in fault.text
    browser.get_log("browser")  # chromium logs every answer of 400
