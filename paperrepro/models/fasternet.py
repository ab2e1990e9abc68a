"""FasterNet: Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks (Chen et al.,
CVPR 2023).

A block is one partial convolution (PConv, Section 3.2), which convolves a quarter of the channels
and leaves the others alone, and two pointwise convolutions around one BatchNorm and activation.

Where the released code differs from the paper we follow the code, so that its weights load:
- Table 8 has an activation after Embedding and Merging; the code, like the paper's text, has none.
- The 1x1 convolution of the classifier has neither BatchNorm nor bias, and no convolution has a
  bias at all.
- Listing 1's slicing writes the convolved channels into its input, which the block's shortcut
  still refers to, and so changes the network. The code copies its input first, and then both
  forms of PConv agree bit for bit.
- The parameters of Tables 3 and 8 leave out those of BatchNorm: S has 31.18 M, not 31.1 M.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import describe
from .backbone import Backbone
from .layers import ACTIVATIONS, NORMS, Chain, ConvNorm, Residual, choose, drop_path
from .registry import DenseCount, Family, Input, Paper, Release, register


class PConv(nn.Module):
    """Partial convolution (Section 3.2, Fig. 4): a 3x3 convolution of the first `channels // n_div`
    channels; the rest pass through.

    Args:
        n_div: the inverse 1/r of the partial ratio.
        mode: "split_cat" joins the convolved and the untouched channels; "slicing" copies the
            input and overwrites a slice of the copy.
    """

    def __init__(self, channels: int, n_div: int = 4, mode: str = "split_cat") -> None:
        super().__init__()
        choose("mode", {"split_cat": self.split_cat, "slicing": self.slicing}, mode)
        self.mode = mode
        self.convolved = channels // n_div
        self.conv = nn.Conv2d(self.convolved, self.convolved, 3, padding=1, bias=False)

    def split_cat(self, x: Tensor) -> Tensor:
        convolved, untouched = x.tensor_split([self.convolved], dim=1)
        return torch.cat([self.conv(convolved), untouched], dim=1)

    def slicing(self, x: Tensor) -> Tensor:
        out = x.clone()
        out[:, : self.convolved] = self.conv(x[:, : self.convolved])
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.slicing(x) if self.mode == "slicing" else self.split_cat(x)

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}"


class FasterNetBlock(Residual):
    """x + PW(act(norm(PW(PConv(x))))), 2C channels between the two (Fig. 4, Table 8)."""

    def __init__(
        self, channels: int, n_div: int, mode: str, norm: str, act: str, rate: float
    ) -> None:
        super().__init__(
            pconv=PConv(channels, n_div, mode),
            expand=ConvNorm(channels, 2 * channels, norm=norm, act=act),
            project=nn.Conv2d(2 * channels, channels, 1, bias=False),
            drop=drop_path(rate),
        )


def patchify(in_channels: int, out_channels: int, size: int, norm: str) -> Chain:
    """A convolution of non-overlapping `size` x `size` patches and its normalisation."""
    conv = nn.Conv2d(in_channels, out_channels, size, size, bias=False)
    return Chain(conv=conv, norm=choose("norm", NORMS, norm)(out_channels))


def init_truncated_normal(module: nn.Module) -> None:
    """The released initialisation: convolutions and the classifier N(0, 0.02), bias 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class FasterNet(Backbone):
    """FasterNet (Section 3.4, Table 8).

    Args:
        embed_dim: the channels of stage 1, which double at each merging.
        depths: the blocks of the four stages.
        act: "gelu" or "relu" (Table 5).
        drop_path_rate: stochastic depth of the last block; the rates rise from 0.
        n_div: the inverse of the partial ratio r (Table 5).
        norm: "batch" or "layer" (Table 5).
        mode: how PConv is computed, "split_cat" or "slicing" (Table 9, Listing 1).
    """

    init_weights = staticmethod(init_truncated_normal)

    def __init__(
        self,
        embed_dim: int,
        depths: Sequence[int],
        act: str,
        drop_path_rate: float = 0.0,
        n_div: int = 4,
        norm: str = "batch",
        mode: str = "split_cat",
        num_classes: int = 1000,
        in_chans: int = 3,
    ) -> None:
        channels = [embed_dim * 2**i for i in range(4)]
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        stages = []
        for i, depth in enumerate(depths):
            stages.append(
                Chain(
                    downsample=patchify(channels[i - 1], channels[i], 2, norm) if i else None,
                    blocks=nn.Sequential(
                        *[
                            FasterNetBlock(channels[i], n_div, mode, norm, act, next(rates))
                            for _ in range(depth)
                        ]
                    ),
                )
            )
        head = Chain(
            pool=nn.AdaptiveAvgPool2d(1),
            conv=nn.Conv2d(channels[-1], 1280, 1, bias=False),
            act=choose("act", ACTIVATIONS, act)(),
            flatten=nn.Flatten(),
            fc=nn.Linear(1280, num_classes),
        )
        stem = patchify(in_chans, embed_dim, 4, norm)
        super().__init__(stem, stages, head, channels, num_classes, in_chans)


