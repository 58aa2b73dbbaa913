"""What every module in this folder has: a ``FEATURE``, whose ``apply`` returns a handle on what it has switched on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Handle(ABC):
    """A feature that is on, with all that it must know to measure and to undo it."""

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """What shows, after a call of the pipeline, that it was on; JSON-ready."""

    @abstractmethod
    def undo(self) -> None:
        """Switch it off: pipeline and libraries are as before ``apply``. Features are undone in reverse order."""

    def adapt(self, plan: Plan) -> None:  # noqa: B027 (most features do not depend on the sampling)
        """Prepare for a call whose sampling differs from that of the call before.

        Raises:
            CannotRunError: the feature cannot run with this sampling.
        """


@dataclass(frozen=True, slots=True)
class Feature:
    """A technique that a Plan may switch on."""

    name: str
    """Of its module, and in report.json."""
    catalog: tuple[str, ...]
    """The features of the catalog (``omni_config/catalog/features.yaml``) that it is."""
    wanted: Callable[[Plan], bool]
    """Whether the Plan switches it on."""
    apply: Callable[[Any, Plan, DeviceMesh | None], Handle]
    """Switch it on for a pipeline; raises CannotRunError where this pipeline does not allow it."""
