"""The page of a real server, in a browser."""

from __future__ import annotations

from typing import Any

import pytest
from live_server import Server, image


@pytest.fixture(scope="module")
def page(browser: Any, server: Server) -> Any:
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("requestfailed", lambda request: page.problems.append(request.url))
    page.goto(server.url)
    page.wait_for_selector("#plan tr")
    return page


def test_it_shows_the_plan_that_is_served(page: Any) -> None:
    text = page.text_content("#plan")
    assert page.text_content("#model") == "tiny"
    assert "ulysses 2" in text
    assert "up to 4" in text


def test_it_shows_the_replicas_and_the_queue(page: Any) -> None:
    page.wait_for_selector("#replicas:text-is('replica 0: ready; 0 requests waiting')")


def test_it_asks_for_nothing_that_this_server_does_not_need(page: Any) -> None:
    assert page.is_visible("#prompt")
    assert not page.is_visible("#image")  # the model makes images, and edits none
    assert not page.is_visible("#key")


def test_a_prompt_becomes_the_image_of_the_api_with_progress_on_the_way(page: Any, server: Server) -> None:
    page.evaluate(
        """() => {
          window.seen = [];
          const keep = (change) => window.seen.push(...[...change.addedNodes].map((node) => node.data));
          new MutationObserver((changes) => changes.forEach(keep))
            .observe(document.getElementById("status"), {childList: true});
        }"""
    )
    page.fill("#prompt", "a red star")
    page.fill("#seed", "3")
    page.fill("#num_inference_steps", "8")
    page.click("#make")
    page.wait_for_selector("#status:text-is('done')", timeout=60_000)
    steps = [said for said in page.evaluate("window.seen") if said.startswith("step")]
    assert steps == [f"step {step} of 8" for step in range(1, 9)]
    shown = page.get_attribute("#result", "src").removeprefix("data:image/png;base64,")
    asked = {"seed": 3, "num_inference_steps": 8}
    answer = server.client().images.generate(prompt="a red star", extra_body=asked)
    assert abs(image(shown) - image(answer.data[0])).max() == 0
    assert page.text_content("#caption") == "64x64, seed 3"


def test_a_rule_that_is_broken_is_told(page: Any) -> None:
    page.fill("#size", "60x64")
    page.click("#make")
    page.wait_for_selector("#status.error")
    assert "OMNI504" in page.text_content("#status")
    page.fill("#size", "")


def test_stop_ends_the_work(page: Any, server: Server) -> None:
    gone = server.metric('omni_requests_total{outcome="gone"}')
    page.fill("#num_inference_steps", "200")
    page.click("#make")
    page.wait_for_selector("#status:text('step')", timeout=60_000)
    page.click("#stop")
    page.wait_for_selector("#status:text-is('stopped')")
    server.client().images.generate(prompt="the next one")
    assert server.metric('omni_requests_total{outcome="gone"}') == gone + 1
    assert [problem for problem in page.problems if "/v1/images/" not in problem] == []
