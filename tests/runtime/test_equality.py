"""Several ranks compute what one rank computes; a single broken weight on a single rank is noticed."""

from __future__ import annotations

import numpy as np
from conftest import single

from omni_config.plan import Plan

BOUND = 1e-5


def largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def test_ulysses_equals_one_rank(hooked, plan: Plan) -> None:
    alone, latents = hooked(single(plan))
    both, shared = hooked(plan)
    assert "sequence_parallel" not in alone.features
    assert max(largest(shared[rank], latents[0]) for rank in shared) <= BOUND
    assert both.features["sequence_parallel"]["tokens_per_rank"] > 0

    _, broken = hooked(plan, break_rank=1)
    assert max(largest(broken[rank], latents[0]) for rank in broken) > 100 * BOUND
