"""Fixtures of the page's tests, which name this module in pytest_plugins: a server, a browser."""

import pytest
from browsing import CHROMIUM, DRIVER, chromium, fresh, page_server


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return (address, engine, scheduler) of a server."""
    with page_server(tmp_path_factory.mktemp("tiny")) as served:
        yield served


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """Return the folder that the browser saves files in."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def driver(downloads):
    """Return the module's browser; skip where there is none."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver")
    with chromium(downloads) as found:
        yield found


@pytest.fixture
def browser(page, driver):
    """Return a browser that has not seen the page yet."""
    url, engine, _ = page
    engine.seconds = 0.0
    with fresh(driver, url) as found:
        yield found
