"""UperNet: Unified Perceptual Parsing for Scene Understanding (Xiao et al., ECCV 2018).

The segmentation head of RepLKNet's Tables 5, 7 and 8. The last map is seen at four scales (pyramid
pooling: Zhao et al., PSPNet, CVPR 2017); a feature pyramid carries it down to the first map; all
four levels are put together at a quarter of the image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..models.layers import Chain, ConvNorm
from .semantic_fpn import resize


class UperNet(nn.Module):
    """Maps at strides 4, 8, 16, 32 to scores at stride 4.

    Args:
        in_channels: of the maps, the finest first.
        width: the channels of every level (512).
        pools: the sides of the pooled maps; pooled to one pixel, BatchNorm needs two images in
            training.
        dropout: the share of the channels that is left out before the classifier in training.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        width: int = 512,
        pools: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        *finer, last = in_channels
        self.pools = nn.ModuleList(
            Chain(pool=nn.AdaptiveAvgPool2d(side), conv=ConvNorm(last, width, act="relu"))
            for side in pools
        )
        self.bottleneck = ConvNorm(last + len(pools) * width, width, 3, act="relu")
        self.laterals = nn.ModuleList(ConvNorm(width_in, width, act="relu") for width_in in finer)
        self.smooth = nn.ModuleList(ConvNorm(width, width, 3, act="relu") for _ in finer)
        self.fuse = ConvNorm(len(in_channels) * width, width, 3, act="relu")
        self.classifier = Chain(
            dropout=nn.Dropout2d(dropout), conv=nn.Conv2d(width, num_classes, 1)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """`(N, C_i, H / s_i, W / s_i)` for each stride to `(N, num_classes, H / 4, W / 4)`."""
        *finer, last = maps
        pooled = [resize(pool(last), last) for pool in self.pools]
        down = self.bottleneck(torch.cat([last, *pooled], 1))
        levels = [down]
        for i in reversed(range(len(finer))):
            lateral = self.laterals[i](finer[i])
            down = lateral + resize(down, lateral)
            levels.insert(0, self.smooth[i](down))
        return self.classifier(self.fuse(torch.cat([resize(y, levels[0]) for y in levels], 1)))
