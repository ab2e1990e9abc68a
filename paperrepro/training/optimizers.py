"""What moves the weights: the optimizers, which parameters decay, and the weights' average."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .recipe import Recipe


class LAMB(torch.optim.Optimizer):
    """Adam's step, scaled per tensor to the tensor's norm (You et al., 2020, Algorithm 2).

    As there, the norm is not bounded; a tensor without weight decay takes Adam's step, as timm's
    implementation has it, since the scale of a bias says nothing.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate.
        betas: of the two averages.
        eps: added to the root of the second average.
        weight_decay: decoupled from the averages, part of the scaled step.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Any:
        loss = closure() if closure else None
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = 0
                    state["mean"] = torch.zeros_like(weight)
                    state["square"] = torch.zeros_like(weight)
                state["step"] += 1
                mean, square = state["mean"], state["square"]
                mean.lerp_(weight.grad, 1 - beta1)
                square.mul_(beta2).addcmul_(weight.grad, weight.grad, value=1 - beta2)
                root = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
                update = mean / (1 - beta1 ** state["step"]) / root
                if group["weight_decay"]:
                    update.add_(weight, alpha=group["weight_decay"])
                    ratio = weight.norm() / update.norm()
                    # The ratio is 1 where either norm is 0; kept on the device.
                    update.mul_(torch.where(ratio.isfinite() & (ratio > 0), ratio, 1.0))
                weight.add_(update, alpha=-group["lr"])
        return loss


def parameter_groups(parts: Sequence[nn.Module], recipe: Recipe) -> list[dict]:
    """The parameters by learning rate, which falls from part to part by `layer_decay`, and by
    whether they decay: norms and biases, which are vectors, do not.

    Args:
        parts: of the network, from the head to the stem.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for depth, part in enumerate(parts):
        for parameter in part.parameters():
            if parameter.requires_grad:
                key = (recipe.lr * recipe.layer_decay**depth, parameter.dim() > 1)
                groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "highest_lr": lr, "decays": decays}
        for (lr, decays), parameters in groups.items()
    ]


def make_optimizer(groups: list[dict], recipe: Recipe, device: torch.device) -> Any:
    """The recipe's optimizer. On a GPU one kernel moves all weights, and waits for no gradient's
    check in float16."""
    fused = True if device.type == "cuda" else None
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, fused=fused)
    if recipe.optimizer == "lamb":
        return LAMB(groups)
    return torch.optim.AdamW(groups, fused=fused)


class Average:
    """The exponential moving average of a network's weights and buffers.

    Its first update copies, and each of the following lets `1 - decay` of the new weights in. With
    `warmup` the decay after `n` updates is at most `(1 + n) / (10 + n)`, so that a short training
    is not averaged with its own beginning. Whole numbers, such as BatchNorm's count, are copied.

    Attributes:
        module: the network with the averaged weights.
        updates: how often it was updated.
    """

    def __init__(self, model: nn.Module, decay: float, *, warmup: bool = False) -> None:
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.module = copy.deepcopy(model)
        pairs = list(zip(tensors(self.module), tensors(model), strict=True))
        self.smooth = [pair for pair in pairs if pair[0].is_floating_point()]
        self.whole = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the network's weights as they are now."""
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        kept, now = ([pair[side] for pair in self.smooth] for side in (0, 1))
        if self.updates:
            get_ema_multi_avg_fn(decay)(kept, now, self.updates)
        for old, new in self.whole if self.updates else self.smooth + self.whole:
            old.copy_(new)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.module.load_state_dict(state["module"])


def tensors(model: nn.Module) -> list[Tensor]:
    return [*(p.detach() for p in model.parameters()), *model.buffers()]
