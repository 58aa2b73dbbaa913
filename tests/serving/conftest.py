"""A real server, started once for all tests that talk to one."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from live_server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two ranks, 4 steps of 64 px, up to 4 images a call."""
    config = tmp_path_factory.mktemp("server") / "config.yaml"
    config.write_text(
        "version: 1\n"
        "model: tiny\n"
        "parallel: {ulysses_degree: 2}\n"
        "sampling: {num_inference_steps: 4}\n"
        "server: {max_batch_size: 4, max_queue: 8, json_logs: true, max_pixels: 65536}\n"
    )
    with Server(config.parent, str(config)) as result:
        yield result


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return server.client()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that ends the server, which all share, comes last."""
    items.sort(key=lambda item: item.name == "test_what_was_asked_before_sigterm_is_still_answered")
