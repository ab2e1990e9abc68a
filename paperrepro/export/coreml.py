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
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ..datasets import Shapes
from ..models import IMAGENET, Backbone, family_of
from ..reparam import reparameterize
from ..results import check_finite
from . import mil
from .package import coremltools, need_tensor, quiet

PRECISIONS = ("float16", "float32")
TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18")
COMPUTE_UNITS = ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY")

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
    "prune": (
        ("prune_weights", "OpMagnitudePrunerConfig", "iOS16"),
        {"target_sparsity": 0.5},
    ),
}

Normalization = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Settings:
    """How a package was made; it stands in its metadata.

    Attributes:
        mean, std: the normalisation inside, of images of 0 to 1; none where both are empty.
        image: whether the input is an image, or else a tensor of 0 to 1.
    """

    size: int
    precision: str
    target: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image: bool
    compress: str | None

    @classmethod
    def of(cls, program: mil.Program) -> "Settings":
        """Those of a package.

        Raises:
            ValueError: `export_coreml` did not make it.
        """
        try:
            settings = json.loads(program.metadata["paperrepro.settings"])
            pair = {key: tuple(settings[key]) for key in ("mean", "std")}
            return cls(**(settings | pair))
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
        error: relative L2 error of the logits of the golden image: the file's, executed in its own
            precision, against PyTorch's.
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
    seconds: float


class WithNormalization(nn.Module):
    """A network with the normalisation before it and, for a classifier, a softmax after it.

    Images `(N, 3, H, W)` of 0 to 1 to logits or probabilities `(N, classes)`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, settings: Settings, *, softmax: bool) -> None:
        super().__init__()
        self.network = network
        self.normalize = bool(settings.mean)
        if self.normalize:
            self.register_buffer("mean", torch.tensor(settings.mean).reshape(3, 1, 1))
            self.register_buffer("std", torch.tensor(settings.std).reshape(3, 1, 1))
        self.softmax = softmax

    def forward(self, images: Tensor) -> Tensor:
        if self.normalize:
            images = (images - self.mean) / self.std
        logits = self.network(images)
        return logits.softmax(-1) if self.softmax else logits


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
        model: one of ours, or another that maps `(1, 3, size, size)` to `(1, classes)`.
        path: the folder to write, `NAME.mlpackage`.
        precision: "float16" or "float32", of weights and computation.
        target: the oldest system that runs it, one of `TARGETS`.
        labels: the names of the classes. With them the package is a classifier: its outputs are the
            label and a probability for each.
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
            missing coremltools, or a conversion that fails.
        OSError: the path exists, or cannot be written.
    """
    start = time.perf_counter()
    path = Path(path)
    check_arguments(precision, target, compress, compute_units)
    if size < 1:
        raise ValueError(f"size is {size}; an image has at least one pixel")
    check_path(path)
    check_free(path, overwrite)
    check_finite(model.state_dict().items())
    mean, std = normalization(model, normalize)
    settings = Settings(size, precision, target, mean, std, image, compress)
    network = reparameterize(model).cpu().float()
    golden_image = Shapes(1, size, seed=0)[0][0].unsqueeze(0)
    logits = reference(network, settings, golden_image)
    check_labels(labels, logits)
    converted, frontend = convert(network, settings, labels)
    describe(converted, model, network, logits.shape[1], compute_units)
    with temporary_folder(path) as folder:
        package = Path(folder) / path.name
        golden = golden_path(package)
        save(converted, package)
        program = mil.load(package)
        executed = logits_of(program, golden_image, mode=precision)
        content = {"image": golden_image, "logits": logits}
        safetensors.torch.save_file(content, golden)
        replace(package, path)
        replace(golden, golden_path(path))
    return ExportReport(
        path=path,
        golden=golden_path(path),
        frontend=frontend,
        operations=dict(Counter(operation.type for operation in program.operations)),
        stored_bytes=package_bytes(path),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        compressed=sum(bool(constant.compression) for constant in program.constants.values()),
        error=relative_error(executed, logits),
        seconds=time.perf_counter() - start,
    )


def convert(
    network: nn.Module, settings: Settings, labels: Sequence[str] | None
) -> tuple[Any, str]:
    """The converted model, and the way by which it was converted.

    Raises:
        ValueError: neither `torch.export` nor tracing led to a model.
    """
    ct = coremltools()
    normalized = WithNormalization(network, settings, softmax=labels is not None).eval()
    example = torch.rand(1, 3, settings.size, settings.size)
    if settings.image:
        entry = ct.ImageType(name="image", shape=example.shape, scale=1 / 255)
    else:
        entry = ct.TensorType(name="image", shape=example.shape, dtype=np.float32)
    options: dict[str, Any]
    if labels:
        options = {"classifier_config": ct.ClassifierConfig(list(labels))}
    else:
        options = {"outputs": [ct.TensorType(name="logits", dtype=np.float32)]}
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
        return model, "; but ".join([frontend, *reasons])
    raise ValueError(f"the network cannot be converted: {'; '.join(reasons)}")


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


