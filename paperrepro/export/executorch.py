"""The network for ExecuTorch: a `.pte` file for XNNPACK, executed here by the phone's own runtime.

    pip install "paperrepro[executorch]"    # version 1.5.1 was tried, with torch 2.15
    >>> report = export_executorch(model, "mobileone_s0.pte", size=224)
    >>> report.error, report.format
    (7.2e-07, 'executorch, 1 delegate')

XNNPACK computes on the CPU, on iOS, Android and Linux alike, so what runs here is what runs on the
phone, up to the processor's instructions. One delegate means that it takes the whole network; each
further one is a hand-over between XNNPACK and ExecuTorch's own operations.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
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
from .onnx import FileReport, check_quantize

Run = Callable[[Tensor], list[Tensor]]


def export_executorch(
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
    """Write a network for ExecuTorch, and execute the file that was written.

    Its input, `(1, C, size, size)`, holds values of 0 to 1. The labels stand in the golden file.

    Args:
        model, size, normalize, labels: as `export_coreml` takes them.
        quantize: "int8", weights per channel and activations, or None.
        images: uint8, `(N, C, size, size)`, on which "int8" is calibrated.

    Raises:
        ValueError: executorch is missing, an argument that cannot be, or outputs that are not
            finite.
        OSError: the path exists, or cannot be written.
    """
    start = time.perf_counter()
    path = Path(path)
    need_executorch()
    check_quantize(quantize, images)
    with writing(path, ".pte", overwrite) as folder:
        made = ready(model, size, normalize, labels)
        image = made.image / 255
        captured = capture(WithNormalization(made.network, made.preparation).eval(), image)
        if quantize:
            assert images is not None  # `check_quantize`
            captured = quantized(captured, images / 255)
        content, delegates = lower(captured, image)
        written = folder / path.name
        written.write_bytes(content)
        executed = dict(zip(made.outputs, load(written)(image), strict=True))
        error = relative_error(executed, made.outputs)
        check_finite(error, path, "export without quantize=")
        save_golden(golden_path(written), made, labels)
        replace(written, path)
        replace(golden_path(written), golden_path(path))
    return FileReport(
        path=path,
        golden=golden_path(path),
        format=f"executorch, {delegates} delegate{'' if delegates == 1 else 's'}",
        stored_bytes=stored_bytes(path),
        parameters=sum(parameter.numel() for parameter in made.network.parameters()),
        error=error,
        seconds=time.perf_counter() - start,
    )


def need_executorch() -> None:
    """Refuses where the library is missing."""
    if find_spec("executorch") is None:
        raise ValueError('executorch is not installed: pip install "paperrepro[executorch]"')


def capture(model: nn.Module, images: Tensor) -> torch.fx.GraphModule:
    """The network's graph, by `torch.export`."""
    with quiet(), torch.no_grad():
        return torch.export.export(model, (images,)).module()


def quantized(
    captured: torch.fx.GraphModule, images: Tensor, *, per_channel: bool = True
) -> torch.fx.GraphModule:
    """The graph with 8-bit weights and activations, by torchao's PT2E and XNNPACK's quantizer.

    Args:
        images: of 0 to 1, whose smallest and largest activations set the scales.
        per_channel: a scale for each channel of the weights, or one for all.
    """
    with quiet():
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e import move_exported_model_to_eval
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        quantizer = XNNPACKQuantizer()
        quantizer.set_global(get_symmetric_quantization_config(is_per_channel=per_channel))
        prepared = prepare_pt2e(captured, quantizer)
        with torch.no_grad():
            for image in images.unsqueeze(1):
                prepared(image)
        return move_exported_model_to_eval(convert_pt2e(prepared))


def lower(captured: torch.fx.GraphModule, images: Tensor) -> tuple[bytes, int]:
    """A graph as a `.pte` file, and how many delegates it has.

    In a quantised graph slices are left to ExecuTorch: XNNPACK's, in 1.5.1, give a map of no
    channels (FasterNet's partial convolution), and the file fails when it is run.
    """
    with quiet(), torch.no_grad():
        from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = torch.export.export(captured, (images,))
        is_quantized = any("quantize" in str(node.target) for node in program.graph.nodes)
        configs = [
            config
            for config in ALL_PARTITIONER_CONFIGS
            if not (is_quantized and config.__name__ == "SliceCopyConfig")
        ]
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner(configs)])
        nodes = edge.exported_program().graph.nodes
        delegates = sum("call_delegate" in str(node.target) for node in nodes)
        return bytes(edge.to_executorch().buffer), delegates


def load(file: str | os.PathLike | bytes, threads: int = 0) -> Run:
    """A function that executes a file on images `(1, C, H, W)` of 0 to 1.

    The runtime has one pool of threads. Loading with another number makes a new pool, and what was
    loaded before, which still points to the old one, refuses to run.

    Args:
        threads: of the runtime; as many as PyTorch has for 0.
    """
    threads = threads or torch.get_num_threads()
    with quiet():
        from executorch.runtime import Runtime

        mine = pool_of(threads)
        source: Any = file if isinstance(file, bytes) else Path(file)
        program = Runtime.get().load_program(source)
        method = program.load_method("forward")

    def run(images: Tensor, kept: object = (source, program)) -> list[Tensor]:
        """`kept`: the method reads its weights there, and keeps neither alive."""
        if mine is not pool:
            raise ValueError(
                f"this file was loaded for {threads} threads, and another one since for another "
                "number, which ended them: load it again"
            )
        try:
            return [output.clone() for output in method.execute([images.contiguous()])]
        except RuntimeError as error:
            raise ValueError(
                f"ExecuTorch cannot execute the file: {error}; what it says itself stands above"
            ) from error

    return run


pool = object()
"""Stands for the threads that the runtime has now."""


def pool_of(threads: int) -> object:
    """The runtime's pool, of so many threads; a new one where it has another number."""
    global pool
    from executorch.extension.pybindings.portable_lib import (
        _threadpool_get_thread_count,
        _unsafe_reset_threadpool,
    )

    if _threadpool_get_thread_count() != threads:
        _unsafe_reset_threadpool(threads)
        pool = object()
    return pool


def executed(run: Run, images: Tensor, names: Sequence[str] = ("logits",)) -> Outputs:
    """The outputs of a loaded file for any number of images, one after the other."""
    rows = [run(image) for image in images.unsqueeze(1)]
    return {
        name: torch.cat(part) for name, part in zip(names, zip(*rows, strict=True), strict=True)
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the libraries print of themselves; the runtime writes past Python."""
    import logging
    import sys

    logging.disable(logging.WARNING)
    sys.stderr.flush()
    kept = os.dup(2)
    with (
        open(os.devnull, "w") as nowhere,
        warnings.catch_warnings(),
        redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            logging.disable(logging.NOTSET)
