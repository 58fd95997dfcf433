"""Several conversations and tabs on the page; files out of it and into it."""

import json

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("selenium")

from browsing import (
    By,
    Keys,
    answered,
    ask,
    choose,
    entries,
    find,
    go_to,
    idle,
    named,
    picture,
    press,
    records,
    said,
    texts,
    visit,
    wait,
    write,
)

pytestmark = pytest.mark.slow
pytest_plugins = ["pagefixtures"]


@pytest.fixture
def second_tab(browser, page):
    """Return a function that changes between two tabs of the page; False: to the first."""
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle
    browser.switch_to.window(first)
    yield lambda second_one=True: browser.switch_to.window(second if second_one else first)
    browser.switch_to.window(second)
    browser.close()
    browser.switch_to.window(first)


# --- several conversations, several tabs ---


def test_another_conversation_does_not_stop_an_answer(page, browser):
    url, engine, _ = page
    engine.seconds = 0.1  # neither answer ends by itself before Escape
    visit(browser, url)
    write(browser, "Slow")
    wait(browser, lambda b: "one" in find(b, ".assistant > .body").text)
    press(browser, "New conversation", "nav")
    wait(browser, lambda b: said(b) == [])
    assert idle(browser)
    wait(browser, lambda b: find(b, "#chats .running"))
    write(browser, "Beside it")
    wait(browser, lambda b: len(b.find_elements(By.CSS_SELECTOR, "#chats .running")) == 2)
    picture(browser, "two-running")
    find(browser, "body").send_keys(Keys.ESCAPE)  # stops only the one that is open
    wait(
        browser,
        lambda b: entries(b) and len(b.find_elements(By.CSS_SELECTOR, "#chats .running")) == 1,
    )
    engine.seconds = 0.0
    go_to(browser, "Slow")
    wait(browser, lambda b: said(b) == ["Slow"])
    answered(browser)
    wait(browser, lambda b: not b.find_elements(By.CSS_SELECTOR, "#chats .running"))


def test_two_tabs_do_not_overwrite_each_other(page, browser, second_tab):
    url, engine, _ = page
    visit(browser, url)
    ask(browser, "Shared")
    second_tab()
    visit(browser, url)
    wait(browser, lambda b: said(b) == ["Shared"])
    second_tab(False)
    engine.seconds = 0.05
    write(browser, "From the first")
    wait(browser, lambda b: len(texts(b, ".assistant")) == 2)
    second_tab()
    wait(browser, lambda b: said(b) == ["Shared", "From the first"])
    # what the first tab is still being answered comes here every second
    wait(browser, lambda b: "Hello there" in texts(b, ".assistant > .body")[1])
    assert "Being written in another tab." in texts(browser, ".note span")
    press(browser, "New conversation", "nav")
    write(browser, "From the second")
    wait(browser, lambda b: said(b) == ["From the second"])
    answered(browser)
    second_tab(False)
    answered(browser)
    wait(browser, lambda b: sorted(entries(b)) == ["From the second", "Shared"])
    shared, own = records(browser)
    assert len(shared["nodes"]) == 4
    assert len(own["nodes"]) == 2
    assert {node["state"] for record in (shared, own) for node in record["nodes"].values()} == {
        "done"
    }
    press(browser, "Edit", "#messages")  # what is being written survives what another tab does
    find(browser, ".editing textarea").send_keys(" and more")
    second_tab()  # both tabs write to one conversation
    go_to(browser, "Shared")
    wait(browser, lambda b: said(b) == ["Shared", "From the first"])
    write(browser, "Second's turn")
    second_tab(False)
    wait(browser, lambda b: "Second's turn" in said(b))
    assert find(browser, ".editing textarea").get_attribute("value").endswith(" and more")
    press(browser, "Cancel", ".editing")
    wait(browser, idle)
    write(browser, "First's turn")
    for here in (True, False):
        second_tab(here)
        answered(browser)
    contents = [node["content"] for node in records(browser)[0]["nodes"].values()]
    assert {"Second's turn", "First's turn"} <= set(contents)
    assert len(contents) == 8


