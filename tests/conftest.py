"""Helpers that several tests share."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import nn

from paperrepro.models.layers import Branches, LayerScale


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def browser():
    """The system's chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium or google-chrome on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id):
    """The book, built once for all workers as 'make html' builds it."""
    base = tmp_path_factory.getbasetemp()
    output = (base if worker_id == "master" else base.parent) / "site"
    with FileLock(f"{output}.lock"):
        if not (output / "built").exists():
            build_site(output)
            (output / "built").touch()
    return output / "_build" / "html"


def build_site(output):
    builder = shutil.which("jupyter-book", path=str(Path(sys.executable).parent))
    if builder is None:
        pytest.skip("jupyter-book is not installed in this environment")
    book = Path(__file__).parents[1] / "book"
    options = "-q -W -n --keep-going --path-output".split()
    command = [builder, "build", *options, output, book]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, "\n".join(re.findall(r".*(?:WARNING|ERROR).*", result.stderr))


@torch.no_grad()
def randomize(model: nn.Module) -> nn.Module:
    """Puts everything that re-parameterization folds away from its default: random weights,
    biases, layer scales and BatchNorm statistics, such that the signal keeps its strength through
    fifty layers, for the logits shall depend on the image. Returns the network in eval mode."""
    for module in model.modules():
        if isinstance(module, LayerScale):
            module.weight.uniform_(0.3, 0.7)
        elif isinstance(module, nn.BatchNorm2d):
            if module.affine:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                module.bias.normal_(0, 0.2)
    for module in model.modules():
        if isinstance(module, Branches):
            for norm in module.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.weight.div_(len(module) ** 0.5)
    return model.eval()


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference of two sets of logits over the standard deviation of the first."""
    return ((a - b).abs().max() / a.std()).item()


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The run of `training_runs.tiny` that nothing interrupted."""
    from training_runs import run_in_child, tiny

    run = tmp_path_factory.mktemp("runs") / "whole"
    child = run_in_child(tiny(), run)
    child.join()
    assert child.exitcode == 0
    return run
