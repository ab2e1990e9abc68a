"""What a network is asked for: labels, and a teacher's answers (RapidNet, Table 4; DeiT)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models import Backbone
from ..models.layers import TwoHeads
from ..weights import load_model
from .recipe import Recipe


class Answers(nn.Module):
    """The logits of each of a network's heads apart: one `(N, classes)`, or two if distilled."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        classifier = self.model.get_classifier()
        if not isinstance(classifier, TwoHeads):
            return [self.model(images)]
        hidden = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return [logits.flatten(1) for logits in classifier.both(hidden[:, :, None, None])]


def loss_of(
    answers: list[Tensor], labels: Tensor, recipe: Recipe, teacher: Tensor | None = None
) -> Tensor:
    """The loss of a batch, a scalar.

    Args:
        answers: of `Answers`. With two heads the first learns the labels and the second the
            teacher; without a teacher both learn the labels.
        labels: classes `(N,)`, or soft labels `(N, classes)` after MixUp and CutMix.
        teacher: the teacher's logits `(N, classes)`.
    """
    from_labels = [classification_loss(logits, labels, recipe) for logits in answers]
    if teacher is None:
        return torch.stack(from_labels).mean()
    student = answers[-1]
    if recipe.distillation == "hard":
        from_teacher = F.cross_entropy(student, teacher.argmax(1))
    else:
        # Hinton et al. (2015): the gradient's size shall not depend on the temperature.
        heat = recipe.temperature
        from_teacher = heat**2 * F.kl_div(
            F.log_softmax(student / heat, 1),
            F.log_softmax(teacher / heat, 1),
            reduction="batchmean",
            log_target=True,
        )
    weight = recipe.distillation_weight
    return (1 - weight) * from_labels[0] + weight * from_teacher


def classification_loss(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """The recipe's loss of logits `(N, classes)` and labels, classes or soft, with smoothing."""
    if recipe.loss == "cross_entropy":
        return F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    classes = logits.shape[1]
    target = F.one_hot(labels, classes) if labels.dim() == 1 else labels
    smoothing = recipe.label_smoothing
    target = target.to(logits.dtype) * (1 - smoothing) + smoothing / classes
    return F.binary_cross_entropy_with_logits(logits, target)


def load_teacher(name: str, num_classes: int) -> nn.Module:
    """The teacher in eval mode: "timm:NAME", "torchvision:NAME" (both fetch their weights), or the
    path of a file made by `save_model`.

    Raises:
        ValueError: it cannot be had, or it classifies other classes.
    """
    source, _, variant = name.partition(":")
    try:
        if source == "timm":
            import timm

            teacher = timm.create_model(variant, pretrained=True)
        elif source == "torchvision":
            from torchvision.models import get_model

            teacher = get_model(variant, weights="DEFAULT")
        else:
            teacher = load_model(name)
    except ImportError as error:
        raise ValueError(
            f'the teacher {name!r} needs timm: pip install "paperrepro[train]"'
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"no teacher {name!r}: {error}") from error
    teacher = teacher.eval().requires_grad_(False)
    with torch.no_grad():
        classes = teacher(torch.zeros(1, 3, 224, 224)).shape[1]
    if classes != num_classes:
        raise ValueError(
            f"the teacher {name!r} knows {classes} classes and the data have {num_classes}; "
            "take one that was trained on the same classes"
        )
    return teacher
