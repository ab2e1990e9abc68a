"""The papers' training settings: of each network its recipes by name, the paper's first.

A recipe is a table of fields of `paperrepro.training.Recipe`. What a paper leaves open and its
released code says is taken from the code, and `source` says so.
"""

from typing import Any

from ..models import input_of
from . import downstream

Fields = dict[str, Any]
Recipes = dict[str, Fields]


def mobileone(name: str) -> Recipes:
    strong = name in ("mobileone_s2", "mobileone_s3", "mobileone_s4")
    paper = dict(
        source="MobileOne, Sections 3.4 and 4, Table 10. Open, and chosen here: no warm-up, no "
        "decay of norms and biases, bilinear crops.",
        epochs=300,
        batch_size=256,
        optimizer="sgd",
        lr=0.1,
        weight_decay=1e-4,
        final_weight_decay=1e-5,
        progressive=((0, 160, 0.3), (39, 192, 0.6), (114, 224, 1.0)),
        interpolation="bilinear",
        auto_augment=1.0 if strong else 0.0,
        label_smoothing=0.1,
        ema=0.9995,
        test_crop=input_of(name).crop,
    )
    return {"paper": paper} | downstream.mobileone(name)


# Table 6 by variant: weight decay, RandAugment's magnitude, MixUp's alpha, learning rate, batch
# size; and the norm of the gradient at which the released configuration clips.
FASTERNET = {
    "fasternet_t0": (0.005, 0, 0.05, 4e-3, 4096, None),
    "fasternet_t1": (0.01, 3, 0.1, 4e-3, 4096, None),
    "fasternet_t2": (0.02, 5, 0.1, 4e-3, 4096, None),
    "fasternet_s": (0.03, 7, 0.3, 4e-3, 4096, None),
    "fasternet_m": (0.05, 7, 0.5, 2e-3, 2048, 1.0),
    "fasternet_l": (0.05, 7, 0.7, 2e-3, 2048, 0.01),
}


def fasternet(name: str) -> Recipes:
    weight_decay, magnitude, mixup, lr, batch_size, clip_grad = FASTERNET[name]
    clipping = " The table clips no gradients; the released code of M and L does."
    paper = dict(
        source="FasterNet, Table 6; warm-up from 1e-6 and cosine to 1e-5 are the released code's."
        + (clipping if clip_grad else ""),
        epochs=300,
        batch_size=batch_size,
        optimizer="adamw",
        lr=lr,
        warmup_epochs=20,
        min_lr=1e-5,
        weight_decay=weight_decay,
        clip_grad=clip_grad,
        progressive=((0, 192, 1.0), (280, 224, 1.0)),
        rand_augment=magnitude,
        mixup=mixup,
        cutmix=1.0,
        label_smoothing=0.1,
        amp=True,
        test_crop=0.9,
    )
    return {"paper": paper} | downstream.fasternet(name)


def local_global(name: str) -> Recipes:
    """MobileViG, MobileViGv2 and RapidNet, which one code base trains."""
    paper = dict(
        source="MobileViGv2, Section 5.1, and RapidNet, Section 4.1. What they leave open (weight "
        "decay, warm-up, strengths, label smoothing, EMA, BatchNorm, RapidNet's batch) is the "
        "released code's. The code multiplies the papers' rate by batch_size / 1024: set lr=0.004 "
        "for that.",
        epochs=300,
        batch_size=2048,
        optimizer="adamw",
        lr=2e-3,
        warmup_epochs=20,
        min_lr=1e-5,
        weight_decay=0.05,
        interpolation="random",
        rand_augment=9,
        erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
        repeats=3,
        label_smoothing=0.1,
        ema=0.99996,
        amp=True,
        sync_bn=True,
        distillation="hard",
        teacher="timm:regnety_160.deit_in1k",
        test_crop=0.9,
    )
    return {"paper": paper} | downstream.local_global(name)


def replknet(name: str) -> Recipes:
    """RepLKNet's recipes: 120 epochs for the kernel sizes, 300 and more for the large networks."""
    base = dict(
        source="RepLKNet, Appendix A, 120 epochs; BatchNorm over all processes is the code's.",
        config={"drop_path_rate": 0.3},
        epochs=120,
        batch_size=2048,
        optimizer="adamw",
        lr=4e-3,
        warmup_epochs=10,
        weight_decay=0.05,
        rand_augment=9,
        erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
        label_smoothing=0.1,
        sync_bn=True,
        test_crop=0.875,
    )
    finetune = base | dict(
        source="RepLKNet, Appendix A, finetuning; weight decay 1e-8 is the released command's.",
        epochs=30,
        batch_size=512,
        lr=4e-4,
        warmup_epochs=1,
        weight_decay=1e-8,
        mixup=0.0,
        cutmix=0.0,
        ema=0.9999,
    )
    at_384 = {"size": 384, "test_crop": None}
    pretrain = base | dict(
        source="RepLKNet, Appendix A, pretraining on ImageNet-22K.",
        config={"drop_path_rate": 0.1},
        epochs=90,
        batch_size=4096,
    )
    if name == "replknet_31b":
        long = base | dict(
            source="RepLKNet, Appendix A, 300 epochs, drop-path 0.5. The released command also "
            "averages the weights: set ema=0.9999 for that.",
            config={"drop_path_rate": 0.5},
            epochs=300,
        )
        at_384_from_1k = finetune | dict(
            source="RepLKNet, Appendix A, finetuning at 384 pixels from the weights of 'paper'; "
            "weight decay, drop-path 0.8 and layer decay 0.7 are the released command's.",
            config={"drop_path_rate": 0.8},
            batch_size=1024,
            layer_decay=0.7,
            **at_384,
        )
        at_224_from_22k = finetune | dict(config={"drop_path_rate": 0.2})
        return {
            "paper": long,
            "120": base,
            "384": at_384_from_1k,
            "22k": pretrain,
            "22k-224": at_224_from_22k,
            "22k-384": finetune | at_384,
        } | downstream.replknet(name)
    if name == "replknet_31l":
        return {"paper": pretrain, "384": finetune | at_384} | downstream.replknet(name)
    if name == "replknet_xl":
        last = finetune | dict(
            source="RepLKNet, Appendix A, finetuning at 320 pixels after the private MegData73M; "
            "'following BEiT' leaves open what is taken from the finetuning of B and L here.",
            lr=1e-4,
            layer_decay=0.4,
            size=320,
            test_crop=input_of(name).crop,
        )
        return {"paper": last} | downstream.replknet(name)
    return {"paper": base}


def mobilenetv2(name: str) -> Recipes:
    paper = dict(
        source="RepLKNet, Appendix A, MobileNet V2 of Section 3; decay of norms and biases is left "
        "open there, and none is chosen here.",
        epochs=100,
        batch_size=256,
        optimizer="sgd",
        lr=0.1,
        warmup_epochs=5,
        weight_decay=4e-5,
        test_crop=0.875,
    )
    return {"paper": paper}
