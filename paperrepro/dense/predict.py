"""A detector's or segmenter's answer, drawn over its picture."""

import colorsys
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from .segmenter import Segmenter


def predict(model: Any, picture: Image.Image, *, size: int | None = None) -> dict[str, Tensor]:
    """The answer of a network in eval mode to one picture.

    Args:
        model: of `load_dense`.
        size: to which the shorter side is resized for a segmenter; as it was trained when None.

    Returns:
        `map` `(H, W)` of class numbers; or a detector's `boxes`, `labels`, `scores` and `masks`.
    """
    pixels = v2.functional.to_dtype(v2.functional.to_image(picture.convert("RGB")), scale=True)
    image = pixels.as_subclass(Tensor)
    with torch.no_grad():
        if not isinstance(model, Segmenter):
            return model.eval()([image])[0]
        prepared = model.input
        assert prepared is not None
        smaller = v2.functional.resize(image, [size or prepared.size], antialias=True)
        smaller = v2.functional.normalize(smaller, list(prepared.mean), list(prepared.std))
        scores = model.eval()(smaller[None])
    larger = torch.nn.functional.interpolate(scores, image.shape[1:], mode="bilinear")
    return {"map": larger[0].argmax(0)}


def drawn(
    picture: Image.Image,
    answer: dict[str, Tensor],
    classes: tuple[str, ...] | None,
    *,
    least: float = 0.5,
) -> Image.Image:
    """The picture under a map of classes, or under boxes and masks.

    Args:
        answer: of `predict`.
        classes: their names, for the boxes.
        least: the score from which on a box is drawn.
    """
    image = v2.functional.to_image(picture.convert("RGB")).as_subclass(Tensor)
    if "map" in answer:
        numbers = answer["map"]
        masks = torch.stack([numbers == number for number in range(int(numbers.max()) + 1)])
        shown = draw_segmentation_masks(image, masks, alpha=0.55, colors=palette(len(masks)))
        return v2.functional.to_pil_image(shown)
    kept = answer["scores"] >= least
    boxes, labels, scores = (answer[key][kept] for key in ("boxes", "labels", "scores"))
    colors = [palette(int(label) + 1)[-1] for label in labels]
    if "masks" in answer and len(boxes):
        image = draw_segmentation_masks(image, answer["masks"][kept, 0] > 0.5, 0.5, colors)
    if len(boxes):
        names = [classes[int(k) - 1] if classes else str(int(k)) for k in labels]
        texts = [f"{n} {100 * s:.0f} %" for n, s in zip(names, scores.tolist(), strict=True)]
        image = draw_bounding_boxes(image, boxes, texts, colors, width=2)
    return v2.functional.to_pil_image(image)


def palette(count: int) -> list[tuple[int, int, int]]:
    """Colours of the classes, far apart on the circle of hues for neighbouring numbers."""
    turns = ((0.08 + 0.618 * number) % 1 for number in range(count))
    found = (colorsys.hsv_to_rgb(turn, 0.75, 0.95) for turn in turns)
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in found]