# What the paper's tables state of a variant.


def parameters(model: Backbone, fused: Backbone) -> int:
    """Those of Tables 3 and 8: without the weights and biases of BatchNorm."""
    return describe.count_parameters(model) - describe.norm_parameters(model)


def stem_layers(model: Backbone) -> str:
    kinds = {nn.Conv2d: "Conv", nn.BatchNorm2d: "BN", nn.GELU: "Acti", nn.ReLU: "Acti"}
    return describe.commas(
        kinds[type(layer)] for layer in model.stem.modules() if type(layer) in kinds
    )


def kernels(model: Backbone) -> str:
    """The kernel of each stage's PConv."""
    return describe.commas(
        describe.only(
            (pconv.conv.kernel_size[0] for pconv in describe.modules_of(stage, PConv)),
            "the kernel size",
        )
        for stage in model.stages
    )


def partial_ratio(model: Backbone) -> str:
    blocks = describe.modules_of(model, FasterNetBlock)
    ratios = (f"{block.pconv.convolved / block.project.out_channels:g}" for block in blocks)
    return describe.only(ratios, "the partial ratio")


def expansion(model: Backbone) -> str:
    blocks = describe.modules_of(model, FasterNetBlock)
    ratios = (f"{b.project.in_channels / b.project.out_channels:g}" for b in blocks)
    return describe.only(ratios, "the expansion")


def activation(model: Backbone) -> str:
    layers = (layer for layer in model.modules() if isinstance(layer, nn.GELU | nn.ReLU))
    return describe.only((type(layer).__name__ for layer in layers), "the activation")


def release(file: str, top1: float) -> Release:
    base = "https://github.com/JierunChen/FasterNet/releases/download/v1.0"
    return Release(top1, url=f"{base}/{file}.pth", page="https://github.com/JierunChen/FasterNet")


FAMILY = register(
    Family(
        network=FasterNet,
        variants={  # Table 8; the drop rates are Table 6's
            "fasternet_t0": dict(embed_dim=40, depths=(1, 2, 8, 2), act="gelu"),
            "fasternet_t1": dict(
                embed_dim=64, depths=(1, 2, 8, 2), act="gelu", drop_path_rate=0.02
            ),
            "fasternet_t2": dict(
                embed_dim=96, depths=(1, 2, 8, 2), act="relu", drop_path_rate=0.05
            ),
            "fasternet_s": dict(
                embed_dim=128, depths=(1, 2, 13, 2), act="relu", drop_path_rate=0.1
            ),
            "fasternet_m": dict(
                embed_dim=144, depths=(3, 4, 18, 3), act="relu", drop_path_rate=0.2
            ),
            "fasternet_l": dict(
                embed_dim=192, depths=(3, 4, 18, 3), act="relu", drop_path_rate=0.3
            ),
        },
        paper=Paper(
            "Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks",
            "Chen et al.",
            "CVPR",
            2023,
            arxiv="2303.03667",
        ),
        input=Input(size=224, crop=0.9, interpolation="bicubic"),
        parameters=parameters,
        macs_of="training",
        described=(
            describe.channels,
            describe.depths,
            describe.reduction,
            describe.stem_strides,
            stem_layers,
            kernels,
            partial_ratio,
            expansion,
            activation,
            describe.head_channels,
            describe.classes,
        ),
        releases={
            "fasternet_t0": release("fasternet_t0-epoch.281-val_acc1.71.9180", 71.9),
            "fasternet_t1": release("fasternet_t1-epoch.291-val_acc1.76.2180", 76.2),
            "fasternet_t2": release("fasternet_t2-epoch.289-val_acc1.78.8860", 78.9),
            "fasternet_s": release("fasternet_s-epoch.299-val_acc1.81.2840", 81.3),
            "fasternet_m": release("fasternet_m-epoch.291-val_acc1.82.9620", 83.0),
            "fasternet_l": release("fasternet_l-epoch.299-val_acc1.83.5060", 83.5),
        },
        layouts="paperrepro.weights.layouts:FASTERNET",
        normalised_maps=tuple(
            f"fasternet_{variant}" for variant in ("t0", "t1", "t2", "s", "m", "l")
        ),
        dense_count=DenseCount(fused=False, per_norm=2, mask_predictor=False),
        recipes="paperrepro.training.papers:fasternet",
        small=dict(config=dict(embed_dim=24, depths=(1, 1, 3, 1), drop_path_rate=0.0)),
        color="#E69F00",
    )
)
