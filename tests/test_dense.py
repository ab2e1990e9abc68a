"""Detectors and segmenters: every head with every family, the papers' counts, files, mistakes."""

import copy

import pytest
import torch
from conftest import randomize
from shallow import SHALLOW
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from paperrepro import create_model, reparameterize, save_model
from paperrepro.complexity import count_parameters
from paperrepro.dense import (
    build_body,
    build_detector,
    build_segmenter,
    freeze_norms,
    load_dense,
    save_dense,
)
from paperrepro.dense.counts import SmallOperations, count, dense_macs, paper_dense_parameters
from paperrepro.weights import WeightsError

SEGMENTERS = {"semantic_fpn": dict(pyramid=8, width=8), "upernet": dict(width=8), "deeplabv3": {}}
SMALL = dict(width=8, min_size=64, max_size=96)
REGIONS = dict(
    box_score_thresh=0.0,
    box_detections_per_img=5,
    box_batch_size_per_image=16,
    rpn_post_nms_top_n_train=50,
    rpn_post_nms_top_n_test=20,
)
PIXELS = dict(score_thresh=0.0, detections_per_img=5, topk_candidates=20)
DETECTORS = {
    "mask_rcnn": SMALL | REGIONS,
    "faster_rcnn": SMALL | REGIONS,
    "cascade_mask_rcnn": SMALL | REGIONS,
    "retinanet": SMALL | PIXELS,
    "fcos": SMALL | PIXELS | dict(width=32),
    "ssdlite": dict(size=64) | PIXELS,
}


def segmenter(backbone, head, classes=4, **options):
    return build_segmenter(
        backbone, head, classes, config=SHALLOW[backbone], **SEGMENTERS[head], **options
    )


def detector(backbone, head, classes=3):
    return build_detector(backbone, head, classes, config=SHALLOW[backbone], **DETECTORS[head])


def pictures(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator, dtype=dtype) for size in ((70, 91), (67, 80))]