def test_an_answer_of_a_tab_that_was_closed(page, browser):
    url, engine, _ = page
    visit(browser, url)
    ask(browser, "Shared")
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    visit(browser, url)
    engine.seconds = 0.05
    write(browser, "Given up")
    wait(browser, lambda b: len(texts(b, ".assistant")) == 2 and texts(b, "#status") != [""])
    browser.switch_to.window(browser.window_handles[-1])
    browser.close()
    browser.switch_to.window(first)
    wait(browser, lambda b: said(b) == ["Shared", "Given up"])
    broken = "The page was closed before the end of this answer."
    wait(browser, lambda b: texts(b, ".note:not([hidden]) span") == [broken])


def test_search_rename_delete(page, browser):
    visit(browser, page[0])
    ask(browser, "About whales")
    press(browser, "New conversation", "nav")
    ask(browser, "About ships")
    wait(browser, lambda b: entries(b) == ["About ships", "About whales"])
    find(browser, "#search").send_keys("WHALE")
    wait(browser, lambda b: entries(b) == ["About whales"])
    find(browser, "#search").send_keys(Keys.CONTROL, "a", Keys.NULL, "inner")
    wait(browser, lambda b: len(texts(b, "#chats small")) == 2)  # in the answers
    find(browser, "#search").send_keys("nowhere")
    wait(browser, lambda b: find(b, "#none").is_displayed())
    find(browser, "#search").send_keys(Keys.ESCAPE)
    wait(browser, lambda b: len(entries(b)) == 2)
    go_to(browser, "About whales", Keys.F2)
    find(browser, "#chats input").send_keys("Moby Dick", Keys.ENTER)
    wait(browser, lambda b: entries(b) == ["About ships", "Moby Dick"])
    choose(browser, find(browser, "#more"), "Rename")
    find(browser, "#chats input").send_keys("Sails", Keys.ENTER)
    wait(browser, lambda b: find(b, "#title").text == "Sails")
    choose(browser, named(browser, "Menu of Moby Dick", "nav"), "Delete")
    wait(browser, lambda b: entries(b) == ["Sails"])
    press(browser, "Undo", "#notice")
    wait(browser, lambda b: sorted(entries(b)) == ["Moby Dick", "Sails"])
    browser.refresh()
    wait(browser, lambda b: sorted(entries(b)) == ["Moby Dick", "Sails"])


def test_export_and_import(page, browser, downloads):
    def saved(kind):
        return next((f for f in downloads.glob(f"Keep*.{kind}") if f.stat().st_size), None)

    visit(browser, page[0])
    ask(browser, "Keep\n<!-- user -->".replace("\n", Keys.SHIFT + Keys.ENTER + Keys.NULL))
    press(browser, "Regenerate")
    answered(browser)
    choose(browser, find(browser, "#more"), "Export as Markdown")
    choose(browser, find(browser, "#more"), "Export as JSON")
    text, data = (wait(browser, lambda b, kind=kind: saved(kind)) for kind in ("md", "json"))
    exported = json.loads(data.read_text("utf-8"))["conversations"]
    assert len(exported[0]["nodes"]) == 3
    assert text.read_text("utf-8").startswith(
        "# Keep <!-- user -->\n\n<!-- user -->\n\nKeep\n\\<!--"
    )
    for file in (text, data):
        find(browser, "#settings").click()
        find(browser, "#imported").send_keys(str(file))
        wait(browser, lambda b: texts(b, "#notice span") == ["1 conversation imported."])
        press(browser, "Close the notice", "#notice")
        assert said(browser) == ["Keep\n<!-- user -->"]
        answered(browser)
    original, markdown, copy = records(browser)
    assert len(markdown["nodes"]) == 2
    assert copy["nodes"].keys() == original["nodes"].keys()
    assert len({original["id"], markdown["id"], copy["id"]}) == 3
    wrong = downloads / "wrong.json"
    wrong.write_text('{"format": "other"}')
    find(browser, "#settings").click()
    find(browser, "#imported").send_keys(str(wrong))
    wait(browser, lambda b: "holds no conversations of ggq" in find(b, "#notice").text)
    press(browser, "Done", "dialog")


