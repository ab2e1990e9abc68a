"""A network as a Core ML package: re-parameterized, converted, and executed here once.

    >>> report = export_coreml(model, "mobileone_s0.mlpackage", size=224, labels=names)
    >>> report.error                       # of the saved file, executed by paperrepro.export.mil

The package takes an RGB image, scales it by 1/255 and normalises it; nothing is left to do in the
application. Beside it stands `NAME.golden.safetensors`, an image and PyTorch's logits, so that a
Mac or an iPhone can be compared (`paperrepro.export.mac`).
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..dense.predict import palette
from ..dense.segmenter import Segmenter
from ..models import Backbone, family_of
from . import mil
from .network import (
    Normalization,
    Outputs,
    Preparation,
    WithNormalization,
    channels_of,
    check_finite,
    first_line,
    golden_path,
    ready,
    relative_error,
    replace,
    save_golden,
    stored_bytes,
    writing,
)
from .package import coremltools, need_tensor, quiet
from .watch import Watch

PRECISIONS = ("float16", "float32")
TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18")
COMPUTE_UNITS = ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY")
PREVIEW = "com.apple.coreml.model.preview.params"

# Each with its function in coremltools.optimize.coreml, its configuration and the oldest target.
# Arrays of at most 2048 numbers stay as they are; in int4 also those whose input channels are no
# multiple of 32.
COMPRESSIONS: dict[str, tuple[tuple[str, str, str], dict[str, object]]] = {
    "int8": (
        ("linear_quantize_weights", "OpLinearQuantizerConfig", "iOS16"),
        {"mode": "linear_symmetric", "dtype": "int8"},
    ),
    "int4": (
        ("linear_quantize_weights", "OpLinearQuantizerConfig", "iOS18"),
        {
            "mode": "linear_symmetric",
            "dtype": "int4",
            "granularity": "per_block",
            "block_size": 32,
        },
    ),
    **{
        f"palette{bits}": (
            ("palettize_weights", "OpPalettizerConfig", "iOS16"),
            {"mode": "kmeans", "nbits": bits},
        )
        for bits in (8, 6, 4)
    },
    "palette4_grouped": (
        ("palettize_weights", "OpPalettizerConfig", "iOS18"),
        {"mode": "kmeans", "nbits": 4, "granularity": "per_grouped_channel", "group_size": 8},
    ),
    "palette4_channel": (
        ("palettize_weights", "OpPalettizerConfig", "iOS18"),
        {"mode": "kmeans", "nbits": 4, "granularity": "per_grouped_channel", "group_size": 1},
    ),
    "prune": (
        ("prune_weights", "OpMagnitudePrunerConfig", "iOS16"),
        {"target_sparsity": 0.5},
    ),
}


@dataclass(frozen=True)
class Settings(Preparation):
    """How a package was made, from its metadata.

    Attributes:
        image: whether the input is an image, or else a tensor of 0 to 1.
        channels: of the image: three, or one of a grey picture.
        outputs: the names of the outputs, `logits` for a classifier's and a segmenter's too.
        pixels: whether its answer is `classes`, the class of each pixel.
    """

    precision: str
    target: str
    image: bool
    compress: str | None
    channels: int = 3
    outputs: tuple[str, ...] = ("logits",)
    pixels: bool = False

    @classmethod
    def of(cls, program: mil.Program) -> "Settings":
        """Those of a package.

        Raises:
            ValueError: `export_coreml` did not make it.
        """
        try:
            settings = json.loads(program.metadata["paperrepro.settings"])
            listed = {k: tuple(v) for k, v in settings.items() if isinstance(v, list)}
            made = cls(**(settings | listed))
            if not (type(made.size) is type(made.channels) is int and type(made.image) is bool):
                raise TypeError("size and channels are numbers, image is true or false")
            check_arguments(made.size, made.precision, made.target, made.compress)
            return made
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{program.path} does not say how it was made, because export_coreml did not make "
                "it; mil.load executes it, verify_coreml needs one of ours"
            ) from error


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path, golden: the package and the file beside it.
        frontend: "torch.export", or "torch.jit.trace" with the reason for the fallback.
        operations: how many of each type the file holds, constants apart.
        stored_bytes: of the package.
        parameters: of the network as it is run.
        compressed: how many arrays of weights are compressed.
        error: relative L2 error of the outputs for the golden image: the file's, executed in its
            own precision, against PyTorch's.
        peak: the largest magnitude of any value in it; float16 ends at 65,504.
        seconds: for all of it.
    """

    path: Path
    golden: Path
    frontend: str
    operations: dict[str, int]
    stored_bytes: int
    parameters: int
    compressed: int
    error: float
    peak: float
    seconds: float


