"""The AdamW optimizer (decoupled weight decay). PyTorch's own optimizers import its compiler when they are created,
which costs a training process several seconds (decision 0098).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8


class AdamW:
    """Updates tensors with their gradients, as `torch.optim.AdamW` does by default."""

    def __init__(self, decayed: Sequence[Tensor], others: Sequence[Tensor], rate: float, decay: float) -> None:
        """Weight decay applies only to the tensors in `decayed`."""
        import torch

        self._tensors: Final = [*((tensor, 1 - rate * decay) for tensor in decayed), *((each, 1.0) for each in others)]
        self._moments = [(torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor, _ in self._tensors]
        self._rate, self._steps = rate, 0

    def step(self) -> None:
        """Update all tensors and clear their gradients."""
        import torch

        self._steps += 1
        size = self._rate / (1 - FIRST_DECAY**self._steps)
        scale = (1 - SECOND_DECAY**self._steps) ** 0.5
        with torch.no_grad():
            for (tensor, kept), (first, second) in zip(self._tensors, self._moments, strict=True):
                gradient = tensor.grad
                assert gradient is not None
                first.lerp_(gradient, 1 - FIRST_DECAY)
                second.mul_(SECOND_DECAY).addcmul_(gradient, gradient, value=1 - SECOND_DECAY)
                tensor.mul_(kept).addcdiv_(first, (second.sqrt() / scale).add_(EPSILON), value=-size)
                tensor.grad = None
