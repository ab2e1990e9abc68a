"""BatchNorm over several processes, on a CPU too, where PyTorch has it for GPUs only."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .place import Place


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose statistics in training are those of all processes' images together.

    Each process must have as many images as the others. In evaluation it is BatchNorm2d.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean = over_processes(input.mean((0, 2, 3)))
        centred = input - mean[:, None, None]
        variance = over_processes(centred.square().mean((0, 2, 3)))
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            rate = self.momentum
            if rate is None:
                rate = 1 / int(self.num_batches_tracked)
            count = input.numel() // input.shape[1] * dist.get_world_size()
            self.running_mean.lerp_(mean.detach(), rate)
            self.running_var.lerp_(variance.detach() * count / (count - 1), rate)
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        result = centred * scale[:, None, None]
        return result if self.bias is None else result + self.bias[:, None, None]


class Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, since each of them uses the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return Sum.forward(ctx, gradients[0])


def over_processes(values: Tensor) -> Tensor:
    """The mean of all processes' values, through which gradients flow."""
    total: Tensor = Sum.apply(values)
    return total / dist.get_world_size()


def synchronised(model: nn.Module, place: Place) -> nn.Module:
    """The network with BatchNorm over all processes; its weights keep their names."""
    if place.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm
        elif isinstance(module, _BatchNorm):
            raise ValueError(
                f"sync_bn: {type(module).__name__} is synchronised on NVIDIA GPUs only; "
                "set sync_bn=false"
            )
    return model


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())
