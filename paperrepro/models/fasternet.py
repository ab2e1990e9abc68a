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

from .layers import ACTIVATIONS, NORMS, Backbone, Chain, ConvNorm, Residual, choose, drop_path
from .registry import register


class PConv(nn.Module):
    """Partial convolution (Section 3.2, Fig. 4): a 3x3 convolution of the first `channels // n_div`
    channels; the rest pass through.

    Args:
        n_div: the inverse 1/r of the partial ratio.
        forward: "split_cat" joins the convolved and the untouched channels; "slicing" copies the
            input and overwrites a slice of the copy.
    """

    def __init__(self, channels: int, n_div: int = 4, forward: str = "split_cat") -> None:
        super().__init__()
        forms = {"split_cat": self.split_cat, "slicing": self.slicing}
        choose("forward", forms, forward)
        self.form = forward
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
        return self.slicing(x) if self.form == "slicing" else self.split_cat(x)

    def extra_repr(self) -> str:
        return f"forward={self.form!r}"


class FasterNetBlock(Residual):
    """x + PW(act(norm(PW(PConv(x))))), 2C channels between the two (Fig. 4, Table 8)."""

    def __init__(
        self, channels: int, n_div: int, forward: str, norm: str, act: str, rate: float
    ) -> None:
        super().__init__(
            pconv=PConv(channels, n_div, forward),
            expand=ConvNorm(channels, 2 * channels, norm=norm, act=act),
            project=nn.Conv2d(2 * channels, channels, 1, bias=False),
            drop=drop_path(rate),
        )


def patchify(in_channels: int, out_channels: int, size: int, norm: str) -> Chain:
    """A convolution of non-overlapping `size` x `size` patches and its normalisation."""
    conv = nn.Conv2d(in_channels, out_channels, size, size, bias=False)
    return Chain(conv=conv, norm=choose("norm", NORMS, norm)(out_channels))


class FasterNet(Backbone):
    """FasterNet (Section 3.4, Table 8).

    Args:
        embed_dim: the channels of stage 1, which double at each merging.
        depths: the blocks of the four stages.
        act: "gelu" or "relu" (Table 5).
        drop_path_rate: stochastic depth of the last block; the rates rise from 0.
        n_div: the inverse of the partial ratio r (Table 5).
        norm: "batch" or "layer" (Table 5).
        forward: how PConv is computed, "split_cat" or "slicing" (Table 9, Listing 1).
    """

    def __init__(
        self,
        embed_dim: int,
        depths: Sequence[int],
        act: str,
        drop_path_rate: float = 0.0,
        n_div: int = 4,
        norm: str = "batch",
        forward: str = "split_cat",
        num_classes: int = 1000,
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
                            FasterNetBlock(channels[i], n_div, forward, norm, act, next(rates))
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
        stem = patchify(3, embed_dim, 4, norm)
        super().__init__(stem, stages, head, stage_channels=channels, num_classes=num_classes)
        self.apply(init_truncated_normal)


def init_truncated_normal(module: nn.Module) -> None:
    """The released initialisation: convolutions and the classifier N(0, 0.02), bias 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@register(FasterNet)
def fasternet_t0(**config) -> FasterNet:
    return FasterNet(**(dict(embed_dim=40, depths=(1, 2, 8, 2), act="gelu") | config))


@register(FasterNet)
def fasternet_t1(**config) -> FasterNet:
    defaults = dict(embed_dim=64, depths=(1, 2, 8, 2), act="gelu", drop_path_rate=0.02)
    return FasterNet(**(defaults | config))


@register(FasterNet)
def fasternet_t2(**config) -> FasterNet:
    defaults = dict(embed_dim=96, depths=(1, 2, 8, 2), act="relu", drop_path_rate=0.05)
    return FasterNet(**(defaults | config))


@register(FasterNet)
def fasternet_s(**config) -> FasterNet:
    defaults = dict(embed_dim=128, depths=(1, 2, 13, 2), act="relu", drop_path_rate=0.1)
    return FasterNet(**(defaults | config))


@register(FasterNet)
def fasternet_m(**config) -> FasterNet:
    defaults = dict(embed_dim=144, depths=(3, 4, 18, 3), act="relu", drop_path_rate=0.2)
    return FasterNet(**(defaults | config))


@register(FasterNet)
def fasternet_l(**config) -> FasterNet:
    defaults = dict(embed_dim=192, depths=(3, 4, 18, 3), act="relu", drop_path_rate=0.3)
    return FasterNet(**(defaults | config))
