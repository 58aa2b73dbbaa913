"""The site, built: every link of it leads somewhere, and its search finds rules without a network."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("built") / "site"
    subprocess.run([sys.executable, str(ROOT / "docs" / "build_site.py"), str(folder)], check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_its_search_finds_a_rule_and_nothing_is_fetched_from_elsewhere(browser: Any, address: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_console_message(lambda said: "search ready" in said.text, timeout=60_000):
        page.goto(f"{address}/index.html")
        page.click("text=Search")
    page.type("#mkdocs-search-query", "ulysses divides heads", delay=20)
    page.wait_for_selector("#mkdocs-search-results article", timeout=60_000)
    assert "OMNI103" in page.inner_text("#mkdocs-search-results")
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith(address)] == []


@pytest.mark.parametrize("name", ["index.html", "rules/index.html", "matrix/models.html", "estimates.html"])
def test_a_phone_needs_no_sideways_scrolling(browser: Any, address: str, name: str) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto(f"{address}/{name}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
