"""Latency and throughput of whole networks: FasterNet's Fig. 2 and Table 3, with newer peers.

Ours and the peers run in eager PyTorch, with random weights, on images of 224 pixels: as they are
trained, and as they are run. For the latter ours and those peers that have branches to merge are
re-parameterized, and of all of them every BatchNorm that follows a convolution is folded into it:
it would take a good part of a small network's time, which says nothing of its architecture.
"""

import copy
from collections.abc import Sequence
from functools import partial

import pandas as pd
import torch
from torch import nn
from torch.fx import Node
from torch.nn.utils.fusion import fuse_conv_bn_weights
from tqdm import tqdm

from ..complexity import count_macs, count_parameters
from ..models import Backbone, list_models
from ..networks import find_network
from ..reparam import reparameterize
from .latency import FORMATS, Comparison, compare

SIZE = 224

# By their names in timm or torchvision: the paper that quotes them, and their name there.
PEERS = {
    "mobilenetv1_100": ("mobileone", "MobileNetV1"),
    "mobilenetv2_100": ("mobileone", "MobileNetV2-x1.0"),
    "mobilenetv2_140": ("mobileone", "MobileNetV2-x1.4"),
    "mobilenetv3_small_100": ("mobileone", "MobileNetV3-S"),
    "mobilenetv3_large_100": ("mobileone", "MobileNetV3-L"),
    "shufflenet_v2_x1_0": ("mobileone", "ShuffleNetV2-x1.0"),
    "shufflenet_v2_x2_0": ("mobileone", "ShuffleNetV2-x2.0"),
    "semnasnet_100": ("mobileone", "MNASNet-A1"),
    "mixnet_s": ("mobileone", "MixNet-S"),
    "efficientnet_b0": ("mobileone", "EfficientNet-B0"),
    "mobilevit_xxs": ("mobileone", "MobileViT-XXS"),
    "mobilevit_xs": ("mobileone", "MobileViT-XS"),
    "mobilevit_s": ("mobileone", "MobileViT-S"),
    "deit_tiny_patch16_224": ("mobileone", "DeiT-tiny"),
    "convit_tiny": ("mobileone", "ConViT-tiny"),
    "pit_ti_224": ("mobileone", "PiT-ti"),
    "pit_xs_224": ("mobileone", "PiT-xs"),
    "resnet50": ("fasternet", "ResNet50"),
    "convnext_tiny": ("fasternet", "ConvNeXt-T"),
    "fastvit_t8": ("mobilevigv2", "FastViT-T8"),
    "fastvit_sa12": ("mobilevigv2", "FastViT-SA12"),
    "repvit_m0_9": None,
    "repvit_m1_0": None,
    "mobilenetv4_conv_small": None,
    "mobilenetv4_conv_medium": None,
}

# Of RepLKNet one: the others differ from it in their kernels, or need gigabytes and seconds.
NETWORKS = (*(name for name in list_models() if "replknet" not in name), "replknet_31b", *PEERS)
QUICK = ("mobileone_s0", "fasternet_t0", "mobilenetv2_100", "resnet50")