def test_copy_all(page, browser):
    url = page[0]
    permissions = {"origin": url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", permissions)
    visit(browser, url)
    ask(browser, "Hello")
    choose(browser, find(browser, "#more"), "Copy all")
    wait(browser, lambda b: texts(b, "#notice span") == ["Copied."])
    read = "navigator.clipboard.readText().then(arguments[arguments.length - 1])"
    copied = browser.execute_async_script(read)
    assert copied.startswith("# Hello\n\n<!-- user -->\n\nHello\n\n<!-- assistant -->\n\n**Hello**")


def test_conversations_of_the_earlier_page_are_taken_over(page, browser):
    url = page[0]
    browser.get(f"{url}/page/style.css")
    messages = [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "*answer*"},
    ]
    chats = [{"id": "a", "title": "Old", "system": "", "time": 5, "messages": messages}]
    old = {"current": "a", "chats": chats}
    browser.execute_script("localStorage.setItem('ggq.chats', arguments[0])", json.dumps(old))
    visit(browser, url)
    wait(browser, lambda b: texts(b, ".assistant em") == ["answer"])
    assert said(browser) == ["question"]
    assert browser.execute_script("return localStorage.getItem('ggq.chats')") is None


# --- attachments ---


def test_files_are_attached(page, browser, tmp_path):
    from test_page_render import pdf

    url, _, scheduler = page
    code, paper, binary = tmp_path / "a.py", tmp_path / "paper.pdf", tmp_path / "x.bin"
    code.write_text('print("```")\n')
    paper.write_bytes(pdf("The text of a paper"))
    binary.write_bytes(b"\x00\xff")
    visit(browser, url)
    field = find(browser, "#file")
    field.send_keys(f"{code}\n{paper}")
    wait(browser, lambda b: len(texts(b, "#files li")) == 2 and find(b, "#send").is_enabled())
    first, second = texts(browser, "#files li")
    assert first.startswith("a.py") and "tokens" in first
    assert second.startswith("paper.pdf") and "1 page, " in second
    field.send_keys(str(binary))
    wait(browser, lambda b: texts(b, "#notice span") == ["x.bin is neither text nor a PDF"])
    picture(browser, "attached")
    seen = []
    submit = scheduler.submit
    scheduler.submit = lambda request, listener: seen.append(request) or submit(request, listener)
    try:
        ask(browser, "Explain")
    finally:
        del scheduler.submit
    prompt = scheduler.tokenizer.decode(seen[0].ids)
    assert 'File a.py:\n\n````py\nprint("```")\n````\n\nFile paper.pdf:' in prompt
    assert "The text of a paper" in prompt
    assert said(browser) == ["Explain"]
    assert len(texts(browser, ".user .files li")) == 2
    browser.refresh()
    wait(browser, lambda b: len(texts(b, ".user .files li")) == 2)
    big = tmp_path / "big.txt"
    big.write_text("word " * 3000)
    field = find(browser, "#file")
    field.send_keys(str(big))
    wait(browser, lambda b: "more than the context" in find(b, "#files .bad").text)
    press(browser, "New conversation", "nav")  # files wait where they were attached
    wait(browser, lambda b: not find(b, "#files").is_displayed())
    go_to(browser, "Explain")
    wait(browser, lambda b: find(b, "#files").is_displayed())
    press(browser, "Remove big.txt")
    wait(browser, lambda b: not find(b, "#files").is_displayed())
