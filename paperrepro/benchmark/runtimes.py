"""Where to run a trained network on a CPU: PyTorch's own ways, ONNX Runtime, OpenVINO, ExecuTorch.

A runtime is a function `(model, images) -> run`, which prepares the network for images of that
shape and for as many threads as PyTorch has; `run(images)` gives its logits. All compute in
float32. ONNX Runtime and OpenVINO get the same ONNX file, exported through `torch.export`.
"""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.util import find_spec

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..export.executorch import capture, load, lower
from ..export.onnx import to_onnx
from ..networks import find_network
from ..ops import tuning
from ..reparam import reparameterize
from .latency import compare, torch_threads
from .models import SIZE, as_run

try:  # PyTorch has no public names for these
    from torch._inductor import aoti_compile_and_package, aoti_load_package
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch._inductor.utils import fresh_inductor_cache
except ImportError:
    HAS_INDUCTOR = False
else:
    HAS_INDUCTOR = True

Run = Callable[[Tensor], Tensor]

CASES = (
    ("mobileone_s0", 1),
    ("mobileone_s0", 8),
    ("fasternet_t0", 1),
    ("mobilevigv2_ti", 1),
    ("rapidnet_ti", 1),
    ("mobilenetv2_100", 1),
)


def eager(model: nn.Module, images: Tensor) -> Run:
    """PyTorch as it is."""
    return inference(model)


def channels_last(model: nn.Module, images: Tensor) -> Run:
    """PyTorch with the channels of a pixel side by side; the images are converted at each call."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return inference(lambda images: model(images.contiguous(memory_format=torch.channels_last)))


def for_inference(model: nn.Module, images: Tensor) -> Run:
    """`reparameterize(model, for_inference=True)` in channels_last, its 1x1 convolutions and large
    kernels each by the way that is the fastest at the first call."""
    run = channels_last(reparameterize(model, for_inference=True), images)

    def tuned(images: Tensor) -> Tensor:
        with tuning("auto"):
            return run(images)

    return tuned


def jit(model: nn.Module, images: Tensor) -> Run:
    """TorchScript, traced, frozen and optimized: what PyTorch calls deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (FutureWarning, torch.jit.TracerWarning))
        traced = torch.jit.freeze(torch.jit.trace(model, images))
        return inference(torch.jit.optimize_for_inference(traced))


def compiled(model: nn.Module, images: Tensor) -> Run:
    """`torch.compile`, with the weights frozen into the program."""
    return inference(torch.compile(model, dynamic=False, options={"freezing": True}))


def aot_inductor(model: nn.Module, images: Tensor) -> Run:
    """AOTInductor: `torch.export`, then compiled ahead of time into a library of its own."""
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        program = torch.export.export(model, (images,))
        package = aoti_compile_and_package(
            program,
            package_path=f"{folder}/model.pt2",
            inductor_configs={"freezing": True},
        )
        return inference(aoti_load_package(package))


def onnx_runtime(model: nn.Module, images: Tensor) -> Run:
    """ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        to_onnx(model, images), options, providers=["CPUExecutionProvider"]
    )
    (entry,) = session.get_inputs()
    return lambda images: torch.from_numpy(session.run(None, {entry.name: images.numpy()})[0])


def openvino(model: nn.Module, images: Tensor) -> Run:
    """OpenVINO's CPU plugin; left alone it takes bfloat16 where the processor has it."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    network = core.compile_model(core.read_model(to_onnx(model, images)), "CPU", settings)
    return lambda images: torch.from_numpy(network(images.numpy())[0])


def executorch(model: nn.Module, images: Tensor) -> Run:
    """ExecuTorch, which runs on phones, with XNNPACK."""
    run = load(lower(capture(model, images), images)[0])
    return lambda images: run(images)[0]


RUNTIMES: dict[str, Callable[[nn.Module, Tensor], Run]] = {
    "eager": eager,
    "channels_last": channels_last,
    "for_inference": for_inference,
    "jit": jit,
    "compile": compiled,
    "aot_inductor": aot_inductor,
    "onnxruntime": onnx_runtime,
    "openvino": openvino,
    "executorch": executorch,
}
COMPILERS = ("compile", "aot_inductor")
OF_FUSED = ("for_inference", *COMPILERS)
PACKAGES = {
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "executorch": ("executorch",),
}
EXTRAS = {"executorch": "executorch"}  # of the others: runtimes


