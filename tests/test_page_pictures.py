"""Pictures on the chat page: by button, paste and drop; shown, sent, kept small, seen again."""

import threading

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("selenium")
pytest.importorskip("PIL")

from browsing import drawn, find, fresh, idle, picture, press, records, texts, visit, wait, write
from picturemaker import given_eyes, picture_bytes, tiny
from selenium.webdriver.common.keys import Keys
from servers import listening

pytestmark = pytest.mark.slow

pytest_plugins = ["pagefixtures"]

GIVE = """
const [kind, data] = arguments, bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
const event = kind === "paste"
  ? new ClipboardEvent("paste", { clipboardData: transfer, cancelable: true })
  : new DragEvent("drop", { dataTransfer: transfer, cancelable: true });
(kind === "paste" ? document.getElementById("prompt") : document).dispatchEvent(event);
"""
NATURAL = """
const found = [...document.querySelectorAll(arguments[0])];
return found.map(image => [image.naturalWidth, image.naturalHeight]);
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with given_eyes(tiny(tmp_path_factory.mktemp("seeing"), n_ctx=4096)) as model:
        yield model


@pytest.fixture(scope="module")
def page(model):
    with listening(model, n_predict=12) as (url, scheduler):
        yield url, model.engine, scheduler


@pytest.fixture
def browser(page, driver):
    with fresh(driver, page[0]) as found:
        yield found


def waiting(browser, n):
    wait(browser, lambda b: len(b.find_elements("css selector", "#files img")) == n)


def finished(browser):
    wait(browser, lambda b: idle(b))
    return drawn(browser)


def test_three_turns_with_pictures(page, browser, model, tmp_path):
    import base64

    path = tmp_path / "cat.png"
    path.write_bytes(picture_bytes(60, 90))
    looked = model.gallery.eyes.looked
    visit(browser, page[0])
    find(browser, "#file").send_keys(str(path))
    waiting(browser, 1)
    assert "cat.png" in find(browser, "#files").text and "90 × 60" in find(browser, "#files").text
    picture(browser, "picture-attached")
    write(browser, "What is it?")
    first = finished(browser)
    assert model.gallery.eyes.looked == looked + 1
    write(browser, "Sure?")
    finished(browser)
    assert model.gallery.eyes.looked == looked + 1  # the same picture: known
    for kind in ("paste", "drop"):
        data = base64.b64encode(picture_bytes(40, seed=len(kind))).decode()
        browser.execute_script(GIVE, kind, data)
    waiting(browser, 2)
    write(browser, "And these?")
    finished(browser)
    assert model.gallery.eyes.looked == looked + 3
    picture(browser, "picture-asked")
    sizes = browser.execute_script(NATURAL, ".user .picture img")
    assert sizes == [[90, 60], [40, 40], [40, 40]]
    press(browser, "Regenerate", ".message:last-of-type")
    finished(browser)
    assert model.gallery.eyes.looked == looked + 3
    browser.refresh()
    wait(browser, lambda b: len(b.find_elements("css selector", ".user .picture img")) == 3)
    assert texts(browser, ".assistant > .body")[0] == first
    picture(browser, "picture-again")


def test_stopped_while_the_model_looks(page, browser, model, tmp_path, monkeypatch):
    looking, encode = threading.Event(), model.gallery.eyes.encode
    slow = lambda *given: (looking.wait(60), encode(*given))[1]  # noqa: E731
    monkeypatch.setattr(model.gallery.eyes, "encode", slow)
    path = tmp_path / "slow.png"
    path.write_bytes(picture_bytes(48, seed=48))
    visit(browser, page[0])
    find(browser, "#file").send_keys(str(path))
    waiting(browser, 1)
    write(browser, "What is it?")
    wait(browser, lambda b: find(b, "#stop").is_displayed())
    find(browser, "body").send_keys(Keys.ESCAPE)
    looking.set()
    wait(browser, idle)
    picture(browser, "picture-stopped")
    press(browser, "Regenerate", ".message:last-of-type")
    finished(browser)
    assert texts(browser, ".assistant > .body")[-1]


def test_a_large_picture_is_kept_small(page, browser, tmp_path):
    from PIL import Image

    path = tmp_path / "large.png"
    Image.effect_mandelbrot((4000, 3000), (-2, -1.5, 1, 1.5), 30).convert("RGB").save(path)
    visit(browser, page[0])
    find(browser, "#file").send_keys(str(path))
    waiting(browser, 1)
    assert (
        "1,600 × 1,200" in find(browser, "#files").text
        or "1600 × 1200" in find(browser, "#files").text
    )
    write(browser, "What is it?")
    finished(browser)
    (kept,) = [
        f for node in records(browser)[-1]["nodes"].values() for f in node.get("files") or ()
    ]
    assert len(kept["picture"]) < 1_000_000


def test_what_is_no_picture_and_a_model_without_eyes(page, browser, model, tmp_path, monkeypatch):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    visit(browser, page[0])
    find(browser, "#file").send_keys(str(path))
    told = "broken.png is no picture that this browser can read"
    wait(browser, lambda b: told in find(b, "body").text)
    monkeypatch.setattr(model, "gallery", None)
    visit(browser, page[0])
    path.write_bytes(picture_bytes(20))
    find(browser, "#file").send_keys(str(path))
    wait(browser, lambda b: "this model takes none" in find(b, "body").text)
    picture(browser, "picture-refused")
