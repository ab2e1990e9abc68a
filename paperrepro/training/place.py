"""Where a training runs: the machine's settings, this process among the others, its backends."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..files import pick_device
from .recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How the computing is done. What is learned is in the recipe.

    Attributes:
        device: "cpu", "cuda" or "mps"; None for a GPU where there is one.
        workers: processes per training process that prepare images.
        prefetch: batches that each of them prepares ahead.
        compile: the loss through `torch.compile`.
        channels_last: the images' layout in memory.
        tf32: an NVIDIA GPU multiplies float32 matrices with 10 bits of fraction, many times faster.
        deterministic: only deterministic kernels, and cuDNN measures none.
        grad_checkpointing: computes the blocks a second time in the backward pass, to save memory.
        minutes: between two checkpoints within an epoch; a kill loses no more.
        keep: how many epochs' checkpoints are kept beside the last two.
        log_every: steps between two looks at the losses, for each of which a GPU waits.
        wandb: a project of Weights & Biases that gets the log too; it is sent over the network.
    """

    device: str | None = None
    workers: int = 0
    prefetch: int = 2
    compile: bool = False
    channels_last: bool = True
    tf32: bool = True
    deterministic: bool = False
    grad_checkpointing: bool = False
    minutes: float = 10.0
    keep: int = 0
    log_every: int = 50
    wandb: str | None = None


@dataclass(frozen=True)
class Place:
    """This process among all that train together, and what it computes on."""

    rank: int
    world: int
    device: torch.device

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the CPU."""
        if self.world > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values.cpu()

    def gather(self, value: object) -> list:
        """A picklable value of every process, in the order of their ranks."""
        values: list = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block before the others: it alone downloads."""
        if self.rank > 0:
            self.barrier()
        yield
        if self.rank == 0:
            self.barrier()


class Consensus:
    """Whether any process wants something, known to all of them after the same step.

    The question goes out with one step and is answered at the next, so that nobody waits for it;
    over the CPU, so that no GPU does.
    """

    def __init__(self, place: Place) -> None:
        self.group: Any = dist.new_group(backend="gloo") if place.world > 1 else None
        self.asked: tuple[Any, Tensor] | None = None

    def any(self, wanted: bool) -> bool:
        """With several processes: whether any of them wanted it at the step before."""
        if self.group is None:
            return wanted
        answer = False
        if self.asked:
            work, flag = self.asked
            work.wait()
            answer = bool(flag.item())
        flag = torch.tensor(float(wanted))
        asked = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.group, async_op=True)
        self.asked = asked, flag
        return answer


@contextmanager
def process_group(device: str | None) -> Iterator[Place]:
    """This process's place among those that `torchrun` started, or alone.

    Raises:
        ValueError: `torchrun` would restart the processes, and they would wait for those that died.
    """
    picked = pick_device(device)
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        yield Place(0, 1, picked)
        return
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0))
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # PyTorch keeps one store for all restarts, with the addresses of the dead processes in it.
        raise ValueError(
            f"torchrun --max-restarts {restarts}: after a restart the processes would wait for the "
            "addresses of those that died; start torchrun with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment"
        )
    on_gpu = picked.type == "cuda"
    if on_gpu:
        picked = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(picked)
    # A validation or a download by one process may keep the others waiting.
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(hours=1))
    try:
        yield Place(dist.get_rank(), world, picked)
        dist.barrier()
    finally:
        dist.destroy_process_group()


@contextmanager
def backends(machine: Machine, place: Place) -> Iterator[None]:
    """PyTorch's settings for the machine, and afterwards those from before."""
    before = (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
    )
    if place.device.type == "cuda":
        torch.set_float32_matmul_precision("high" if machine.tf32 else "highest")
        torch.backends.cudnn.benchmark = not machine.deterministic
    if place.device.type == "cpu":
        keep_freed_memory()
    if machine.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]
        torch.use_deterministic_algorithms(before[2])


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep what this process frees, for as long as it lives.

    A step frees what the next one needs. By default the pages go back to the system and come again
    empty, which is up to a quarter of a small network's step on a CPU.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        if not libc.mallopt(M_MMAP_THRESHOLD, 2**30):  # before 2.35 no more than 32 MB
            libc.mallopt(M_MMAP_THRESHOLD, 2**25)


def mixed_precision(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    """What mixed precision computes in; None without. Float16 needs an NVIDIA GPU."""
    if not recipe.amp:
        return None
    if device.type == "cuda":
        return torch.bfloat16 if recipe.amp_dtype == "bfloat16" else torch.float16
    return torch.bfloat16