def reference(network: nn.Module, settings: Settings, images: Tensor) -> Tensor:
    """PyTorch's logits `(N, classes)` for images `(N, 3, H, W)` of 0 to 255.

    Raises:
        ValueError: the network does not take them, or does not give logits.
    """
    normalized = WithNormalization(network, settings, softmax=False)
    try:
        with torch.no_grad():
            logits = torch.cat([normalized(image.unsqueeze(0) / 255) for image in images])
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"the network takes no images of {settings.size} pixels: {first_line(error)}"
        ) from error
    check_finite([("the network's output", logits)])
    if logits.ndim != 2:
        raise ValueError(f"the network gives {tuple(logits.shape)}, not logits (N, classes)")
    return logits


def logits_of(
    program: mil.Program, images: Tensor, mode: str, hook: mil.Hook | None = None
) -> Tensor:
    """The logits `(N, classes)` of a package of ours for images `(N, 3, H, W)` of 0 to 255: its
    output or, of a classifier, what goes into the softmax."""
    (name,) = program.inputs
    wanted = "logits"
    if wanted not in program.outputs:
        (softmax,) = [operation for operation in program.operations if operation.type == "softmax"]
        wanted = str(softmax.inputs["x"])
    images = images.float() if Settings.of(program).image else images / 255
    logits: list[Tensor] = []

    def keep(operation: mil.Operation, results: tuple[object, ...]) -> None:
        if wanted in operation.outputs:
            logits.append(need_tensor(results[list(operation.outputs).index(wanted)]))
        if hook:
            hook(operation, results)

    for image in images:
        program({name: image.unsqueeze(0)}, mode, keep)
    return torch.cat(logits)


def labels_of(program: mil.Program) -> list[str] | None:
    """The names of a classifier's classes in their order."""
    for operation in program.operations:
        if operation.type == "classify":
            classes = mil.constant(program, operation.inputs["classes"])
            if classes is not None and isinstance(classes.value, list):
                return classes.value
    return None


def relative_error(logits: Tensor, expected: Tensor) -> float:
    """The largest relative L2 error of a row of logits."""
    difference = (logits.double() - expected.double()).norm(dim=1)
    return (difference / expected.double().norm(dim=1)).max().item()


def check_arguments(
    precision: str, target: str, compress: str | None, compute_units: str = "ALL"
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
    if compress:
        oldest = COMPRESSIONS[compress][0][-1]
        if TARGETS.index(target) < TARGETS.index(oldest):
            raise ValueError(f"{compress} needs target={oldest!r} or newer, not {target!r}")


def check_path(path: Path) -> None:
    if path.suffix != ".mlpackage":
        raise ValueError(f"{path} is no name for a package: it must end in .mlpackage")


def check_free(path: Path, overwrite: bool) -> None:
    for output in (path, golden_path(path)):
        if output.exists() and not overwrite:
            raise FileExistsError(f"{output} exists; choose another path, or overwrite it")


def check_labels(labels: Sequence[str] | None, logits: Tensor) -> None:
    if labels is None:
        return
    classes = logits.shape[1]
    if len(labels) != classes:
        raise ValueError(f"{len(labels)} labels for a network of {classes} classes")
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise ValueError(
            f"the label {twice[0]!r} stands for more than one class; a classifier's probabilities "
            "are listed by label, so make them different"
        )


def normalization(
    model: nn.Module, normalize: bool | Normalization
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel; empty for none."""
    if normalize is False:
        return (), ()
    if normalize is True:
        preparation = getattr(model, "input", None)
        return (preparation.mean, preparation.std) if preparation else IMAGENET
    mean, std = (tuple(map(float, values)) for values in normalize)
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"normalize is {normalize}; it takes three means and positive deviations")
    return mean, std


def describe(
    converted: Any, model: nn.Module, network: nn.Module, classes: int, compute_units: str
) -> None:
    """Write into the package what it is."""
    name = getattr(model, "variant", None) or type(model).__name__
    source = ""
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


def temporary_folder(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder beside the path, removed at the end.

    Raises:
        OSError: nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent)
    except OSError as error:
        raise OSError(f"cannot write to {path.parent}: {error.strerror or error}") from error


def replace(new: Path, path: Path) -> None:
    """Rename a file or folder to a path, in the place of what is there."""
    if path.is_dir():
        shutil.rmtree(path)
    new.replace(path)


def golden_path(path: Path) -> Path:
    """Where the golden input and output of a package stand."""
    return path.with_suffix(".golden.safetensors")


def package_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else "no reason given"
