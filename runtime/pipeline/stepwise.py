"""Calls of a pipeline that go step by step beside each other: one may begin while others are under way.

Each call is the pipeline's own, for one image, with a scheduler state, a generator and settings of its own. It runs in
a thread, but only while ``Steps`` waits for it, until it asks for its transformer; so at any time one thread of a rank
computes, in the same order on every rank. What all calls ask for is computed in one call of the transformer.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from omni_config.plan import Plan

if TYPE_CHECKING:
    import torch


class Asked(NamedTuple):
    """One call of the transformer; ``branch`` is the cache context in which it is called."""

    branch: str | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


_NOTHING = Asked(None, (), {})


class Left(Exception):
    """Raised within a call of the pipeline that is not wanted any more."""


class Steps:
    """The calls of a pipeline that are under way. All have the same size, adapters and kind of guidance."""

    def __init__(self, pipe: Any, plan: Plan) -> None:
        self.merge = MERGES[type(pipe).__name__]
        self._pipe = pipe
        self._plan = plan
        self._under_way: list[Call] = []

    def begin(self, **arguments: Any) -> Call:
        """Begin a call of the pipeline, for one image; it goes to where its first step needs the transformer."""
        call = Call(self._pipe, arguments)
        self._go_on(call, None)
        if not call.is_done:
            self._under_way.append(call)
        return call

    def leave(self, call: Call) -> None:
        """End a call before its next step."""
        self._under_way.remove(call)
        call.go_on(Left())

    def step(self) -> None:
        """Let each call do a step; those that have done their last one have an ``output`` or a ``problem`` then.

        Raises:
            Exception: whatever a call raises that is no CannotRunError.
        """
        import torch

        before = [call.steps for call in self._under_way]
        while any(
            call.steps == count and not call.is_done for call, count in zip(self._under_way, before, strict=True)
        ):
            asked = [call.asked for call in self._under_way]
            with torch.no_grad():
                answers = self._compute(asked)
            for call, answer in zip(self._under_way, answers, strict=True):
                self._go_on(call, answer)
        self._under_way = [call for call in self._under_way if not call.is_done]

    def _compute(self, asked: Sequence[Asked]) -> list[Any]:
        """One call of the transformer, and what each gets of it."""
        transformer = self._pipe.transformer
        (branch,) = {one.branch for one in asked}  # alike in guidance, so they are at the same point of their steps
        args, kwargs, split = self.merge(asked)
        with transformer.cache_context(branch) if branch else nullcontext():
            return split(transformer(*args, **kwargs)[0])

    def _go_on(self, call: Call, answer: Any) -> None:
        from runtime.errors import CannotRunError
        from runtime.pipeline.media import refuse_what_is_no_number

        try:
            # Around the thread, not in it: the filters of warnings are those of the process.
            with refuse_what_is_no_number(self._plan):
                call.go_on(answer)
        except CannotRunError as error:  # of an image that is done; no other rank waits for this one
            call.problem = str(error)


class Call:
    """One call of the pipeline, in a thread of its own that runs only within ``go_on``."""

    def __init__(self, pipe: Any, arguments: dict[str, Any]) -> None:
        self.steps = 0
        """How many are done."""
        self.is_done = False
        self.output: Any = None
        """What the pipeline has returned."""
        self.problem: str | None = None
        """Why it has not."""
        self.asked = _NOTHING
        """What it waits for, until it is done."""
        self._scheduler = pipe.scheduler
        # Not a copy of the scheduler: features have hooked the one that there is.
        self._state = dict(vars(pipe.scheduler))
        self._pipe: Any = copy.copy(pipe)
        vars(self._pipe)["transformer"] = _Transformer(pipe.transformer, self._ask)
        self._after_step = arguments.pop("callback_on_step_end")
        self._arguments = arguments
        self._answer: Any = None
        self._error: BaseException | None = None
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def go_on(self, answer: Any) -> None:
        """Run it until it asks for the transformer again, or ends; ``answer`` is what it gets, or Left.

        Raises:
            BaseException: what was raised in it, but for Left.
        """
        self._answer = answer
        vars(self._scheduler).update(self._state)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        else:
            self._turn.release()
        self._back.acquire()
        self._state = dict(vars(self._scheduler))
        if self.is_done:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        import torch

        from runtime.device import device

        if torch.cuda.is_available():
            torch.cuda.set_device(device())  # each thread has its own
        try:
            self.output = self._pipe(**self._arguments, callback_on_step_end=self._step_is_done)
        except Left:
            pass
        except BaseException as error:
            self._error = error
        self.is_done = True
        # They hold tensors, and each other.
        self.asked, self._answer, self._arguments, self._pipe = _NOTHING, None, {}, None
        self._back.release()

    def _step_is_done(self, pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.steps += 1
        changed: dict[str, Any] = self._after_step(pipe, step, time, tensors)
        return changed

    def _ask(self, asked: Asked) -> Any:
        self.asked = asked
        self._back.release()
        self._turn.acquire()
        if isinstance(self._answer, Left):
            raise self._answer
        return self._answer


class _Transformer:
    """Stands for the transformer in one call of the pipeline: it has its attributes, and asks instead of computing."""

    def __init__(self, transformer: Any, ask: Callable[[Asked], Any]) -> None:
        self._transformer = transformer
        self._ask = ask
        self._branch: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transformer, name)

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any]:
        return (self._ask(Asked(self._branch, args, kwargs)),)

    @contextmanager
    def cache_context(self, name: str) -> Iterator[None]:
        """The branch of guidance of a call."""
        self._branch = name
        try:
            yield
        finally:
            self._branch = None


#: Arguments of one call for several, and what divides its result among them.
Merged = tuple[Sequence[Any], dict[str, Any], Callable[[Any], list[Any]]]


def _merge_lists(asked: Sequence[Asked]) -> Merged:
    """Of Z-Image: latents, times and embeddings, an item a branch; first one branch of all, then the other."""
    import torch

    count, branches = len(asked), len(asked[0].args[0])
    latents, times, texts = (
        [one.args[place][branch] for branch in range(branches) for one in asked] for place in range(3)
    )

    def split(samples: Sequence[torch.Tensor]) -> list[Any]:
        return [list(samples[number::count]) for number in range(count)]

    return (latents, torch.stack(times), texts), asked[0].kwargs, split


def _merge_tensors(asked: Sequence[Asked]) -> Merged:
    """Of FLUX: tensors with an image in each row; positions of tokens, which have no batch, are those of all."""
    import torch

    kwargs = dict(asked[0].kwargs)
    for name in ("hidden_states", "timestep", "guidance", "pooled_projections", "encoder_hidden_states"):
        if kwargs[name] is not None:
            kwargs[name] = torch.cat([one.kwargs[name] for one in asked])
    return (), kwargs, _rows


def _merge_padded(asked: Sequence[Asked]) -> Merged:
    """Of Qwen-Image: tensors with an image in each row; shorter prompts are padded, and the padding masked out."""
    import torch
    from torch.nn.functional import pad

    kwargs = dict(asked[0].kwargs)
    for name in ("hidden_states", "timestep", "guidance"):
        if kwargs[name] is not None:
            kwargs[name] = torch.cat([one.kwargs[name] for one in asked])
    kwargs["img_shapes"] = [shape for one in asked for shape in one.kwargs["img_shapes"]]
    texts = [one.kwargs["encoder_hidden_states"] for one in asked]
    lengths = [text.shape[1] for text in texts]
    longest = max(lengths)
    kwargs["encoder_hidden_states"] = torch.cat(
        [pad(text, (0, 0, 0, longest - length)) for text, length in zip(texts, lengths, strict=True)]
    )
    if min(lengths) < longest:
        kwargs["encoder_hidden_states_mask"] = torch.tensor(
            [[place < length for place in range(longest)] for length in lengths], device=texts[0].device
        ).long()
    return (), kwargs, _rows


def _rows(sample: torch.Tensor) -> list[torch.Tensor]:
    """Views, as a branch that another rank computes is filled in later."""
    return [sample[number : number + 1] for number in range(len(sample))]


#: How calls of the transformer are merged, by the class of the pipeline: those whose calls can go step by step.
MERGES: dict[str, Callable[[Sequence[Asked]], Merged]] = {
    "ZImagePipeline": _merge_lists,
    "FluxPipeline": _merge_tensors,
    "QwenImagePipeline": _merge_padded,
}
