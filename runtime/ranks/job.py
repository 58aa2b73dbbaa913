"""What all jobs of a rank share: telling the launcher what came of the work, the end, and the callback of a step."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runtime.events import Writer, stacks_path

if TYPE_CHECKING:
    import torch

#: Called with the pipeline, the number of steps that are done, and the latents after the last of them.
AfterStep = Callable[[Any, int, "torch.Tensor"], None]


def end_with(work: Callable[[Writer], dict[str, Any]], rank: int, folder: Path | None) -> NoReturn:
    """Do the work of a rank, tell the launcher through the folder what came of it, and end the process.

    The status is 0, or 1 with the cause among the events.
    """
    gc.disable()  # importing and loading makes a million objects and no garbage; load.pipeline enables it again
    if folder is not None:
        end_with_launcher(folder)
        show_stacks_on_signal(folder, rank)
    events = Writer(folder, rank)
    status = 1
    try:
        events.done(work(events))
        status = 0
    except BaseException as error:
        import traceback

        events.error(cause(error), secondary=is_secondary(error))  # first, as there may be no room for the log
        traceback.print_exc()
    finally:
        end(status)


def end(status: int) -> NoReturn:
    """End the process without destructors: those of a process group wait for peers that may be gone."""
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def cause(error: BaseException) -> str:
    """An error as one line; its class is left out where the text was written for the user."""
    from runtime.errors import CannotRunError

    line = str(error).strip().split("\n")[0]
    return line if isinstance(error, CannotRunError) else f"{type(error).__name__}: {line}"


def is_secondary(error: BaseException) -> bool:
    """Whether an error only says that another rank has failed."""
    from runtime import compat

    return compat.torch.is_secondary(error)


def end_with_launcher(run: Path) -> None:
    """End this process when the launcher, which holds the other end of this pipe, is gone or lets go."""
    pipe = os.open(run / "alive", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(pipe, True)

    def wait() -> None:
        os.read(pipe, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def show_stacks_on_signal(folder: Path, rank: int) -> None:
    """Write the stack of the main thread into a file of the folder when SIGUSR1 comes."""
    stacks = stacks_path(folder, rank).open("w")  # stays open as long as the process
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=False)


def step_callback(after_step: AfterStep) -> Callable[..., dict[str, Any]]:
    """What pipelines take as ``callback_on_step_end``; where there is a GPU, it waits for the step to be done."""
    import torch

    def callback(pipe: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        after_step(pipe, step + 1, tensors["latents"])
        return {}

    return callback
