"""The sizes of other people's networks, counted: what the papers' tables print of them, checked.

timm and torchvision have most of the peers. Their parameters and multiply-adds are counted in the
form in which they are trained and, where timm can re-parameterize them, in the form in which they
run. Nothing is timed and no weights are loaded.

    >>> from paperrepro.benchmark import peers
    >>> peers.run()
"""

from functools import cache
from importlib.metadata import version

import pandas as pd
from tqdm import tqdm

from ..claims import load_claims
from ..claims.reproduce import UNITS
from ..complexity import count_macs, count_parameters
from ..networks import build_peer

# By the paper's spelling, the name in timm or torchvision.
TWINS = {
    "ACNet MobileNetV1": "mobilenetv1_100",
    "ACNet ResNet18": "resnet18",
    "ConViT-tiny": "convit_tiny",
    "ConvNeXt-B": "convnext_base",
    "ConvNeXt-S": "convnext_small",
    "ConvNeXt-T": "convnext_tiny",
    "DBBNet MobileNetV1": "mobilenetv1_100",
    "DBBNet ResNet18": "resnet18",
    "DeiT-tiny": "deit_tiny_patch16_224",
    "EdgeNeXt-S": "edgenext_small",
    "EdgeNeXt-XS": "edgenext_x_small",
    "EdgeNeXt-XXS": "edgenext_xx_small",
    "EfficientFormer-L1": "efficientformer_l1",
    "EfficientFormer-L3": "efficientformer_l3",
    "EfficientFormer-L7": "efficientformer_l7",
    "EfficientFormerV2-L": "efficientformerv2_l",
    "EfficientFormerV2-S0": "efficientformerv2_s0",
    "EfficientFormerV2-S1": "efficientformerv2_s1",
    "EfficientFormerV2-S2": "efficientformerv2_s2",
    "EfficientNet-B0": "efficientnet_b0",
    "EfficientNet-B3": "efficientnet_b3",
    "ExpandNet-CL MobileNetV1": "mobilenetv1_100",
    "FastViT-S12": "fastvit_s12",
    "FastViT-SA12": "fastvit_sa12",
    "FastViT-SA24": "fastvit_sa24",
    "FastViT-T12": "fastvit_t12",
    "FastViT-T8": "fastvit_t8",
    "GhostNet ×1.3": "ghostnet_130",
    "MNASNet-A1": "semnasnet_100",
    "MixNet-S": "mixnet_s",
    "MobileNetV1": "mobilenetv1_100",
    "MobileNetV2": "mobilenetv2_100",
    "MobileNetV2 ×1.4": "mobilenetv2_140",
    "MobileNetV2-x1.0": "mobilenetv2_100",
    "MobileNetV2-x1.4": "mobilenetv2_140",
    "MobileNetV2x1.0": "mobilenetv2_100",
    "MobileNetV2x1.4": "mobilenetv2_140",
    "MobileNetV3-L": "mobilenetv3_large_100",
    "MobileNetV3-S": "mobilenetv3_small_100",
    "MobileViT-S": "mobilevit_s",
    "MobileViT-XS": "mobilevit_xs",
    "MobileViT-XXS": "mobilevit_xxs",
    "MobileViTv2-1.0": "mobilevitv2_100",
    "MobileViTv2-2.0": "mobilevitv2_200",
    "PiT-ti": "pit_ti_224",
    "PiT-xs": "pit_xs_224",
    "PoolFormer-M36": "poolformer_m36",
    "PoolFormer-M48": "poolformer_m48",
    "PoolFormer-S12": "poolformer_s12",
    "PoolFormer-S24": "poolformer_s24",
    "PoolFormer-S36": "poolformer_s36",
    "RepVGG-A0": "repvgg_a0",
    "RepVGG-A1": "repvgg_a1",
    "RepVGG-B0": "repvgg_b0",
    "ResNet50": "resnet50",
    "ShuffleNetV2 ×1.5": "shufflenet_v2_x1_5",
    "ShuffleNetV2 ×2": "shufflenet_v2_x2_0",
    "ShuffleNetV2-x1.0": "shufflenet_v2_x1_0",
    "ShuffleNetV2-x2.0": "shufflenet_v2_x2_0",
    "Swin-B": "swin_base_patch4_window7_224",
    "Swin-B at 224": "swin_base_patch4_window7_224",
    "Swin-B at 384": "swin_base_patch4_window12_384",
    "Swin-L at 384, pretrained on ImageNet-22K": "swin_large_patch4_window12_384",
    "Swin-S": "swin_small_patch4_window7_224",
    "Swin-T": "swin_tiny_patch4_window7_224",
}


