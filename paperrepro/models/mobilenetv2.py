"""MobileNetV2 with large kernels: the test bed of RepLKNet's guidelines (its Tables 2, 3, 4, 11).

torchvision's MobileNetV2 (Sandler et al., CVPR 2018) with other depthwise convolutions. "All" of
them includes those of stride 2: only so do the parameters of Table 11 come out (3.5, 4.0 and
4.6 M); with the strided ones left at 3x3 they would be 3.95 and 4.49 M. The FLOPs of Table 11
(319 M at 9x9, 361 M at 13x13) fit no such network; counted, they are 466 M and 669 M.
"""

from itertools import accumulate, pairwise

from torch import nn
from torchvision.models import MobileNetV2 as TorchvisionMobileNetV2
from torchvision.models.mobilenetv2 import InvertedResidual

from . import describe
from .backbone import Backbone
from .layers import Branches, Chain, ConvNorm
from .registry import Family, Input, Paper, Release, register

# The expansion and the channels of MobileNetV2's seven groups of blocks (its Table 2).
EXPANSIONS = (1, 6, 6, 6, 6, 6, 6)
CHANNELS = (16, 24, 32, 64, 96, 160, 320)


class MobileNetV2(Backbone):
    """MobileNetV2 with kernels of any size in its depthwise convolutions.

    Args:
        kernel_size: K, odd.
        last_stage_only: K in the four blocks of the last stage only (Guideline 5, Table 4).
        shortcut: False leaves out every identity shortcut (Guideline 2, Table 2).
        small_kernel: 3 adds a parallel 3x3 branch beside each K x K one (Guideline 3, Table 3).
        dilation: of the K x K kernels (Section 5.3, Table 11: 3x3 dilated by 4 spans 9 pixels).
        blocks, strides: of the seven groups; for small images fewer of the blocks halve the map.
            The stages end before the second, third, fourth and sixth group; the last, 7x7 for
            images of 224 pixels, holds the last two.
        width: the width multiplier.
    """

    def __init__(
        self,
        kernel_size: int = 3,
        *,
        last_stage_only: bool = False,
        shortcut: bool = True,
        small_kernel: int | None = None,
        dilation: int = 1,
        blocks: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1),
        strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1),
        width: float = 1.0,
        num_classes: int = 1000,
    ) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; an odd kernel has a centre, use one")
        if not len(blocks) == len(strides) == len(CHANNELS):
            raise ValueError(f"blocks is {blocks}, strides {strides}; give seven numbers each")
        net = TorchvisionMobileNetV2(
            num_classes=num_classes,
            width_mult=width,
            inverted_residual_setting=[*zip(EXPANSIONS, CHANNELS, blocks, strides, strict=True)],
        )
        ends = [*accumulate(blocks, initial=1)]
        for index, block in enumerate(net.features):
            if not isinstance(block, InvertedResidual):
                continue
            block.use_res_connect &= shortcut
            if not last_stage_only or index >= ends[5]:
                depthwise = block.conv[-3]
                depthwise[0], depthwise[1] = (
                    large_depthwise(depthwise[0], kernel_size, small_kernel, dilation),
                    nn.Identity(),
                )
        stages = [
            Chain(blocks=net.features[first:last])
            for first, last in pairwise((*ends[1:4], ends[5], None))
        ]
        head = Chain(
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            dropout=net.classifier[0],
            fc=net.classifier[1],
        )
        channels = [describe.modules_of(stage, nn.Conv2d)[-1].out_channels for stage in stages]
        stem = net.features[: ends[1]]
        super().__init__(stem, stages, head, channels, num_classes)


def large_depthwise(
    replaced: nn.Conv2d, kernel_size: int, small_kernel: int | None, dilation: int
) -> Branches:
    """The convolution in a depthwise 3x3 convolution's place, its BatchNorms included."""
    channels, stride = replaced.out_channels, replaced.stride[0]
    large = ConvNorm(channels, channels, kernel_size, stride, dilation=dilation, groups=channels)
    small = None
    if small_kernel:
        small = ConvNorm(channels, channels, small_kernel, stride, groups=channels)
    branches = Branches(large=large, small=small)
    for module in branches.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return branches


def parameters(model: Backbone, fused: Backbone) -> int:
    """Those of RepLKNet's Table 11: all."""
    return describe.count_parameters(model)


FAMILY = register(
    Family(
        network=MobileNetV2,
        variants={"mobilenetv2": {}},
        paper=Paper(
            "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
            "Sandler et al.",
            "CVPR",
            2018,
            arxiv="1801.04381",
        ),
        input=Input(size=224, crop=0.875, interpolation="bicubic"),
        parameters=parameters,
        macs_of="training",
        releases={
            "mobilenetv2": Release(
                71.76,
                url=None,
                page="https://github.com/DingXiaoH/RepLKNet-pytorch",
                layout="paperrepro",
                note="RepLKNet's test bed (Tables 2 to 4, 11); the authors published no weights "
                "for it.",
            )
        },
        recipes="paperrepro.training.papers:mobilenetv2",
        small=dict(
            config=dict(width=0.35, blocks=(1, 1, 2, 2, 1, 2, 1), strides=(1, 1, 1, 2, 1, 2, 1)),
            lr=0.05,
        ),
        test_bed=True,
    )
)
