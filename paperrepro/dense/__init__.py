"""Detection and segmentation: the heads of the five papers on this library's backbones.

- `body`: the stage maps, and the feature pyramid on top of them.
- `segmenter`: Semantic FPN, UperNet and DeepLabV3.
- `detector`: Mask R-CNN, Faster R-CNN, Cascade Mask R-CNN, RetinaNet, FCOS and SSDLite.
- `saving`: their files.
"""

from .body import Body, Pyramid, build_body, freeze_norms
from .detector import build_detector
from .saving import load_dense, save_dense
from .segmenter import Segmenter, build_segmenter
from .semantic_fpn import SemanticFPN
from .upernet import UperNet

__all__ = [
    "Body",
    "Pyramid",
    "Segmenter",
    "SemanticFPN",
    "UperNet",
    "build_body",
    "build_detector",
    "build_segmenter",
    "freeze_norms",
    "load_dense",
    "save_dense",
]
