"""The depthwise convolution in Triton, run on the CPU by Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from paperrepro.ops import depthwise, depthwise_conv2d

pytest.importorskip("triton")


def check(shape, rows, columns):
    """Forward and gradients against float64."""
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(shape[1], 1, rows, columns, requires_grad=True)
    bias = torch.randn(shape[1])
    options = {"padding": (rows // 2, columns // 2), "groups": shape[1]}
    expected = F.conv2d(x.double(), weight.double(), bias.double(), **options)
    output = depthwise_conv2d(x, weight, bias, method="triton")
    assert (output - expected).abs().max() <= 1e-5 * expected.abs().max()
    direction = torch.randn(shape)
    found = torch.autograd.grad(output, (x, weight), direction)
    wanted = torch.autograd.grad(expected, (x, weight), direction.double())
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_forward_and_gradients():
    """Two tiles, two images, two channels; and a kernel that is larger than the map.

    In a process of its own: Triton is told before it is imported.
    """
    cases = "check((2, 2, 3, 35), 3, 5); check((1, 1, 5, 4), 7, 7)"
    result = subprocess.run(
        [sys.executable, "-c", f"from test_triton import check; {cases}"],
        cwd=Path(__file__).parent,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_the_benchmark_of_a_gpu():
    """Its code, in Triton's interpreter: both passes, and what the rows relate."""
    code = """
from paperrepro.benchmark import depthwise_gpu, latency
depthwise_gpu.compare = lambda calls, **_: latency.compare(calls, rounds=1, min_seconds=0)
table = depthwise_gpu.run(device="cpu", batch=1, channels=2, sides=(4,), kernels=(3, 5), quick=True)
assert [*table["pass"]] == ["inference"] * 2 + ["training"] * 2
assert [*table.kernel] == [3, 5] * 2
ours = table.triton / table[["channels_last"]].clip(lower=1).max(axis=1)
assert ours.sub(table.triton_over_best).abs().max() < 1e-9
assert (table.triton / table.limit - table.share_of_limit).abs().max() < 1e-9
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_it_runs_on_a_gpu_only(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    depthwise.choose.cache_clear()
    with pytest.raises(ValueError, match="runs on a GPU; these maps are on cpu"):
        depthwise_conv2d(torch.randn(1, 2, 9, 9), torch.randn(2, 1, 5, 5), method="triton")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
def test_on_a_gpu(dtype):
    x = torch.randn(4, 8, 32, 40, device="cuda", dtype=dtype)
    weight = torch.randn(8, 1, 31, 31, device="cuda", dtype=dtype)
    expected = F.conv2d(x.double(), weight.double(), padding=15, groups=8)
    output = depthwise_conv2d(x, weight, method="triton")
    assert (output - expected).abs().max() <= 2 * torch.finfo(dtype).eps * 31 * expected.abs().max()
