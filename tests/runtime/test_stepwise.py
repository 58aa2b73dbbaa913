"""A call that begins while others are under way makes the image that it makes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cases import tiny, tiny_qwen
from models import build

from omni_config.plan import Model, Plan
from runtime.pipeline import load
from runtime.pipeline.stepwise import Asked, Call, Steps
from runtime.ranks import generate

BOUND = 1 / 255
#: Prompt, seed, steps, and before which step of the first it begins.
CALLS = [("a red star over a sea of glass", 3, 6, 0), ("two words", 4, 3, 2), ("a", 5, 4, 2), ("late", 3, 5, 5)]
NEGATIVE = "a long text that nobody wants to see"


@pytest.fixture(scope="module", params=["ZImagePipeline", "QwenImagePipeline", "FluxPipeline", "guided FluxPipeline"])
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    if request.param.endswith("FluxPipeline"):
        source = str(build("flux", tmp_path_factory.mktemp("flux")))
        plan = tiny(model=Model("flux", source, "FluxPipeline", "text_to_image", "float32"))
        scales = {"guidance_scale": 3.5} | ({"true_cfg_scale": 2.0} if "guided" in request.param else {})
        negative = NEGATIVE if "guided" in request.param else None
        return replace(plan, sampling=replace(plan.sampling, guidance=scales, negative_prompt=negative))
    return tiny_qwen() if request.param.startswith("Qwen") else tiny()


@pytest.fixture(scope="module")
def pipe(plan: Plan) -> Any:
    return load.pipeline(plan)


def arguments(plan: Plan, prompt: str, seed: int, steps: int) -> dict[str, Any]:
    sampling = replace(plan.sampling, prompt=prompt, seed=seed, num_inference_steps=steps)
    own = generate.arguments(replace(plan, sampling=sampling)) | {"output_type": "np"}
    return own | {"callback_on_step_end": lambda *_: {}}


@pytest.fixture(scope="module")
def alone(pipe: Any, plan: Plan) -> list[np.ndarray]:
    return [pipe(**arguments(plan, *call[:3])).images[0] for call in CALLS]


def together(steps: Steps, plan: Plan, leaves: int | None = None) -> list[Call]:
    """All calls, each begun when it is its turn; one of them may leave before it is done."""
    begun: list[Call] = []
    turn = 0
    while len(begun) < len(CALLS) or not all(call.is_done for call in begun):
        begun += [steps.begin(**arguments(plan, *call[:3])) for call in CALLS[len(begun) :] if call[3] == turn]
        if turn == 3 and leaves is not None:
            steps.leave(begun[leaves])
        steps.step()
        turn += 1
    return begun


def distances(calls: Sequence[Call], alone: Sequence[np.ndarray]) -> list[float]:
    return [abs(call.output.images[0] - image).max() for call, image in zip(calls, alone, strict=True) if call.output]


def test_a_call_that_joins_makes_its_own_image(pipe: Any, plan: Plan, alone: list[np.ndarray]) -> None:
    calls = together(Steps(pipe, plan), plan)
    assert [call.steps for call in calls] == [call[2] for call in CALLS]
    assert max(distances(calls, alone)) <= BOUND


def test_the_transformer_is_called_once_for_all(pipe: Any, plan: Plan) -> None:
    together_, sizes = Steps(pipe, plan), []
    merge = together_.merge
    together_.merge = lambda asked: (sizes.append(len(asked)), merge(asked))[1]
    together(together_, plan)
    calls = 2 if plan.sampling.guidance.get("true_cfg_scale") and plan.sampling.negative_prompt is not None else 1
    assert sizes == [size for size in (1, 1, 3, 3, 3, 3, 1, 1, 1, 1) for _ in range(calls)]


def test_a_call_that_leaves_does_not_change_the_others(pipe: Any, plan: Plan, alone: list[np.ndarray]) -> None:
    calls = together(Steps(pipe, plan), plan, leaves=2)
    assert calls[2].is_done
    assert calls[2].output is None
    assert calls[2].steps == 1
    assert len(found := distances(calls, alone)) == 3
    assert max(found) <= BOUND


def test_the_time_of_another_call_would_show(pipe: Any, plan: Plan, alone: list[np.ndarray]) -> None:
    steps = Steps(pipe, plan)
    merge = steps.merge

    def of_the_first(asked: Sequence[Asked]) -> Any:
        args, kwargs, split = merge(asked)
        if args:
            args = (args[0], args[1][:1].expand(len(args[1])), args[2])
        else:
            kwargs["timestep"] = kwargs["timestep"][:1].expand(len(asked))
        return args, kwargs, split

    steps.merge = of_the_first
    first, *others = distances(together(steps, plan), alone)
    assert first <= BOUND
    assert max(others) > 3 * BOUND


def test_pixels_that_are_no_numbers_are_a_problem_of_their_call_alone(
    pipe: Any, plan: Plan, alone: list[np.ndarray]
) -> None:
    steps = Steps(pipe, plan)
    broken = arguments(plan, *CALLS[0][:3]) | {"output_type": "pil"}
    broken["callback_on_step_end"] = lambda *given: {"latents": given[-1]["latents"] * torch.nan}
    calls = [steps.begin(**broken), steps.begin(**arguments(plan, *CALLS[1][:3]))]
    while not all(call.is_done for call in calls):
        steps.step()
    assert calls[0].problem is not None
    assert "not a number" in calls[0].problem
    assert distances(calls[1:], alone[1:2])[0] <= BOUND


def test_what_a_call_raises_before_its_first_step_is_raised(pipe: Any, plan: Plan) -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        Steps(pipe, plan).begin(**arguments(plan, *CALLS[0][:3]), unknown=1)