def export_coreml(
    model: nn.Module,
    path: str | os.PathLike,
    *,
    size: int = 224,
    precision: str = "float16",
    target: str = "iOS16",
    labels: Sequence[str] | None = None,
    normalize: bool | Normalization = True,
    compress: str | None = None,
    compute_units: str = "ALL",
    image: bool = True,
    overwrite: bool = False,
) -> ExportReport:
    """Write a network as a Core ML package, and execute the file that was written.

    The network is copied, re-parameterized and set to eval mode first: it may be in training mode,
    and it may be re-parameterized already. Nothing is left behind where anything fails.

    Args:
        model: one of ours, or another that maps `(1, 3, size, size)` (as many channels as its
            `in_chans` says) to logits `(1, classes)`, to a map of a segmenter
            `(1, classes, H, W)`, or to a list of maps.
        path: the folder to write, `NAME.mlpackage`.
        precision: "float16" or "float32", of weights and computation.
        target: the oldest system that runs it, one of `TARGETS`.
        labels: the names of the classes. With them a classifier's outputs are the label and a
            probability for each; a segmenter's is `classes` `(1, H, W)`, the class of each pixel,
            with names and colours in the metadata that Xcode's preview and the app read.
        normalize: True for the normalisation with which the released network of that name was
            evaluated (of another network: ImageNet's), a pair of mean and standard deviation, or
            False for none.
        compress: one of `COMPRESSIONS`, or None.
        compute_units: what the application should ask for, one of `COMPUTE_UNITS`. A package cannot
            say so to Core ML; it stands in the metadata, and `compare_on_mac` tries them all.
        image: whether the input is an image, or else a tensor of 0 to 1.
        overwrite: replaces a package that is there.

    Raises:
        ValueError: an argument that cannot be, a network that takes no images of that size, a
            missing coremltools, a conversion that fails, or values that leave the range of the
            precision.
        OSError: the path exists, or cannot be written.
    """
    start = time.perf_counter()
    path = Path(path)
    check_arguments(size, precision, target, compress, compute_units)
    with writing(path, ".mlpackage", overwrite) as folder:
        made = ready(model, size, normalize, labels)
        settings = Settings(
            **vars(made.preparation),
            precision=precision,
            target=target,
            image=image,
            compress=compress,
            channels=channels_of(model),
            outputs=tuple(made.outputs),
            pixels=labels is not None and made.outputs["logits"].ndim == 4,
        )
        check_image(settings)
        converted, frontend = convert(made.network, settings, labels)
        width = next(iter(made.outputs.values())).shape[1]
        describe(converted, model, made.network, width, compute_units)
        package = folder / path.name
        golden = golden_path(package)
        save(converted, package)
        program = mil.load(package)
        watch = Watch(path, precision)
        error = relative_error(outputs_of(program, made.image, precision, watch), made.outputs)
        check_finite(error, path, "its compressed weights do; use another method")
        save_golden(golden, made, labels)
        replace(package, path)
        replace(golden, golden_path(path))
    return ExportReport(
        path=path,
        golden=golden_path(path),
        frontend=frontend,
        operations=dict(Counter(operation.type for operation in program.operations)),
        stored_bytes=stored_bytes(path),
        parameters=sum(parameter.numel() for parameter in made.network.parameters()),
        compressed=sum(bool(constant.compression) for constant in program.constants.values()),
        error=error,
        peak=watch.peak,
        seconds=time.perf_counter() - start,
    )


def convert(
    network: nn.Module, settings: Settings, labels: Sequence[str] | None, batch: int = 1
) -> tuple[Any, str]:
    """The converted model, and the way by which it was converted.

    A phone sees one image at a time; the interpreter is faster with a larger batch.

    Raises:
        ValueError: neither `torch.export` nor tracing led to a model.
    """
    ct = coremltools()
    normalized = WithNormalization(network, settings, answer=labels is not None).eval()
    example = torch.rand(batch, settings.channels, settings.size, settings.size)
    if settings.image:
        layout = ct.colorlayout.RGB if settings.channels == 3 else ct.colorlayout.GRAYSCALE
        entry = ct.ImageType(name="image", shape=example.shape, scale=1 / 255, color_layout=layout)
    else:
        entry = ct.TensorType(name="image", shape=example.shape, dtype=np.float32)
    options: dict[str, Any]
    if settings.pixels:
        options = {"outputs": [ct.TensorType(name="classes", dtype=np.int32)]}
    elif labels:
        options = {"classifier_config": ct.ClassifierConfig(list(labels))}
    else:
        options = {
            "outputs": [ct.TensorType(name=name, dtype=np.float32) for name in settings.outputs]
        }
    reasons = []
    for frontend, capture in FRONTENDS.items():
        try:
            with quiet(), torch.no_grad():
                model = ct.convert(
                    capture(normalized, example),
                    convert_to="mlprogram",
                    inputs=[entry],
                    minimum_deployment_target=ct.target[settings.target],
                    compute_precision=ct.precision[settings.precision.upper()],
                    skip_model_load=True,
                    **options,
                )
        except Exception as error:  # the converters raise what they like
            reasons.append(f"{frontend}: {type(error).__name__}: {first_line(error)}")
            continue
        model = compressed(model, settings.compress)
        model.user_defined_metadata["paperrepro.settings"] = json.dumps(vars(settings))
        if settings.pixels and labels:
            model.user_defined_metadata.update(preview(labels))
        return model, "; but ".join([frontend, *reasons])
    raise ValueError(f"the network cannot be converted: {'; '.join(reasons)}")


def preview(labels: Sequence[str]) -> dict[str, str]:
    """Names and colours of a segmenter's classes, as Xcode's preview reads them."""
    colors = ["#" + bytes(color).hex() for color in palette(len(labels))]
    return {
        "com.apple.coreml.model.preview.type": "imageSegmenter",
        PREVIEW: json.dumps({"labels": list(labels), "colors": colors}),
    }


def exported(model: nn.Module, image: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model, (image,)).run_decompositions({})


FRONTENDS = {"torch.export": exported, "torch.jit.trace": torch.jit.trace}


def compressed(model: Any, method: str | None) -> Any:
    """The model with compressed weights.

    Raises:
        ValueError: a library that the method needs is missing.
    """
    if method is None:
        return model
    (function, config, _), options = COMPRESSIONS[method]
    from coremltools.optimize import coreml as optimize

    configuration = optimize.OptimizationConfig(global_config=getattr(optimize, config)(**options))
    try:
        with quiet():
            return getattr(optimize, function)(model, configuration)
    except ImportError as error:
        raise ValueError(
            f'{method} needs scikit-learn: pip install "paperrepro[export]"'
        ) from error


def outputs_of(
    program: mil.Program, images: Tensor, mode: str, hook: mil.Hook | None = None
) -> Outputs:
    """The outputs of a package of ours for images `(N, C, H, W)` of 0 to 255; of one that answers
    with labels the logits, which go into its softmax or argmax."""
    settings = Settings.of(program)
    (name,) = program.inputs
    names = {output: output for output in settings.outputs}
    if "logits" in names and "logits" not in program.outputs:
        (last,) = [each for each in program.operations if each.type in ("softmax", "reduce_argmax")]
        names["logits"] = str(last.inputs["x"])
    images = images.float() if settings.image else images / 255
    found: dict[str, list[Tensor]] = {output: [] for output in names}

    def keep(operation: mil.Operation, results: tuple[object, ...]) -> None:
        for output, wanted in names.items():
            if wanted in operation.outputs:
                index = list(operation.outputs).index(wanted)
                found[output].append(need_tensor(results[index]))
        if hook:
            hook(operation, results)

    for image in images:
        program({name: image.unsqueeze(0)}, mode, keep)
    return {output: torch.cat(rows) for output, rows in found.items()}


def logits_of(
    program: mil.Program, images: Tensor, mode: str, hook: mil.Hook | None = None
) -> Tensor:
    """The logits of `outputs_of`: `(N, classes)`, or of a segmenter `(N, classes, H, W)`."""
    return outputs_of(program, images, mode, hook)["logits"]


def labels_of(program: mil.Program) -> list[str] | None:
    """The names of the classes in their order, of a package that was given them."""
    if PREVIEW in program.metadata:
        return list(json.loads(program.metadata[PREVIEW])["labels"])
    for operation in program.operations:
        if operation.type == "classify":
            classes = mil.constant(program, operation.inputs["classes"])
            if classes is not None and isinstance(classes.value, list):
                return classes.value
    return None


def check_arguments(
    size: int, precision: str, target: str, compress: str | None, compute_units: str = "ALL"
) -> None:
    for name, value, allowed in (
        ("precision", precision, PRECISIONS),
        ("target", target, TARGETS),
        ("compute_units", compute_units, COMPUTE_UNITS),
        ("compress", compress, (None, *COMPRESSIONS)),
    ):
        if value not in allowed:
            known = ", ".join(map(str, filter(None, allowed)))
            raise ValueError(f"unknown {name} {value!r}; use one of {known}")
    if size < 1:
        raise ValueError(f"size is {size}; an image has at least one pixel")
    if compress:
        oldest = COMPRESSIONS[compress][0][-1]
        if TARGETS.index(target) < TARGETS.index(oldest):
            raise ValueError(f"{compress} needs target={oldest!r} or newer, not {target!r}")


def check_image(settings: Settings) -> None:
    if settings.image and settings.channels not in (1, 3):
        raise ValueError(
            f"a picture has one channel or three, and the network takes {settings.channels}: give "
            "image=False, and the application hands over a tensor"
        )


def describe(
    converted: Any, model: nn.Module, network: nn.Module, classes: int, compute_units: str
) -> None:
    """Write into the package what it is."""
    name, source = name_of(model), ""
    converted.license = "The weights are under their author's terms"
    if isinstance(model, Backbone):
        family = family_of(model.variant)
        source = str(family.paper or "")
        converted.license = "The code: MIT. The weights: MIT where paperrepro trained them"
        if model.variant and (release := family.releases.get(model.variant)):
            converted.license += f"; released ones: {release.page}"
    converted.short_description = f"{name}. {source}".strip()
    converted.author = "paperrepro"
    converted.version = version("paperrepro")
    converted.user_defined_metadata.update(
        {
            "paperrepro.network": name,
            "paperrepro.classes": str(classes),
            "paperrepro.parameters": str(
                sum(parameter.numel() for parameter in network.parameters())
            ),
            "paperrepro.weights_sha256": weights_sha256(model),
            "paperrepro.compute_units": compute_units,
        }
    )


def name_of(model: nn.Module) -> str:
    """A network's name; a segmenter's is that of its backbone and its head."""
    if isinstance(model, Segmenter) and model.blueprint:
        return f"{model.blueprint.backbone}-{model.blueprint.head}"
    return getattr(model, "variant", None) or type(model).__name__


def weights_sha256(model: nn.Module) -> str:
    """The checksum of the network's state dict, names and numbers, as it was handed over."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save(converted: Any, package: Path) -> None:
    with quiet():
        converted.save(str(package))
    (package / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