def run(
    cases: Sequence[tuple[str, int]] = CASES,
    runtimes: Sequence[str] = tuple(RUNTIMES),
    *,
    quick: bool = False,
    threads: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure the runtimes against each other.

    One interleaved comparison per network and batch: of the network as it is run (fused) in every
    runtime, and as it is trained (unfused) in those that neither fold it nor compile C++.

    Args:
        cases: networks that `networks.find_network` knows, each with a batch.
        runtimes: names in `RUNTIMES`; "eager" is measured in any case.
        quick: the first case only, and no runtime that compiles C++.

    Returns:
        One row per case, form and runtime: milliseconds, images per second, the times by which it
        is faster than eager PyTorch, unfused and fused; the largest difference (`error`) of its
        logits from those of eager PyTorch, unfused, over their standard deviation; the seconds
        (`prepare_s`) that it took to the first logits. An absent runtime has a `note` that says
        what is missing, and no numbers.

    Raises:
        ValueError: an unknown runtime or network.
    """
    for runtime in runtimes:
        check_name(runtime)
    runtimes = list(dict.fromkeys(["eager", *runtimes]))
    if quick:
        cases, runtimes = cases[:1], [name for name in runtimes if name not in COMPILERS]
    rows = []
    for name, batch in tqdm(cases, desc="Runtimes", disable=not progress):
        rows += run_case(name, batch, runtimes, threads, progress)
    return pd.DataFrame(rows)


def run_case(
    name: str, batch: int, runtimes: Sequence[str], threads: int, progress: bool
) -> list[dict[str, object]]:
    """The rows of one network and batch."""
    unfused = find_network(name).model.requires_grad_(False)
    forms = {"unfused": unfused, "fused": as_run(unfused)}
    images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    expected = eager(unfused, images)(images)
    rows, candidates = {}, {}
    for form, model in forms.items():
        for runtime in runtimes:
            if form == "unfused" and runtime in OF_FUSED:
                continue
            row = {"model": name, "batch": batch, "form": form, "runtime": runtime}
            row["note"] = missing(runtime)
            if not row["note"]:
                with torch_threads(threads), fresh_cache():
                    start = time.perf_counter()
                    prepared = prepare(runtime, model, images)
                    logits = prepared(images)
                    row["prepare_s"] = time.perf_counter() - start
                row["error"] = ((logits - expected).abs().max() / expected.std()).item()
                candidates[f"{form} {runtime}"] = partial(prepared, images)
            rows[f"{form} {runtime}"] = row
    label = f"{name}, batch {batch}" if progress else None
    comparison = compare(candidates, rounds=7, min_seconds=0.05, threads=threads, progress=label)
    for candidate in candidates:
        seconds = comparison[candidate].median
        rows[candidate] |= {
            "ms": seconds * 1e3,
            "spread": comparison[candidate].spread,
            "images_per_s": batch / seconds,
            "over_unfused": comparison.speed_up(candidate, "unfused eager"),
            "over_fused": comparison.speed_up(candidate, "fused eager"),
            "null": comparison.null,
        }
    return list(rows.values())


def prepare(runtime: str, model: nn.Module, images: Tensor) -> Run:
    """Prepare a network in eval mode for a runtime.

    >>> run = prepare("onnxruntime", paperrepro.reparameterize(model), images)
    >>> logits = run(images)

    Args:
        runtime: a name in `RUNTIMES`.
        images: `(N, 3, H, W)`, in NCHW; the runtime takes other images of that shape only.

    Raises:
        ValueError: the runtime is unknown, or something that it needs is missing.
    """
    check_name(runtime)
    if problem := missing(runtime):
        raise ValueError(problem)
    return RUNTIMES[runtime](model, images)


def check_name(runtime: str) -> None:
    if runtime not in RUNTIMES:
        raise ValueError(f"unknown runtime {runtime!r}; use one of {', '.join(RUNTIMES)}")


def missing(runtime: str) -> str:
    """What the runtime lacks here, and the remedy; nothing where it can run."""
    absent = [name for name in PACKAGES.get(runtime, ()) if find_spec(name) is None]
    if absent:
        extra = EXTRAS.get(runtime, "runtimes")
        return f'{", ".join(absent)} not installed: pip install "paperrepro[{extra}]"'
    if runtime in COMPILERS and not HAS_INDUCTOR:
        return f"torch {torch.__version__} has moved the compiler that this used up to 2.15"
    if runtime in COMPILERS:
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            return "no C++ compiler: install g++ or clang++"
    return ""


def fresh_cache() -> AbstractContextManager[object]:
    """A cache of its own for what is compiled, so that none of it was compiled before."""
    return fresh_inductor_cache() if HAS_INDUCTOR else nullcontext()


def inference(function: Run) -> Run:
    return torch.inference_mode()(lambda images: function(images))