def targets():
    boxes = torch.tensor([[5.0, 6, 40, 50], [30, 20, 66, 60]])
    found = []
    for image in pictures():
        masks = torch.zeros(2, *image.shape[1:], dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        found.append({"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks})
    return found


def norms(model):
    return sum(isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("head", SEGMENTERS)
@pytest.mark.parametrize("backbone", SHALLOW)
def test_segmenter(backbone, head, tmp_path):
    """Odd sizes, a step of training, fused = unfused, its file and the fused one's."""
    model = segmenter(backbone, head)
    images = torch.rand(2, 3, 71, 93)
    scores = model.train()(images)
    assert isinstance(scores, tuple) == (head == "upernet")
    every = scores if isinstance(scores, tuple) else (scores,)
    assert all(s.shape == (2, 4, 71, 93) for s in every)
    sum(s.square().mean() for s in every).backward()
    gradients = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not any(name.startswith(("head", "auxiliary")) for name in gradients)

    model.zero_grad()
    model = randomize(model).double()
    fused = reparameterize(model)
    images = images.double()
    assert (fused(images) - model(images)).abs().max() < 1e-9 * model(images).std()
    # FasterNet's maps have one each; torchvision's image pooling is no plain Sequential.
    assert norms(fused) == 4 * (backbone == "fasternet_t0") + (head == "deeplabv3")

    for saved in (model.float(), fused.float()):
        save_dense(saved, tmp_path / "model.safetensors")
        again = load_dense(tmp_path / "model.safetensors").eval()
        assert torch.equal(again(images.float()), saved(images.float()))
        assert again.reparameterized == saved.reparameterized


@pytest.mark.parametrize("head", DETECTORS)
@pytest.mark.parametrize("backbone", SHALLOW)
def test_detector(backbone, head, tmp_path):
    model = detector(backbone, head)
    losses = model.train()(pictures(), targets())
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    stem = next(model.backbone.body.parameters())
    assert stem.grad.isfinite().all() and stem.grad.any()

    model.zero_grad()
    model = model.eval().double()
    before = copy.deepcopy(model.state_dict())
    fused = reparameterize(model)
    images = pictures(torch.float64)
    found, fused_found = model(images), fused(images)
    for one, other in zip(found, fused_found, strict=True):
        assert len(one["boxes"]) > 0 and ("masks" in one) == ("mask" in head)
        for key in one:
            torch.testing.assert_close(other[key], one[key], rtol=1e-6, atol=1e-6)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert norms(fused) == len(model.backbone.body.channels) * (backbone == "fasternet_t0")

    save_dense(fused.float(), tmp_path / "model.safetensors")
    again, state = load_dense(tmp_path / "model.safetensors").eval(), fused.state_dict()
    assert all(torch.equal(state[key], value) for key, value in again.state_dict().items())
    assert torch.equal(again(pictures())[0]["boxes"], fused(pictures())[0]["boxes"])


def meta(build, *arguments, **options):
    with torch.device("meta"):
        return build(*arguments, **options)


# Parameters of heads on backbones, counted by hand from the papers' configurations.
PARAMETERS = {
    ("rapidnet_m", "mask_rcnn"): 36_170_197,
    ("rapidnet_b", "mask_rcnn"): 48_819_317,
    ("mobilevigv2_m", "mask_rcnn"): 34_329_013,
    ("mobilevigv2_b", "mask_rcnn"): 46_100_725,
    ("fasternet_s", "mask_rcnn"): 48_994_293,
}


@pytest.mark.parametrize(("backbone", "head"), PARAMETERS)
def test_counts_of_detectors(backbone, head):
    model = meta(build_detector, backbone, head, 80)
    assert count_parameters(model) == PARAMETERS[backbone, head]


def test_counts_of_segmenters():
    heads = {"rapidnet_m": 20_265_078, "mobilevigv2_b": 30_195_606}
    for backbone, expected in heads.items():
        model = meta(build_segmenter, backbone, "semantic_fpn", 150)
        assert count_parameters(model) == expected
    uper = meta(build_segmenter, "replknet_31b", "upernet", 150)
    assert paper_dense_parameters(uper) == 111_727_894
    assert count_parameters(uper.auxiliary) == 512 * 256 * 9 + 2 * 256 + 257 * 150


def test_the_small_operations_of_a_counter():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad(), SmallOperations() as small:
        net(torch.zeros(1, 3, 5, 6))
    assert (small.biases, small.norms, small.relus) == (6 * 30, 4 * 30, 4 * 30)


def test_operations_of_a_mask_rcnn_by_hand():
    model = meta(build_detector, "fasternet_s", "mask_rcnn", 80)
    body = count(model.backbone.body, (800, 1280))[0]
    pixels = [(800 // s) * (1280 // s) for s in (4, 8, 16, 32)]
    laterals = sum(p * c * 256 for p, c in zip(pixels, (128, 256, 512, 1024), strict=True))
    smooth = sum(pixels) * 256 * 256 * 9
    proposals = (sum(pixels) + 13 * 20) * (256 * 256 * 9 + 256 * 15)
    boxes = 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * 81 * 5)
    masks = 100 * (14 * 14 * 4 * 256 * 256 * 9 + 28 * 28 * (256 * 256 + 256 * 81))
    total = body + laterals + smooth + proposals + boxes + masks
    assert dense_macs(model, (800, 1280)) == total


def test_frozen_norms_stay_and_fold():
    model = randomize(segmenter("replknet_31b", "semantic_fpn")).double()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    before = model(images)
    frozen = freeze_norms(copy.deepcopy(model))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    torch.testing.assert_close(frozen(images), before)
    frozen.train()(images).mean().backward()
    torch.testing.assert_close(frozen.eval()(images), before)
    assert norms(reparameterize(frozen)) == 0


def test_maps_are_normalised_where_the_paper_has_it():
    for name, expected in (("fasternet_s", 4), ("replknet_xl", 4), ("replknet_31l", 0)):
        body = meta(build_body, name)
        assert len(body.norms or []) == expected
    assert meta(build_body, "fasternet_s", normalised=False).norms is None


MISTAKES = {
    "head": (lambda: build_segmenter("fasternet_t0", "pspnet"), "'pspnet'.*upernet"),
    "head of the other task": (lambda: build_detector("fasternet_t0", "upernet"), "mask_rcnn"),
    "backbone": (lambda: build_detector("fasternet_t9"), "fasternet_t9"),
    "classes": (lambda: build_segmenter("fasternet_t0", num_classes=0), "num_classes is 0"),
    "option": (lambda: build_detector("fasternet_t0", "fcos", sides=3), "sides"),
    "option of the backbone": (
        lambda: build_segmenter("fasternet_t0", config={"width": 3}),
        "width",
    ),
    "stride": (lambda: build_segmenter("fasternet_t0", "deeplabv3", output_stride=4), "4"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake):
    build, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        build()


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="build_segmenter"):
        save_dense(nn.Linear(1, 1), path)
    model = segmenter("fasternet_t0", "upernet")
    model.auxiliary = None
    save_dense(model, path)
    (plain := tmp_path / "plain").touch()
    assert path.stat().st_mode == plain.stat().st_mode, "as readable as any file"
    assert load_dense(path).auxiliary is None
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(WeightsError, match="truncated"):
        load_dense(path)
    path.write_bytes(content.replace(b"upernet", b"upernet"[::-1]))
    with pytest.raises(WeightsError, match="tenrepu"):
        load_dense(path)
    create = create_model("fasternet_t0", **SHALLOW["fasternet_t0"])
    save_model(create, path)
    with pytest.raises(WeightsError, match="no detector"):
        load_dense(path)
