"""The network as an ONNX file, checked by onnx and executed by ONNX Runtime.

    >>> report = export_onnx(model, "mobileone_s0.onnx", size=224)
    >>> report.error                       # of the saved file, at batches of 1 and of 3

The batch is free. With `quantize="int8"` weights and activations are 8-bit numbers, calibrated on
images (`paperrepro.benchmark.quantization` measures what that costs).
"""

import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .network import (
    Normalization,
    Outputs,
    WithNormalization,
    check_finite,
    golden_path,
    ready,
    relative_error,
    replace,
    save_golden,
    stored_bytes,
    writing,
)

OPSET = 18
"""The version of ONNX's operations: of 2022, the oldest that PyTorch's exporter writes."""


@dataclass(frozen=True)
class FileReport:
    """What was written.

    Attributes:
        path, golden: the file and the one beside it, with an image and PyTorch's outputs.
        format: "onnx", with its opset, or "executorch", with its delegates.
        parameters: of the network as it is run.
        error: relative L2 error of the outputs for the golden image, of the file that was saved,
            executed by its own runtime, against PyTorch's in float32.
        seconds: for all of it.
    """

    path: Path
    golden: Path
    format: str
    stored_bytes: int
    parameters: int
    error: float
    seconds: float


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike,
    *,
    size: int = 224,
    normalize: bool | Normalization = True,
    labels: Sequence[str] | None = None,
    quantize: str | None = None,
    images: Tensor | None = None,
    overwrite: bool = False,
) -> FileReport:
    """Write a network as an ONNX file, check it and execute it.

    Its input `image`, `(N, C, size, size)`, holds values of 0 to 1, and N is free.

    Args:
        model, size, normalize, labels: as `export_coreml` takes them; the labels go into the file's
            metadata.
        quantize: "int8" or None.
        images: uint8, `(N, C, size, size)`, on which "int8" is calibrated.

    Raises:
        ValueError: onnx, onnxscript or onnxruntime is missing, an argument that cannot be, or
            outputs that are not finite.
        OSError: the path exists, or cannot be written.
    """
    start = time.perf_counter()
    path = Path(path)
    need_onnx()
    check_quantize(quantize, images)
    with writing(path, ".onnx", overwrite) as folder:
        made = ready(model, size, normalize, labels)
        image, outputs = made.image / 255, made.outputs
        content = to_onnx(
            WithNormalization(made.network, made.preparation).eval(), image, list(outputs)
        )
        if quantize:
            assert images is not None  # `check_quantize`
            content = quantized(content, images / 255)
        content = described(content, labels)
        error = max(
            relative_error(execute(content, image.repeat(count, 1, 1, 1)), several)
            for count in (1, 3)
            for several in [{k: v.repeat(count, *[1] * (v.ndim - 1)) for k, v in outputs.items()}]
        )
        check_finite(error, path, "export without quantize=")
        written = folder / path.name
        written.write_bytes(content)
        save_golden(golden_path(written), made, labels)
        replace(written, path)
        replace(golden_path(written), golden_path(path))
    return FileReport(
        path=path,
        golden=golden_path(path),
        format=f"onnx, opset {OPSET}",
        stored_bytes=stored_bytes(path),
        parameters=sum(parameter.numel() for parameter in made.network.parameters()),
        error=error,
        seconds=time.perf_counter() - start,
    )


def check_quantize(quantize: str | None, images: Tensor | None) -> None:
    if quantize not in (None, "int8"):
        raise ValueError(f"unknown quantize {quantize!r}; use int8 or None")
    if quantize and (images is None or images.dtype != torch.uint8 or not len(images)):
        raise ValueError("int8 needs images=, uint8 (N, C, H, W), to calibrate its activations on")


def need_onnx() -> None:
    """Refuses where a library is missing."""
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if absent:
        raise ValueError(f'{", ".join(absent)} not installed: pip install "paperrepro[runtimes]"')


def to_onnx(
    model: nn.Module,
    images: Tensor,
    names: Sequence[str] = ("logits",),
    *,
    dynamic_batch: bool = True,
) -> bytes:
    """A network as an ONNX file, by way of `torch.export`; checked by onnx.

    Args:
        images: as the network takes them, `(N, C, H, W)`.
        names: of the outputs.
        dynamic_batch: leaves N free.
    """
    import onnx

    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},) if dynamic_batch else None
    example = images.expand(2, -1, -1, -1) if dynamic_batch and len(images) == 1 else images
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (example,),
            input_names=["image"],
            output_names=list(names),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # only dynamo=False gives none
    model_proto = program.model_proto
    for node in model_proto.graph.node:  # where in PyTorch it came from: a third of a small file
        del node.metadata_props[:]
    onnx.checker.check_model(model_proto)
    return model_proto.SerializeToString()


def described(content: bytes, labels: Sequence[str] | None) -> bytes:
    """The file with the names of the classes in its metadata, one a line."""
    import onnx

    model = onnx.load_from_string(content)
    model.producer_name = "paperrepro"
    if labels:
        onnx.helper.set_model_props(model, {"labels": "\n".join(labels)})
    return model.SerializeToString()


def quantized(content: bytes, images: Tensor, *, per_channel: bool = True) -> bytes:
    """The file with 8-bit weights and activations, by ONNX Runtime's static quantisation.

    Every operation that can be quantised is; weights are symmetric, activations from 0 to 255.

    Args:
        images: of 0 to 1, whose smallest and largest activations set the scales.
        per_channel: a scale for each channel of the weights, or one for all.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images:
        def __init__(self) -> None:
            self.left = iter(images.unsqueeze(1).numpy())

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image}

    with tempfile.TemporaryDirectory() as folder, quiet():
        plain, ready, small = (f"{folder}/{name}.onnx" for name in ("plain", "ready", "small"))
        Path(plain).write_bytes(content)
        quant_pre_process(plain, ready)
        quantize_static(
            ready,
            small,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
        return Path(small).read_bytes()


def session(content: bytes, threads: int = 0) -> Any:
    """A session of ONNX Runtime on the CPU; as many threads as PyTorch has for 0."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def execute(content: bytes, images: Tensor) -> Outputs:
    """The outputs of a file by ONNX Runtime, for images of 0 to 1."""
    opened = session(content)
    values = opened.run(None, {"image": images.contiguous().numpy()})
    names = [entry.name for entry in opened.get_outputs()]
    return {name: torch.from_numpy(v) for name, v in zip(names, values, strict=True)}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and reports of exporters."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield
