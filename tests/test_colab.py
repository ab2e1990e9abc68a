"""The bootstrap cell where only Jupyter, NumPy and PyTorch are installed, as in Colab.

What a new environment holds is linked from this one, and the library's other requirements are
packed into wheels again, so that pip resolves and installs as it would there, without a network.
"""

import os
import re
import subprocess
import sys
import time
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
CHAPTER = "scorecard"
PREINSTALLED = ("jupyter", "numpy", "torch")


def needed(*requirements):
    """The distributions that these need, by name, and all that those need in turn."""
    found, open_ends = {}, [Requirement(text) for text in requirements]
    while open_ends:
        one = open_ends.pop()
        extras = one.extras or {""}
        dist = metadata.distribution(one.name)
        if found.get((dist.name, *extras)) is None:
            found[dist.name, *extras] = dist
            new = map(Requirement, dist.requires or [])
            open_ends += [
                r
                for r in new
                if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)
            ]
    return {dist.name: dist for dist in found.values()}


def own_files(dist):
    return [f for f in dist.files if ".." not in f.parts and f.suffix != ".pyc"]


def link(dist, site):
    for top in {file.parts[0] for file in own_files(dist)}:
        if not (site / top).exists():
            (site / top).symlink_to(dist.locate_file(top))


def pack(dist, folder):
    """The wheel that a distribution was installed from, less its scripts."""
    tag = re.findall(r"^Tag: (\S+)", dist.read_text("WHEEL"), re.MULTILINE)[-1]
    name = f"{dist.name.replace('-', '_')}-{dist.version}-{tag}.whl"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        for file in own_files(dist):
            wheel.write(dist.locate_file(file), file)


@pytest.mark.slow
def test_bootstrap_keeps_numpy_and_torch_and_the_chapter_runs(tmp_path):
    preinstalled = needed(*PREINSTALLED)
    others = needed("paperrepro[book]")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in others.keys() - preinstalled.keys() - {"paperrepro"}:
        pack(others[name], wheels)
    build = "-m pip wheel -q --no-deps --no-build-isolation --no-index -w".split()
    subprocess.run([sys.executable, *build, wheels, ROOT], check=True)
    own = next(wheels.glob("paperrepro-*.whl"))

    venv.create(tmp_path / "colab", with_pip=True)
    python = tmp_path / "colab" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    for dist in preinstalled.values():
        link(dist, Path(site.stdout.strip()))

    notebook = nbformat.read(ROOT / "book" / f"{CHAPTER}.ipynb", as_version=4)
    bootstrap = next(cell for cell in notebook.cells if cell.cell_type == "code")
    bootstrap.source, count = re.subn(r"@ git\S+", f'@ {own.as_uri()}"', bootstrap.source)
    assert count == 1
    nbformat.write(notebook, tmp_path / "chapter.ipynb")

    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    start = time.perf_counter()
    result = subprocess.run(
        [python, "-m", "nbconvert", "--to", "notebook", "--execute", "chapter.ipynb"],
        cwd=tmp_path,
        env=os.environ | offline,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    print(f"the chapter ran in {time.perf_counter() - start:.0f} s")

    listing = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    installed = dict(line.split("==") for line in listing.stdout.split())
    assert "paperrepro" in installed
    for name in ("numpy", "torch"):
        assert installed[name] == metadata.version(name)
        assert (Path(site.stdout.strip()) / name).is_symlink(), f"pip has replaced {name}"
