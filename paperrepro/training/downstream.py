"""The papers' settings for detection and segmentation, by the head's name.

The papers train all of a network, BatchNorm included, synchronised unless said otherwise. A recipe
counts epochs; what a paper counts in steps is turned into epochs of the training pictures, and
`source` says what is left out by that, and what the paper leaves open.
"""

from typing import Any

Fields = dict[str, Any]

NO_WARM_UP = "Its linear warm-up of 500 steps is less than a tenth of an epoch, and left out here."


def mask_rcnn(paper: str, *, lr: float, batch: int, decay: float, drop: float) -> Fields:
    """Mask R-CNN on COCO, 12 epochs, a shorter side of 800 pixels and a longer of at most 1333."""
    return dict(
        source=f"{paper} {NO_WARM_UP}",
        config={"drop_path_rate": drop},
        epochs=12,
        batch_size=batch,
        optimizer="adamw",
        lr=lr,
        schedule="step",
        milestones=(8, 11),
        weight_decay=decay,
        size=800,
    )


def semantic_fpn(paper: str) -> Fields:
    """Semantic FPN on ADE20K: 40,000 steps of 32 crops are 63 epochs of its 20,210 pictures."""
    return dict(
        source=f"{paper} 40,000 steps of 32 crops of 512 pixels are 63.3 epochs. Open in the paper "
        "and taken from its released configuration: batch, weight decay, no warm-up.",
        epochs=63,
        batch_size=32,
        optimizer="adamw",
        lr=2e-4,
        schedule="poly",
        weight_decay=1e-4,
        size=512,
        sync_bn=True,
    )


def fasternet(name: str) -> dict[str, Fields]:
    settings = {"fasternet_s": (2e-4, 0.15), "fasternet_m": (1e-4, 0.2), "fasternet_l": (1e-4, 0.3)}
    if name not in settings:
        return {}
    lr, drop = settings[name]
    paper = "FasterNet, Table 7; BatchNorm is trained and not synchronised."
    return {"mask_rcnn": mask_rcnn(paper, lr=lr, batch=16, decay=1e-4, drop=drop)}


def local_global(name: str) -> dict[str, Fields]:
    """RapidNet's Table 3 and MobileViGv2's Table 2, which one code base trains."""
    settings = {
        "rapidnet_m": ("RapidNet, Sections 4.2 and 4.3.", 8, 0.05),
        "rapidnet_b": ("RapidNet, Sections 4.2 and 4.3.", 8, 0.05),
        "mobilevigv2_m": ("MobileViGv2, Sections 5.2 and 5.3.", 16, 0.05),
        "mobilevigv2_b": ("MobileViGv2, Sections 5.2 and 5.3.", 16, 1e-4),
    }
    if name not in settings:
        return {}
    paper, batch, decay = settings[name]
    open_there = (
        f"{paper} Batch ({batch}: one picture for each GPU) and weight decay are its released "
        "configuration's."
    )
    detect = mask_rcnn(open_there, lr=2e-4, batch=batch, decay=decay, drop=0.1)
    return {"mask_rcnn": detect | {"sync_bn": True}, "semantic_fpn": semantic_fpn(paper)}


def mobileone(name: str) -> dict[str, Fields]:
    ssdlite = dict(
        source="MobileOne, Appendix D. The head is MMDetection's, which the paper does not "
        "describe; its warm-up is 4,500 steps from a thousandth of the rate, 7.3 epochs.",
        epochs=200,
        batch_size=192,
        optimizer="sgd",
        lr=0.05,
        warmup_epochs=7,
        warmup_lr=5e-5,
        weight_decay=1e-4,
        size=320,
    )
    deeplabv3 = dict(
        source="MobileOne, Section 4.3 and Appendix E, on VOC and ADE20K. Open there: the head's "
        "width, the output stride and the batch (32 is chosen here). Its warm-up of 500 steps is "
        "one epoch here; its rate of the head, ten times the backbone's, is left out.",
        config={"se_blocks": [0, 0, 0, 0]} if name == "mobileone_s4" else {},
        epochs=50,
        batch_size=32,
        optimizer="adamw",
        lr=1e-4,
        warmup_epochs=1,
        min_lr=1e-6,
        weight_decay=0.01,
        ema=0.9995,
        size=512,
    )
    return {"ssdlite": ssdlite, "deeplabv3": deeplabv3}


def replknet(name: str) -> dict[str, Fields]:
    common: Fields = dict(optimizer="adamw", weight_decay=0.05, sync_bn=True)

    def upernet(source: str, epochs: int, batch: int, size: int, drop: float) -> Fields:
        return common | dict(
            source=f"RepLKNet, Section 4.4 and its released configuration: {source} The code's "
            "schedule falls in a straight line; poly's power is 0.9 here. Its warm-up of 400 to "
            "1,500 steps is one epoch or two.",
            config={"drop_path_rate": drop},
            epochs=epochs,
            batch_size=batch,
            lr=2e-4,
            schedule="poly",
            warmup_epochs=2,
            size=size,
        )

    def cascade(batch: int, drop: float) -> Fields:
        return common | dict(
            source="RepLKNet, Section 4.5 and its released configuration. Pictures of several "
            "sizes from 480 to 800 pixels, with crops, which is one size here. How many GPUs is "
            f"open: {batch} pictures a step are chosen here.",
            config={"drop_path_rate": drop},
            epochs=36,
            batch_size=batch,
            lr=4e-4,
            schedule="step",
            milestones=(27, 33),
            size=800,
        )

    if name == "replknet_31b":
        fcos = cascade(16, 0.5) | dict(
            source="RepLKNet, Section 4.5 and its released configuration: 24 epochs, a shorter "
            "side of 640 or 800 pixels, which is 800 here; how many GPUs of two pictures is open.",
            epochs=24,
            lr=2e-4,
            milestones=(16, 22),
            clip_grad=35.0,
        )
        return {
            "upernet": upernet("40,000 steps of 128 crops of ADE20K.", 253, 128, 512, 0.5),
            "upernet-cityscapes": upernet(
                "20,000 steps of 64 crops of Cityscapes.", 430, 64, 769, 0.5
            ),
            "fcos": fcos,
            "cascade_mask_rcnn": cascade(16, 0.6),
        }
    if name == "replknet_31l":
        return {
            "upernet": upernet("80,000 steps of 64 crops of ADE20K.", 253, 64, 640, 0.3),
            "cascade_mask_rcnn": cascade(16, 0.7),
        }
    if name == "replknet_xl":
        return {
            "upernet": upernet("160,000 steps of 32 crops of ADE20K.", 253, 32, 640, 0.5),
            "cascade_mask_rcnn": cascade(16, 0.5),
        }
    return {}