# The tables of networks as they classify; those of detectors count the detector, too.
CLASSIFIERS = (
    ("fasternet", "Table 3"),
    ("mobileone", "Table 4"),
    ("mobileone", "Table 8"),
    ("mobilevigv2", "Table 1"),
    ("rapidnet", "Table 2"),
    ("replknet", "Table 6"),
)

NEARLY = 0.02
OTHER_SIZES = (256, 288, 300, 320)
FULLY_CONVOLUTIONAL = ("fastvit", "efficientnet", "mobilevit")


def run(*, progress: bool = True) -> pd.DataFrame:
    """Counts every quoted peer that has a twin.

    Returns:
        A row per claim: `claim`, `subject`, the `twin`, `size`, `quantity`, `unit`, `paper` (its
        digits), `ours` as trained and `ours_as_run` in the paper's unit, timm's version, and
        `agrees`, a key of `COUNTS` with its pixels.
    """
    rows = quoted_sizes()
    rows = rows[rows["subject"].isin(TWINS)]
    told = []
    for row in tqdm(rows.to_dict("records"), disable=None if progress else True):
        twin, size = TWINS[row["subject"]], 224 if pd.isna(row["size"]) else int(row["size"])
        unit, printed = UNITS[row["unit"]], -int(row["paper_value"].as_tuple().exponent)
        paper, half = float(row["paper_value"]), 0.5 * 10**-printed + 1e-9
        plain, as_run = (value / unit for value in count(twin, size)[row["quantity"]])
        sizes = {size: "plain"}
        if row["quantity"] == "macs" and twin.startswith(FULLY_CONVOLUTIONAL):
            sizes |= {other: f"at {other} pixels" for other in OTHER_SIZES if other > size}
        agrees = "nearly" if abs(plain / paper - 1) <= NEARLY else "neither"
        for other in reversed(sizes):
            trained, run_as = (value / unit for value in count(twin, other)[row["quantity"]])
            if abs(run_as - paper) <= half:
                agrees = "as run" if other == size else sizes[other]
            if abs(trained - paper) <= half:
                agrees = sizes[other]
        told.append(
            {
                "claim": row["id"],
                "subject": row["subject"],
                "twin": twin,
                "size": size,
                "quantity": row["quantity"],
                "unit": row["unit"],
                "paper": str(row["paper_value"]),
                "ours": round(plain, printed + 2),
                "ours_as_run": round(as_run, printed + 2),
                "agrees": agrees,
            }
        )
    return pd.DataFrame(told).assign(timm=version("timm"))


def quoted_sizes() -> pd.DataFrame:
    """The claims about sizes of others' classifiers, in the tables of `CLASSIFIERS`."""
    claims = load_claims(mode="quoted")
    tables = pd.Series(list(zip(claims["paper"], claims["item"], strict=True)), claims.index)
    return claims[claims["quantity"].isin(["params", "macs"]) & tables.isin(CLASSIFIERS)]


@cache
def count(twin: str, size: int) -> dict[str, tuple[int, int]]:
    """Parameters and multiply-adds for one image, as trained and as run."""
    from timm.layers import set_fused_attn
    from timm.utils import reparameterize_model

    set_fused_attn(False)  # torch's counter sees matrix products, and not a fused attention's
    try:
        model = build_peer(twin).eval().requires_grad_(False)
        forms = (model, reparameterize_model(model))
        params = [count_parameters(form) for form in forms]
        macs = [count_macs(form, size) for form in forms]
    finally:
        set_fused_attn(True)
    return {"params": (params[0], params[1]), "macs": (macs[0], macs[1])}
