"""Conversations on the page: nothing of them is lost, whatever tabs, reloads and edits do."""

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("selenium")

from browsing import (
    Keys,
    answered,
    ask,
    drawn,
    find,
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

from ggq.runtime.server import chat

pytestmark = pytest.mark.slow
pytest_plugins = ["pagefixtures"]

# --- branches ---


def test_regenerate_and_edit_make_branches(page, browser):
    visit(browser, page[0])
    ask(browser, "First")
    press(browser, "Regenerate")
    wait(browser, lambda b: texts(b, ".assistant .branches span") == ["2/2"])
    answered(browser)
    find(browser, "#prompt").send_keys(Keys.ARROW_UP)  # edits the last message
    area = wait(browser, lambda b: find(b, ".editing textarea"))
    area.send_keys(" changed", Keys.ENTER)
    wait(browser, lambda b: said(b) == ["First changed"])
    answered(browser)
    assert texts(browser, ".user .branches span") == ["2/2"]
    picture(browser, "branches")
    ask(browser, "More")
    named(browser, "Previous version").send_keys(Keys.ENTER)
    wait(browser, lambda b: said(b) == ["First"])
    focused = browser.switch_to.active_element
    assert focused.get_attribute("aria-label") == "Next version"  # there is none before
    assert texts(browser, ".branches span") == ["1/2", "2/2"]
    press(browser, "Next version")
    wait(browser, lambda b: said(b) == ["First changed", "More"])
    (record,) = records(browser)
    assert len(record["nodes"]) == 7  # nothing was deleted
    browser.refresh()
    wait(browser, lambda b: said(b) == ["First changed", "More"])


def test_escape_leaves_an_edit_without_a_branch(page, browser):
    visit(browser, page[0])
    ask(browser, "First")
    press(browser, "Edit")
    find(browser, ".editing textarea").send_keys("x", Keys.ESCAPE)
    assert said(browser) == ["First"]
    assert texts(browser, ".branches") == []


def test_delete_one_message_and_undo(page, browser):
    visit(browser, page[0])
    ask(browser, "First")
    ask(browser, "Second")
    press(browser, "Delete message", ".user[data-id]")
    wait(browser, lambda b: said(b) == ["Second"])
    assert len(records(browser)[0]["nodes"]) == 3
    press(browser, "Undo", "#notice")
    wait(browser, lambda b: said(b) == ["First", "Second"])
    press(browser, "Delete message", ".assistant:last-child")
    wait(browser, lambda b: len(texts(b, ".assistant")) == 1)
    press(browser, "Answer")
    wait(browser, lambda b: len(texts(b, ".assistant")) == 2)
    answered(browser)
    assert len(records(browser)[0]["nodes"]) == 4


# --- interruptions ---


def test_an_answer_in_progress_is_found_again_after_a_reload(page, browser):
    url, engine, scheduler = page
    engine.seconds = 0.05
    visit(browser, url)
    write(browser, "Hello")
    wait(browser, lambda b: "one" in find(b, ".assistant > .body").text)
    wait(browser, lambda b: any("there" in n["content"] for n in records(b)[0]["nodes"].values()
                                if n["role"] == "assistant"))  # fmt: skip
    browser.refresh()
    wait(browser, lambda b: texts(b, ".note span") == [
        "The page was closed before the end of this answer."])  # fmt: skip
    assert "Hello there" in drawn(browser)
    wait(browser, lambda b: not scheduler.n_running)
    seen = []
    submit = scheduler.submit
    scheduler.submit = lambda request, listener: seen.append(request) or submit(request, listener)
    try:
        press(browser, "Continue")
        wait(browser, lambda b: seen)
    finally:
        del scheduler.submit
    prompt = scheduler.tokenizer.decode(seen[0].ids)
    thoughts = "assistant\n<think>\nA greeting, and some *code*.\n</think>\n\n**Hello** there"
    assert thoughts in prompt and not prompt.endswith("<|im_end|>\n")
    answered(browser)
    assert drawn(browser).count("Hello there") == 2  # it went on


def test_a_stream_without_its_end_mark_is_broken(page, browser, monkeypatch):
    stream = chat._stream

    async def cut(*given):
        n = 0
        async for chunk in stream(*given):
            n += 1
            if n == 40:
                return
            yield chunk

    monkeypatch.setattr(chat, "_stream", cut)
    visit(browser, page[0])
    write(browser, "Hello")
    wait(browser, lambda b: texts(b, ".note.bad span") == [
        "The connection broke before the end of this answer."])  # fmt: skip
    picture(browser, "broken")
    monkeypatch.undo()
    press(browser, "Continue")
    answered(browser)
    assert texts(browser, ".note:not([hidden])") == []


def test_a_server_that_is_gone(page, browser):
    visit(browser, page[0])
    ask(browser, "Hello")
    browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    write(browser, "Again")
    wait(browser, lambda b: texts(b, ".note.bad span") == ["The server cannot be reached."])
    online = {**offline, "offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", online)
    press(browser, "Try again")
    answered(browser)
    browser.get_log("browser")  # chromium logs that it was offline


def test_the_longest_answer_is_told_and_continued(page, browser):
    visit(browser, page[0])
    find(browser, "#settings").click()
    find(browser, "#max_tokens").send_keys("60")
    find(browser, "#done").click()
    write(browser, "Hello")
    wait(browser, lambda b: texts(b, ".note span") == [
        "Cut off: the longest answer that is allowed was reached."])  # fmt: skip
    assert "60 tokens" in find(browser, ".stats").text
    picture(browser, "length")
    press(browser, "Continue")
    wait(browser, lambda b: "120 tokens" in find(b, ".stats").text)


def fill_context(browser, scheduler):
    """Ask until an answer is cut off; return how many messages that took."""
    count = 0
    while "Cut off" not in "".join(texts(browser, ".note")):
        count += 1
        assert count < 12
        write(browser, f"Message {count}")
        wait(browser, lambda b, n=count: idle(b) and len(texts(b, ".stats")) == n)
    told = f"Cut off: the context of {scheduler.n_ctx} tokens is full."
    assert texts(browser, ".note:not([hidden]) span") == [told]
    return count


def test_a_full_context_is_told_and_made_room_in(page, browser):
    url, _, scheduler = page
    visit(browser, url)
    count = fill_context(browser, scheduler)
    picture(browser, "context")
    press(browser, "Leave out the oldest messages")
    line = "The messages above are no longer sent to the model"
    wait(browser, lambda b: texts(b, ".cut") == [line])
    answered(browser)
    assert find(browser, ".left > .body").text == "Message 1"
    assert len(said(browser)) == count  # nothing is deleted


def test_a_full_context_goes_on_after_a_summary(page, browser):
    url, _, scheduler = page
    visit(browser, url)
    fill_context(browser, scheduler)
    seen = []
    submit = scheduler.submit
    scheduler.submit = lambda request, listener: seen.append(request) or submit(request, listener)
    try:
        press(browser, "Summarize them")
        line = "The messages above are sent to the model as a summary"
        wait(browser, lambda b: texts(b, ".cut") == [line])
        answered(browser)
    finally:
        del scheduler.submit
    asked, continued = (scheduler.tokenizer.decode(request.ids) for request in seen)
    assert "Summarize our conversation" in asked and "Message 1" in asked
    summary = "system\nSummary of the conversation so far:\n**Hello** there"
    assert summary in continued and "Message 1<" not in continued
    find(browser, ".summary summary").click()
    picture(browser, "summary")
    assert find(browser, ".summary strong").text == "Hello"