def run(
    names: Sequence[str] | None = None,
    *,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure networks against each other.

    All networks, in both forms, run interleaved for each memory format and batch: there they may be
    compared. At batch 8 only the fused form is measured, and only up to 5 G multiply-adds: larger
    networks gain nothing from a batch. Eager figures at batch 8 depend on the allocator too (glibc
    gives large blocks back to the system after each layer).

    Args:
        names: of networks registered here, in timm or in torchvision; None for `NETWORKS`,
            which take eight gigabytes of memory.
        quick: `QUICK` instead of `NETWORKS`, batch 1 only.

    Returns:
        One row per network, form, memory format and batch: the library it comes from, parameters
        and multiply-adds (MACs) of that form, milliseconds, images per second, and GMACs per
        second, which are the FLOPS of FasterNet's Fig. 2 (its FLOPs are MACs).

    Raises:
        ValueError: an unknown network, or a library that is missing.
    """
    networks: dict[tuple[str, str], nn.Module] = {}
    macs: dict[tuple[str, str], int] = {}
    facts: dict[tuple[str, str], dict[str, object]] = {}
    names = names or (QUICK if quick else NETWORKS)
    for name in tqdm(names, desc="Building", leave=False, disable=not progress):
        model = find_network(name).model.requires_grad_(False)
        for form, network in (("training", model), ("fused", as_run(model))):
            networks[name, form] = network
            macs[name, form] = count_macs(network, SIZE)
            facts[name, form] = {
                "model": name,
                "library": library_of(network),
                "form": form,
                "params": count_parameters(network),
                "macs": macs[name, form],
            }
    rows = []
    for batch in (1,) if quick else (1, 8):
        selected = {
            key: network
            for key, network in networks.items()
            if batch == 1 or (key[1] == "fused" and macs[key] < 5e9)
        }
        for memory_format in FORMATS if selected else ():
            label = f"Batch {batch}, {memory_format}" if progress else None
            comparison = race(selected, batch, memory_format, threads=threads, progress=label)
            for key in selected:
                seconds = comparison[" ".join(key)].median
                rows.append(
                    facts[key]
                    | {
                        "memory_format": memory_format,
                        "batch": batch,
                        "ms": seconds * 1e3,
                        "spread": comparison[" ".join(key)].spread,
                        "images_per_s": batch / seconds,
                        "gmacs_per_s": batch * macs[key] / seconds / 1e9,
                        "null": comparison.null,
                    }
                )
    return pd.DataFrame(rows)


def race(
    networks: dict[tuple[str, str], nn.Module],
    batch: int,
    memory_format: str,
    *,
    threads: int,
    progress: str | None,
) -> Comparison[str]:
    """Time the networks, which are brought into the memory format, on the same random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, SIZE, SIZE, generator=generator)
    images = images.contiguous(memory_format=FORMATS[memory_format])
    infer = torch.inference_mode()(lambda network: network(images))
    candidates = {
        " ".join(key): partial(infer, network.to(memory_format=FORMATS[memory_format]))
        for key, network in networks.items()
    }
    return compare(candidates, rounds=5, threads=threads, progress=progress)


def library_of(network: nn.Module) -> str:
    return type(network).__module__.partition(".")[0]


def as_run(model: nn.Module) -> nn.Module:
    """A copy of the network with merged branches and folded BatchNorms."""
    return merged(model) if isinstance(model, Backbone) else fold_norms(merged(model))


def merged(model: nn.Module) -> nn.Module:
    """A copy of the network with its branches merged, where its library can."""
    if isinstance(model, Backbone):
        return reparameterize(model)
    if library_of(model) == "timm":
        from timm.utils import reparameterize_model

        return reparameterize_model(model)
    return copy.deepcopy(model)


def fold_norms(model: nn.Module) -> nn.Module:
    """Fold each BatchNorm into the convolution that it alone follows, in place.

    What timm's BatchNorms do besides, an activation, stays.
    """
    program = torch.export.export(model, (torch.zeros(1, 3, SIZE, SIZE),))
    parameters = program.graph_signature.inputs_to_parameters

    def owner(weight: Node) -> str:
        return parameters[weight.name].rpartition(".")[0]

    for node in program.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default:
            before, scale = node.args[:2]
            if before.target is torch.ops.aten.conv2d.default and len(before.users) == 1:
                conv = model.get_submodule(owner(before.args[1]))
                norm = model.get_submodule(owner(scale))
                if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                    raise TypeError(f"cannot fold {type(norm).__name__} into {type(conv).__name__}")
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight,
                    conv.bias,
                    norm.get_buffer("running_mean"),
                    norm.get_buffer("running_var"),
                    norm.eps,
                    norm.weight,
                    norm.bias,
                )
                model.set_submodule(owner(scale), getattr(norm, "act", nn.Identity()))
    return model
