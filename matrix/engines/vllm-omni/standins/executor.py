"""Each process is a rank with an engine of its own, all in step: vLLM-Omni would start its workers anew, 40 s a rank.

Its executor of one process makes the worker in the process itself; here that is the worker of the rank. The run to warm
up is of a smaller image.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

FOR = "speed"
SIDE = 64  # pixels of the engine's run to warm up; its own has 512


def apply(omni: Any) -> None:
    """After the import: the executor that an engine chooses, once its choice is made."""
    if omni is None:
        return
    abstract: Any = importlib.import_module("vllm_omni.diffusion.executor.abstract")
    single: Any = importlib.import_module("vllm_omni.diffusion.executor.uniproc_executor")
    choose = abstract.DiffusionExecutor.get_class

    class OfThisRank(single.UniProcDiffusionExecutor):  # type: ignore[misc]
        def _init_executor(self) -> None:
            workers: Any = importlib.import_module("vllm_omni.diffusion.worker.diffusion_worker")
            self._closed = self._is_failed = self._warned_about_timeout = False
            self._failure_callbacks: list[Any] = []
            self.driver_worker = workers.WorkerWrapperBase(
                gpu_id=int(os.environ["RANK"]),
                od_config=self.od_config,
                worker_extension_cls=self.od_config.worker_extension_cls,
                custom_pipeline_args=self.od_config.custom_pipeline_args,
            )

    def chosen(config: Any) -> Any:
        choose(config)
        return OfThisRank

    abstract.DiffusionExecutor.get_class = staticmethod(chosen)
    engine: Any = importlib.import_module("vllm_omni.diffusion.diffusion_engine").DiffusionEngine
    make = engine._make_dummy_request

    def warming(self: Any, **asked: Any) -> Any:
        request = make(self, **asked | {"height": SIDE, "width": SIDE})
        if request is not None:
            # It would draw one, and one request goes to all ranks; here each rank makes it.
            request.sampling_params.seed = 0
        return request

    engine._make_dummy_request = warming
