"""Cascade Mask R-CNN (Cai & Vasconcelos, TPAMI 2019), as RepLKNet's Table 9 needs it.

Three of torchvision's RoI heads, one after the other: each takes the boxes of the one before, and
asks for a better overlap before it calls a box right.

Where MMDetection differs, which trained the paper's networks: it samples RoIs anew without the true
boxes that were put among them, and has no background among the box and mask outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image, generalized_box_iou_loss

from .body import Pyramid

OVERLAPS = (0.5, 0.6, 0.7)
CODER_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
LOSS_WEIGHTS = (1.0, 0.5, 0.25)
GIOU_WEIGHT = 10.0

Result = tuple[list[dict[str, Tensor]], dict[str, Tensor]]


class CascadeRoIHeads(nn.Module):
    """The heads in a row, instead of torchvision's one.

    Args:
        stages: with a mask head each, and the overlap that makes a box right.
    """

    def __init__(self, stages: list[RoIHeads]) -> None:
        super().__init__()
        self.stages: Any = nn.ModuleList(stages)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> Result:
        """What torchvision's `RoIHeads` returns: detections in eval mode, losses in training."""
        if self.training and targets is not None:
            return [], self.losses(features, proposals, image_shapes, targets)
        return self.detect(features, proposals, image_shapes), {}

    def losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        losses = {}
        boxes_of = [target["boxes"] for target in targets]
        for i, (stage, weight) in enumerate(zip(self.stages, LOSS_WEIGHTS, strict=True)):
            proposals, matches, labels, _ = stage.select_training_samples(proposals, targets)
            logits, deltas = score(stage, features, proposals, image_shapes)
            truth = torch.cat(labels)
            decoded = stage.box_coder.decode(deltas, proposals)
            losses[f"loss_classifier_{i}"] = weight * cross_entropy(logits, truth)
            right = torch.where(truth > 0)[0]
            wanted = torch.cat([boxes[m] for boxes, m in zip(boxes_of, matches, strict=True)])
            giou = generalized_box_iou_loss(decoded[right, truth[right]], wanted[right])
            losses[f"loss_box_reg_{i}"] = weight * GIOU_WEIGHT * giou.sum() / max(len(truth), 1)
            losses[f"loss_mask_{i}"] = weight * mask_loss(
                stage, features, proposals, image_shapes, targets, matches, labels
            )
            proposals = refine(logits, decoded.detach(), proposals, image_shapes, truth)
        return losses

    def detect(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Boxes of the last head by the mean scores of all; the mean of their masks."""
        total: Tensor | None = None
        for stage in self.stages:
            start = proposals
            logits, deltas = score(stage, features, start, image_shapes)
            total = logits if total is None else total + logits
            decoded = stage.box_coder.decode(deltas, start)
            proposals = refine(logits, decoded, start, image_shapes)
        assert total is not None
        last = self.stages[-1]
        boxes, scores, labels = last.postprocess_detections(
            total / len(self.stages), deltas, start, image_shapes
        )
        masks = []
        for stage in self.stages:
            seen = stage.mask_head(stage.mask_roi_pool(features, boxes, image_shapes))
            masks.append(maskrcnn_inference(stage.mask_predictor(seen), labels))
        return [
            {"boxes": b, "labels": k, "scores": s, "masks": torch.stack(m).mean(0)}
            for b, k, s, *m in zip(boxes, labels, scores, *masks, strict=True)
        ]


def score(
    stage: RoIHeads,
    features: dict[str, Tensor],
    proposals: list[Tensor],
    image_shapes: list[tuple[int, int]],
) -> tuple[Tensor, Tensor]:
    """Class scores `(R, classes)` and box deltas `(R, 4 classes)` of all proposals."""
    return stage.box_predictor(
        stage.box_head(stage.box_roi_pool(features, proposals, image_shapes))
    )


def mask_loss(
    stage: RoIHeads,
    features: dict[str, Tensor],
    proposals: list[Tensor],
    image_shapes: list[tuple[int, int]],
    targets: list[dict[str, Tensor]],
    matches: list[Tensor],
    labels: list[Tensor],
) -> Tensor:
    """The mask loss of the proposals that are right."""
    positive = [torch.where(label > 0)[0] for label in labels]
    boxes = [p[where] for p, where in zip(proposals, positive, strict=True)]
    matched = [m[where] for m, where in zip(matches, positive, strict=True)]
    logits = stage.mask_predictor(
        stage.mask_head(stage.mask_roi_pool(features, boxes, image_shapes))
    )
    masks, classes = ([target[key] for target in targets] for key in ("masks", "labels"))
    return maskrcnn_loss(logits, boxes, masks, classes, matched)


def refine(
    logits: Tensor,
    decoded: Tensor,
    proposals: list[Tensor],
    image_shapes: list[tuple[int, int]],
    truth: Tensor | None = None,
) -> list[Tensor]:
    """The box `(R_i, 4)` of each proposal's class: the true one where known, else the likeliest
    that is not the background."""
    best = logits[:, 1:].argmax(1) + 1
    if truth is not None:
        best = torch.where(truth > 0, truth, best)
    boxes = decoded[torch.arange(len(best), device=best.device), best]
    split = boxes.split([len(p) for p in proposals])
    return [clip_boxes_to_image(b, shape) for b, shape in zip(split, image_shapes, strict=True)]


def cascade_mask_rcnn(pyramid: Pyramid, num_classes: int, **options: Any) -> MaskRCNN:
    """torchvision's Mask R-CNN with a cascade of three instead of its RoI heads.

    Each box head has four 3x3 convolutions with BatchNorm and one fully connected layer.

    Args:
        num_classes: with the background.
    """
    width = pyramid.out_channels
    model = MaskRCNN(pyramid, num_classes, **options)
    one = model.roi_heads
    stages = []
    for overlap, coder in zip(OVERLAPS, CODER_WEIGHTS, strict=True):
        stages.append(
            RoIHeads(
                MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2),
                FastRCNNConvFCHead((width, 7, 7), [width] * 4, [1024], nn.BatchNorm2d),
                FastRCNNPredictor(1024, num_classes),
                overlap,
                overlap,
                one.fg_bg_sampler.batch_size_per_image,
                one.fg_bg_sampler.positive_fraction,
                coder,
                one.score_thresh,
                one.nms_thresh,
                one.detections_per_img,
                mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2),
                mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
                mask_predictor=MaskRCNNPredictor(width, width, num_classes),
            )
        )
    model.roi_heads = CascadeRoIHeads(stages)
    return model
