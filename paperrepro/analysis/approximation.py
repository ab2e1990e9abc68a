"""What can stand in for a regular convolution? FasterNet's Table 2 (Section 4.2), on any network.

The maps before and after a 3x3 convolution are recorded, and pairs of a spatial and a pointwise
convolution learn to turn the one into the other. The paper trains three pairs on a ResNet-50 and
finds PConv+PWConv best on average. What the pairs cost, which it does not print, stands beside.

Each pair is linear, so that two of them have a best solution in closed form, below which no
training can come: `optimum`. DWConv+PWConv and GConv+PWConv are sums of many products of two
unknowns, and have none; their training may end anywhere.

Unlike the paper:
- The first 3x3 convolution of stride 1 of each stage, for a PConv cannot have a stride: it leaves
  channels as they are. The paper does not say which ResNet-50 it used; in torchvision's, the first
  one of stages 2 to 4 has stride 2.
- Budget, learning rate and splits are ours: the paper names none but 70/10/20 %.
- The error is given as a share of the variance of the convolution's output too, as stages differ.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from ..models.fasternet import PConv
from ..models.layers import Chain
from .recording import record, stage_of

GROUPS = 16  # of GConv, Table 2
SPLIT = (0.7, 0.1, 0.2)  # train, val, test, Section 4.2
BATCH = 16
CHECKS = 10  # of the validation error during a training


def depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def grouped(channels: int) -> nn.Conv2d:
    if channels % GROUPS:
        raise ValueError(f"{channels} channels cannot be split into {GROUPS} groups, as GConv does")
    return nn.Conv2d(channels, channels, 3, padding=1, groups=GROUPS, bias=False)


SPATIAL: dict[str, Callable[[int], nn.Module | None]] = {
    "DWConv+PWConv": depthwise,
    "GConv+PWConv": grouped,
    "PConv+PWConv": PConv,
    "PWConv": lambda channels: None,
}
CLOSED_FORM = ("PConv+PWConv", "PWConv")


@dataclass(frozen=True)
class Pairs:
    """The maps before and after a convolution, `(N, C, H, W)` and `(N, O, H, W)`, in three parts.

    Attributes:
        train, val, test: inputs and outputs.
        variance: of the training outputs around their channel's mean; the error of the best
            constant.
    """

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def variance(self) -> float:
        outputs = self.train[1]
        return (outputs - outputs.mean((0, 2, 3), keepdim=True)).square().mean().item()


def first_convs(model: nn.Module) -> dict[str, str]:
    """By stage, its first regular 3x3 convolution of stride 1 that keeps the map's size, by name.

    One that sees the image's three channels is none of a stage's.

    Raises:
        ValueError: there is none; naming the kernels that the network has.
    """
    convs = [(name, conv) for name, conv in model.named_modules() if isinstance(conv, nn.Conv2d)]
    by_stage: dict[str, str] = {}
    for name, conv in convs:
        same_size = conv.stride == conv.dilation == (1, 1) and conv.padding == (1, 1)
        if conv.kernel_size == (3, 3) and conv.groups == 1 and conv.in_channels > 3 and same_size:
            by_stage.setdefault(stage_of(name), name)
    if not by_stage:
        kinds = {
            f"{conv.kernel_size[0]} x {conv.kernel_size[1]} in {conv.groups} groups"
            for _, conv in convs
        }
        raise ValueError(
            "no regular 3 x 3 convolution of stride 1 and padding 1; there are: "
            f"{', '.join(sorted(kinds)) or 'none at all'}"
        )
    return by_stage


def split(inputs: Tensor, outputs: Tensor, seed: int = 0) -> Pairs:
    """The images in a random order, 70 % to train on, 10 % to choose by and 20 % to test.

    Raises:
        ValueError: fewer than ten images.
    """
    if len(inputs) < 10:
        raise ValueError(f"{len(inputs)} images are too few to split 70/10/20: use at least ten")
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    train, val = round(SPLIT[0] * len(order)), round(SPLIT[1] * len(order))
    parts = order.split([train, val, len(order) - train - val])
    return Pairs(*[(inputs[part], outputs[part]) for part in parts])


def build(form: str, in_channels: int, out_channels: int) -> Chain:
    """A spatial convolution of the input channels and a pointwise one to the output channels.

    Raises:
        ValueError: an unknown form, or channels that cannot be grouped.
    """
    if form not in SPATIAL:
        raise ValueError(f"unknown form {form!r}; use one of {', '.join(SPATIAL)}")
    return Chain(
        spatial=SPATIAL[form](in_channels), pointwise=nn.Conv2d(in_channels, out_channels, 1)
    )


@torch.no_grad()
def error(network: nn.Module, pairs: tuple[Tensor, Tensor]) -> float:
    """The mean squared error of a network on inputs and outputs."""
    inputs, outputs = pairs
    total = sum(
        F.mse_loss(network(x), y, reduction="sum").item()
        for x, y in zip(inputs.split(BATCH), outputs.split(BATCH), strict=True)
    )
    return total / outputs.numel()


def fit(form: str, pairs: Pairs, *, steps: int, lr: float = 0.03, seed: int = 0) -> Chain:
    """Train a form from random weights by Adam, the learning rate falling to 0 as a cosine.

    Maps are scaled to a mean square of 1 for the training, that one learning rate may fit every
    stage; the network that comes back is for the maps as they are.

    Args:
        steps: batches of 16 images; the same for each form, that they may be compared.
        lr: of the first step. Of 0.003 to 0.3, 0.03 or 0.1 had the least validation error for every
            form in every stage of the CIFAR ResNets, and 0.03 was never far from it.
        seed: of the weights and of the order of the images.

    Returns:
        The network with the smallest validation error of ten along the way.
    """
    inputs, outputs = pairs.train
    in_scale, out_scale = (maps.square().mean().sqrt() for maps in pairs.train)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(form, inputs.shape[1], outputs.shape[1]).to(inputs.device)
    optimizer = torch.optim.Adam(network.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, lowest = network, float("inf")
    for step, batch in enumerate(batches(len(inputs), steps, seed), 1):
        x, y = inputs[batch] / in_scale, outputs[batch] / out_scale
        optimizer.zero_grad()
        F.mse_loss(network(x), y).backward()
        optimizer.step()
        schedule.step()
        if step % max(steps // CHECKS, 1) == 0 or step == steps:
            candidate = rescaled(network, in_scale, out_scale)
            reached = error(candidate, pairs.val)
            if reached < lowest:
                best, lowest = candidate, reached
    return best


def batches(images: int, steps: int, seed: int) -> Iterator[Tensor]:
    """As many batches of indices as there are steps, each epoch in another order."""
    generator = torch.Generator().manual_seed(seed)
    taken = 0
    while True:
        for batch in torch.randperm(images, generator=generator).split(BATCH):
            if taken == steps:
                return
            taken += 1
            yield batch


@torch.no_grad()
def rescaled(network: Chain, in_scale: Tensor, out_scale: Tensor) -> Chain:
    """The network that does to plain maps what this one does to scaled ones."""
    network = copy.deepcopy(network)
    network.get_parameter("pointwise.weight").mul_(out_scale / in_scale)
    network.get_parameter("pointwise.bias").mul_(out_scale)
    return network


def optimum(form: str, inputs: Tensor, outputs: Tensor) -> Chain:
    """The form's least squares solution, in closed form.

    PWConv is a linear regression. PConv+PWConv is one with a rank: what the pointwise convolution
    takes from the c_p convolved channels is a T-shaped kernel (Fig. 5, Eq. 6) whose k x k part has
    9 c_p inputs, but has gone through c_p channels. That is reduced-rank regression (Izenman, 1975;
    with further regressors of full rank, Velu, 1991): of the regression's solution, what explains
    most of the output in c_p directions.

    Args:
        form: one of `CLOSED_FORM`.
        inputs, outputs: the maps before and after, `(N, C, H, W)` and `(N, O, H, W)`.

    Raises:
        ValueError: the form has no solution in closed form.
    """
    if form not in CLOSED_FORM:
        raise ValueError(
            f"{form} has no least squares solution in closed form; "
            f"there is one of {' and of '.join(CLOSED_FORM)}"
        )
    network = build(form, inputs.shape[1], outputs.shape[1]).to(inputs.device)
    spatial = network.get_submodule("spatial") if form == "PConv+PWConv" else None
    convolved = spatial.convolved if isinstance(spatial, PConv) else 0
    wide = 9 * convolved
    inner, cross = moments(inputs, outputs, convolved)
    zz, zr, rr = inner[:wide, :wide], inner[:wide, wide:], inner[wide:, wide:]
    zy, ry = cross[:wide], cross[wide:]
    rr_inverse = torch.linalg.pinv(rr, hermitian=True)
    # The regression of the output on the patches, after the other channels (Frisch-Waugh).
    zz, zy = zz - zr @ rr_inverse @ zr.mT, zy - zr @ rr_inverse @ ry
    solution = torch.linalg.pinv(zz, hermitian=True) @ zy
    explained = solution.mT @ zz @ solution
    directions = torch.linalg.eigh(explained).eigenvectors.flip(1)[:, :convolved]
    kernel = (solution @ directions).mT
    rest = rr_inverse @ (ry - zr.mT @ kernel.mT @ directions.mT)
    with torch.no_grad():
        pointwise = network.get_parameter("pointwise.weight").flatten(1)
        pointwise.zero_()
        pointwise[:, : directions.shape[1]] = directions
        pointwise[:, convolved:] = rest[:-1].mT
        network.get_parameter("pointwise.bias").copy_(rest[-1])
        if isinstance(spatial, PConv):
            spatial.conv.weight.zero_()
            spatial.conv.weight.flatten(1)[: len(kernel)] = kernel
    return network


def moments(inputs: Tensor, outputs: Tensor, convolved: int) -> tuple[Tensor, Tensor]:
    """Sums over all pixels of the products of regressors with each other, and with the outputs.

    The regressors: the 3x3 patches of the first `convolved` channels, the pixels of the others, 1.
    """
    inner = cross = torch.zeros((), dtype=torch.float64)
    for x, y in zip(inputs.split(BATCH), outputs.split(BATCH), strict=True):
        patches = F.unfold(x[:, :convolved], 3, padding=1) if convolved else x[:, :0].flatten(2)
        ones = torch.ones_like(x[:, :1])
        regressors = torch.cat([patches, torch.cat([x[:, convolved:], ones], 1).flatten(2)], 1)
        regressors = regressors.transpose(0, 1).flatten(1).double()
        inner = inner + regressors @ regressors.mT
        cross = cross + regressors @ y.transpose(0, 1).flatten(1).double().mT
    return inner, cross


def measure(
    model: nn.Module,
    images: Tensor,
    *,
    steps: int = 1000,
    seeds: int = 3,
    progress: bool = True,
) -> pd.DataFrame:
    """Approximate the first 3x3 convolution of each stage of a network.

    Args:
        model: any network with regular 3x3 convolutions of stride 1 (`first_convs`).
        images: `(N, 3, H, W)`, N at least ten.
        steps: of each training.
        seeds: trainings of each form, which differ in their first weights and their order.

    Returns:
        One row per convolution and form: `params` and `macs` (one image); how it was `found`, by
        "adam" or in closed form; the test error `mse` with its standard deviation over the seeds;
        `relative`, the same as a share of the variance of the convolution's output; and that of
        the training images, `relative_train`. The form "Conv" is the network's own.

    Raises:
        ValueError: no such convolution, too few images, or channels that cannot be grouped.
    """
    names = list(first_convs(model).values())
    before = record(model, images, names, before=True, progress=progress)
    after = record(model, images, names, progress=progress)
    device = next(model.parameters()).device
    rows = []
    bar = tqdm(total=len(names) * len(SPATIAL) * seeds, leave=False, disable=not progress)
    for name in names:
        pairs = split(before[name].to(device), after[name].to(device))
        own = copy.deepcopy(model.get_submodule(name)).requires_grad_(False)
        rows.append(report(name, "Conv", "network", [own], pairs))
        for form in CLOSED_FORM:
            rows.append(report(name, form, "closed form", [optimum(form, *pairs.train)], pairs))
        for form in SPATIAL:
            trained = []
            for seed in range(seeds):
                bar.set_description(f"{name}, {form}")
                trained.append(fit(form, pairs, steps=steps, seed=seed))
                bar.update()
            rows.append(report(name, form, "adam", trained, pairs))
    bar.close()
    return pd.DataFrame(rows)


def report(
    conv: str, form: str, method: str, networks: Sequence[nn.Module], pairs: Pairs
) -> dict[str, object]:
    """A row of `measure`."""
    test = torch.tensor([error(network, pairs.test) for network in networks])
    train = torch.tensor([error(network, pairs.train) for network in networks])
    image = pairs.test[0][:1]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        networks[0](image)
    return {
        "conv": conv,
        "form": form,
        "found": method,
        "params": sum(parameter.numel() for parameter in networks[0].parameters()),
        "macs": counter.get_total_flops() // 2,
        "mse": test.mean().item(),
        "mse_std": test.std().item() if len(networks) > 1 else None,
        "relative": test.mean().item() / pairs.variance,
        "relative_train": train.mean().item() / pairs.variance,
    }
