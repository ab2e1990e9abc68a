"""A recipe's images: the augmentation of each epoch, and how validation prepares them."""

from dataclasses import replace

from torchvision.transforms import v2

from ..models import Input
from ..models.registry import input_of
from ..networks import transform_of
from ..transforms import Normalise, training_transform
from .recipe import Recipe


def transform_for_training(
    recipe: Recipe, epoch: int, mirror: bool = True, pixels: bool = False
) -> v2.Transform:
    """The augmentation of an epoch, normalised as the network's released weights expect it; with
    `pixels`, for `normalisation` to do that on the device."""
    size, factor = recipe.stage(epoch)
    prepared = input_of(recipe.model)
    return training_transform(
        size,
        crop_scale=recipe.crop_scale,
        flip=recipe.flip and mirror,
        rand_augment=recipe.rand_augment,
        auto_augment=recipe.auto_augment * factor,
        erasing=recipe.erasing,
        interpolation=recipe.interpolation,
        mean=prepared.mean,
        std=prepared.std,
        pixels=pixels,
    )


def normalisation(recipe: Recipe) -> Normalise:
    prepared = input_of(recipe.model)
    return Normalise(prepared.mean, prepared.std)


def input_for(recipe: Recipe) -> Input:
    """How the trained network's images are prepared: as the family's, at the recipe's size."""
    return replace(input_of(recipe.model), size=recipe.size, crop=recipe.test_crop)


def transform_for_validation(recipe: Recipe) -> v2.Transform:
    """`paperrepro.evaluation_transform` at the recipe's size."""
    return transform_of(input_for(recipe))
