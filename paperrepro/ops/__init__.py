"""Operators: the depthwise convolution with a large kernel, made fast on a CPU."""

from .depthwise import METHODS, DepthwiseConv2d, depthwise_conv2d

__all__ = ["METHODS", "DepthwiseConv2d", "depthwise_conv2d"]
