"""Muon: momentum whose every weight matrix is made orthogonal. Known to need fewer steps than AdamW."""

from __future__ import annotations

from collections import defaultdict

import torch


class Muon(torch.optim.Optimizer):
    """For the weight matrices inside blocks. ``lr`` is the size (RMS) of a step, so that AdamW's values carry over.

    torch.optim.Muon does the same in bfloat16, one matrix at a time, which is slow on a CPU.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix, those of one shape together."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(parameter.shape)].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = []
                for parameter in parameters:
                    state = self.state[parameter]
                    buffer = state.setdefault("momentum", torch.zeros_like(parameter))
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(torch.lerp(parameter.grad, buffer, group["momentum"]))
                # An orthogonal matrix has elements of RMS 1 / sqrt(longer side).
                scale = group["lr"] * max(rows, columns) ** 0.5
                for parameter, update in zip(parameters, _orthogonal(torch.stack(updates)), strict=True):
                    parameter.sub_(update, alpha=scale)


def _orthogonal(matrices: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Roughly the nearest orthogonal matrices, by Newton-Schulz; (n, rows, columns)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x
