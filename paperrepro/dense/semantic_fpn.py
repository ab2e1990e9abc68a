"""Semantic FPN: Panoptic Feature Pyramid Networks (Kirillov et al., CVPR 2019), Section 3.1.

The segmentation head of RapidNet's Table 3 and of MobileViGv2's Table 2. Every level of a feature
pyramid is brought to a quarter of the image by 3x3 convolutions with x2 upsampling after each, and
the levels are added.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import FeaturePyramidNetwork

from ..models.layers import Chain, ConvNorm
from .body import named


def resize(x: Tensor, like: Tensor) -> Tensor:
    """A map at the height and width of another, bilinearly."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


class SemanticFPN(nn.Module):
    """Maps at strides 4, 8, 16, 32 to scores at stride 4.

    Args:
        in_channels: of the maps, the finest first.
        pyramid: the channels of the feature pyramid (256).
        width: the channels of the head (128).
        dropout: the share of the channels that is left out before the classifier in training.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        pyramid: int = 256,
        width: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.fpn = FeaturePyramidNetwork(list(in_channels), pyramid)
        # A level at stride 4 or 8 has one convolution, one at 16 two, one at 32 three.
        self.levels = nn.ModuleList(
            Chain(
                **{
                    f"conv{i}": ConvNorm(width if i else pyramid, width, 3, act="relu")
                    for i in range(max(level, 1))
                }
            )
            for level in range(len(in_channels))
        )
        self.classifier = Chain(
            dropout=nn.Dropout2d(dropout), conv=nn.Conv2d(width, num_classes, 1)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """`(N, C_i, H / s_i, W / s_i)` for each stride to `(N, num_classes, H / 4, W / 4)`."""
        pyramid = list(self.fpn(named(maps)).values())
        total = self.levels[0](pyramid[0])
        for level in range(1, len(pyramid)):
            x = pyramid[level]
            for step, conv in enumerate(self.levels[level].children()):
                x = resize(conv(x), pyramid[level - 1 - step])
            total = total + x
        return self.classifier(total)
