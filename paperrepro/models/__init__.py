"""The networks of the five papers, and MobileNetV2, the test bed of RepLKNet's guidelines."""

from . import mobileone, fasternet, replknet, mobilevig, mobilevigv2, rapidnet, mobilenetv2  # isort: skip
from .layers import Backbone
from .registry import build_model, check_name, family_of, list_models

__all__ = [
    "Backbone",
    "build_model",
    "check_name",
    "family_of",
    "fasternet",
    "list_models",
    "mobilenetv2",
    "mobileone",
    "mobilevig",
    "mobilevigv2",
    "rapidnet",
    "replknet",
]
