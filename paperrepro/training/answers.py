"""What a trained network answers to each test image.

A comparison whose error allows for the test set needs to know which images each network classifies
rightly, and not only how many (`paperrepro.claims.compare`).
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from ..datasets import LabelledImages
from ..files import write_atomically
from .evaluation import batches, readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Answers:
    """A network's answers to a test set, an entry per image.

    Attributes:
        correct: whether the label is the first answer.
        among_five: whether it is one of the first five.
        loss: the cross entropy.
    """

    correct: Array
    among_five: Array
    loss: Array

    @classmethod
    def read(cls, path: Path) -> "Answers":
        with np.load(path) as file:
            return cls(file["correct"], file["among_five"], file["loss"])

    def write(self, path: Path) -> None:
        memory = io.BytesIO()
        np.savez_compressed(memory, allow_pickle=False, **vars(self))
        write_atomically(path, memory.getvalue())


@torch.no_grad()
def answers_of(
    model: "nn.Module", images: LabelledImages, transform: "Callable", *, batch_size: int = 64
) -> Answers:
    """The network's answers, in eval mode, to the images in their order."""
    model.eval()
    parts = []
    cpu = torch.device("cpu")
    for batch, labels in readable(batches(images, transform, batch_size, 0, cpu)):
        logits = model(batch.to(memory_format=torch.channels_last)).float()
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="none")
        parts.append((ranked[:, 0], ranked.any(1), loss))
    correct, among_five, losses = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return Answers(correct, among_five, losses)
