"""Muon as in torch.optim, with matrices of one shape orthogonalised together, and on a CPU in single precision.

`torch.optim.Muon` takes one matrix after the other, in bfloat16. On a CPU without instructions for that it takes 3.7
seconds for the matrices of pocket-sd, this one 0.2, where all else in a step of 8 scenes of 256 pixels takes
3.3. On a GPU thousands of small kernels wait for Python.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

#: Coefficients of the polynomial x -> a x + b x^3 + c x^5, which drives singular values from 0 to 1 towards 1; and how
#: often it is applied (Jordan 2024, "Muon: an optimizer for hidden layers in neural networks").
COEFFICIENTS, ITERATIONS = (3.4445, -4.775, 2.0315), 5

_SMALLEST = 1e-7  # of a norm that is divided by


class Muon(torch.optim.Optimizer):
    """Momentum, whose direction in each step is replaced by an orthogonal matrix near it; for matrices only.

    Args:
        params: the matrices.
        lr: learning rate.
        momentum: part of the old direction that is kept; Nesterov's form.
        weight_decay: per unit of the learning rate.
    """

    def __init__(self, params: Iterable, lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Move all matrices that have a gradient."""
        for group in self.param_groups:
            of_shape = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    of_shape[matrix.shape].append(matrix)
            for (rows, columns), matrices in of_shape.items():
                moves = orthogonal(torch.stack([self._direction(matrix, group["momentum"]) for matrix in matrices]))
                rate = group["lr"] * max(1, rows / columns) ** 0.5
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, list(moves), alpha=-rate)

    def _direction(self, matrix: Tensor, momentum: float) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(mean, momentum)


def orthogonal(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """Matrices with about the same singular vectors, whose singular values are all about 1, by Newton-Schulz."""
    a, b, c = COEFFICIENTS
    _, rows, columns = matrices.shape
    wide = matrices.mT if rows > columns else matrices
    x = wide if wide.device.type == "cpu" else wide.bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(_SMALLEST)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype)
    return x.mT if rows > columns else x
