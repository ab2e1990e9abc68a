"""ResNet for CIFAR-10 (He et al., CVPR 2016, Section 4.2): small, and its trained weights public.

Weights of a ResNet-20 and a ResNet-56 are published at github.com/akamaster/pytorch_resnet_cifar10,
for images of 32 pixels normalised as ImageNet's.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

CHANNELS = (16, 32, 64)


class Subsample(nn.Module):
    """The shortcut between two stages, option A: every second pixel, and channels of zeros."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added // 2))


def cifar_resnet(depth: int = 20, num_classes: int = 10) -> nn.Sequential:
    """ResNet of 6n + 2 layers: a convolution, three stages of n blocks, a classifier.

    Returns:
        Images `(N, 3, 32, 32)` to logits `(N, num_classes)`.

    Raises:
        ValueError: there is no network of that depth.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"no ResNet of {depth} layers for CIFAR-10: use 8, 14, 20, 32, 44, 56 ...")
    layers = OrderedDict(
        conv1=nn.Conv2d(3, 16, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(16), relu=nn.ReLU()
    )
    for index, width in enumerate(CHANNELS):
        first = BasicBlock(width, width)
        if index:
            first = BasicBlock(width // 2, width, 2, Subsample(width // 2))
        others = [BasicBlock(width, width) for _ in range(blocks - 1)]
        layers[f"layer{index + 1}"] = nn.Sequential(first, *others)
    layers |= dict(
        pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), linear=nn.Linear(64, num_classes)
    )
    return nn.Sequential(layers)
