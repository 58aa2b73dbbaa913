"""What routers of vLLM and llm-d scrape, as their protocol asks for it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from waiting import application

from runtime.serving.queue import stop

PATH = "/v1/images/generations"


async def scraped(client: httpx.AsyncClient) -> dict[str, tuple[dict[str, str], float]]:
    """The one sample of each of vLLM's gauges."""
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    samples = [sample for family in families if family.type == "gauge" for sample in family.samples]
    return {sample.name: (sample.labels, sample.value) for sample in samples if sample.name.startswith("vllm:")}


async def scenario(folder: Path) -> None:
    (folder / "adapters").mkdir()
    for name in ("style", "pose"):
        (folder / "adapters" / f"{name}.safetensors").write_bytes(b"")
    config = f"model: tiny\nserver: {{lora_folder: {folder / 'adapters'}, max_loras: 3}}\n"
    front, workers, queue, _ = application(folder, config)
    work = asyncio.create_task(queue.work())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://test") as client:
        found = await scraped(client)
        of_model = {"model_name": "tiny", "engine": "0"}
        assert found["vllm:num_requests_running"] == found["vllm:num_requests_waiting"] == (of_model, 0)
        assert found["vllm:kv_cache_usage_perc"] == (of_model, 0)
        asked: list[dict] = [{"lora": {"name": "style"}}, {"lora": {"name": "pose"}}, {"n": 4}]
        posts = [asyncio.create_task(client.post(PATH, json={"prompt": "a"} | fields)) for fields in asked]
        while queue.depth < 2:
            await asyncio.sleep(0.005)
        found = await scraped(client)
        assert (found["vllm:num_requests_running"][1], found["vllm:num_requests_waiting"][1]) == (1, 2)
        labels, when = found["vllm:lora_requests_info"]
        assert labels == {"max_lora": "3", "running_lora_adapters": "style", "waiting_lora_adapters": "pose"}
        assert abs(when - time.time()) < 10
        workers.may_finish.set()
        assert [answer.status_code for answer in await asyncio.gather(*posts)] == [200] * 3
        found = await scraped(client)
        assert (found["vllm:num_requests_running"][1], found["vllm:num_requests_waiting"][1]) == (0, 0)
    await stop(work)


def test_running_and_waiting_requests_and_adapters_under_the_names_of_vllm(tmp_path: Path) -> None:
    asyncio.run(asyncio.wait_for(scenario(tmp_path), 30))
