"""What holds the project together: its files, addresses, checks and the direction of imports."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import paperrepro

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS = PROJECT["urls"]["Repository"]
OWNER, NAME = ADDRESS.removeprefix("https://github.com/").split("/")

# A part imports only what lies below it; parts of one number do not know each other.
LAYERS = {
    "files": 0,
    "chains": 1,
    "ops": 1,
    "transforms": 1,
    "models": 2,
    "results": 2,
    "registry": 1,
    "seeds": 1,
    "shapes": 2,
    "signals": 1,
    "shards": 2,
    "datasets": 3,
    "plots": 3,
    "reparam": 3,
    "analysis": 4,
    "complexity": 4,
    "drawing": 4,
    "weights": 4,
    "dense": 5,
    "claims": 6,
    "networks": 6,
    "export": 7,
    "lessons": 7,
    "training": 7,
    "benchmark": 8,
    "figures": 9,
    "cli": 10,
}


def files():
    """Every file that is part of the project: tracked, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout, so there is no list of the project's files")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).exists()]


def lines():
    """Every line of text of the project, with its place."""
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def check_schema(schema, *paths):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *paths]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_workflows_follow_the_public_schema():
    workflows = sorted((ROOT / ".github/workflows").glob("*.yml"))
    assert {path.stem for path in workflows} >= {"ci", "pages", "release", "weekly"}
    check_schema("vendor.github-workflows", *workflows)
    check_schema("custom.github-workflows-require-timeout", *workflows)
    for path in workflows:
        text = path.read_text()
        used = re.findall(r"uses: (?!\./)(.*)", text)
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action) for action in used), path
        assert text.count("actions/checkout@") == text.count("persist-credentials: false"), path


def test_citation_follows_the_public_schema():
    check_schema("vendor.citation-file-format", ROOT / "CITATION.cff")


def test_every_mention_of_the_repository_has_the_one_address():
    mention = re.compile(
        r"github\.com/([\w.-]+)/(paperrepro|" + re.escape(NAME) + r")\b"
        r"|colab\.research\.google\.com/github/([\w.-]+)/([\w.-]+)"
        r"|([\w-]+)\.github\.io/(paperrepro|" + re.escape(NAME) + r")\b"
        r"|git\+https://github\.com/([\w.-]+)/([\w.-]+?)(?=[\"'@\s\\]|$)"
    )
    wrong, found = [], 0
    for place, line in lines():
        for match in mention.finditer(line):
            found += 1
            if [part for part in match.groups() if part] != [OWNER, NAME]:
                wrong.append(f"{place}: {match[0]}")
    assert not wrong, f"not {ADDRESS}:\n" + "\n".join(wrong)
    assert found >= 5


def test_data_stays_small():
    sizes = {path: path.stat().st_size for path in files() if ROOT / "data" in path.parents}
    assert sum(sizes.values()) < 25e6
    large = [str(path) for path, size in sizes.items() if size > 5e6]
    assert not large, large


def test_the_tools_the_owner_fixed_are_required():
    extras = PROJECT["optional-dependencies"]
    required = PROJECT["dependencies"] + sum(extras.values(), [])
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in required}
    tools = "torch torchvision jupyter jupyter-book matplotlib captum coremltools nbval"
    assert set(tools.split()) <= names
    pinned = [requirement for requirement in required if "==" in requirement]
    assert not pinned, "exact versions belong in constraints.txt"


def test_constraints_pin_every_requirement():
    def canonical(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    text = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in text if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    pinned = {canonical(pin.split("==")[0]) for pin in pins}
    required = PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), [])
    assert {canonical(re.match(r"[\w-]+", name)[0]) for name in required} <= pinned


@pytest.fixture
def release():
    """The script that writes the version on a release, as a module."""
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_version_stands_everywhere(release):
    assert paperrepro.__version__ == PROJECT["version"]
    mistakes = release.mistakes(paperrepro.__version__)
    assert not mistakes, "run 'make release': " + "\n".join(mistakes)


def test_a_release_changes_the_version_and_nothing_else(release, tmp_path, monkeypatch):
    old = {path: path.read_bytes() for path, _ in release.places()}
    old[ROOT / "CHANGELOG.md"] = (ROOT / "CHANGELOG.md").read_bytes()
    for path, content in old.items():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    release.write("12.34.5rc6")
    assert not release.mistakes("12.34.5rc6")
    assert release.dated("12.34.5rc6")
    release.write(PROJECT["version"])
    for path, content in old.items():
        if path.name not in ("CHANGELOG.md", "CITATION.cff"):
            assert (tmp_path / path.relative_to(ROOT)).read_bytes() == content


def test_a_tag_that_differs_is_refused():
    command = [sys.executable, ROOT / ".ci" / "release.py", "--check", "v12.34.5"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    for name in ("pyproject.toml", "paperrepro/__init__.py", "CHANGELOG.md", "book/intro.ipynb"):
        assert name in result.stderr


def test_make_lists_its_targets():
    listing = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = set(re.findall(r"^make (\w+) ", listing.stdout, re.MULTILINE))
    assert targets >= {"book", "html", "notebooks", "test", "lint", "lowest", "clean", "help"}


def test_a_comparison_without_assert_fails_the_style_check():
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "tests/snippet.py", "-"]
    snippet = "def test_shape():\n    x = 1\n    x == 2\n"
    result = subprocess.run(command, cwd=ROOT, input=snippet, capture_output=True, text=True)
    assert result.returncode == 1
    assert "B015" in result.stdout


def imports(path, source=None):
    """The parts of the package that a module imports, by the name of their file or folder."""
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(source or path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = start + (node.module.split(".") if node.module else [])
            names = [[*module, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "paperrepro":
                yield name[1] if len(name) > 1 and name[1] in LAYERS else ""


def modules():
    package = ROOT / "paperrepro"
    return [p for p in package.rglob("*.py") if p != package / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    part = path.relative_to(ROOT / "paperrepro").parts[0].removesuffix(".py")
    if part == "__main__":
        return
    assert part in LAYERS, f"say in {Path(__file__).name} where {part} belongs"
    for other in set(imports(path)) - {part}:
        if part == "cli" and not other:  # its version
            continue
        assert other, f"{part} imports the whole package, which imports {part}"
        assert LAYERS[other] < LAYERS[part], f"{part} imports {other}, which does not lie below it"


def test_no_import_is_left_out_of_the_direction():
    """An import inside a function counts as one at the top."""
    source = "def late():\n    from ..cli import app\n    return app\n"
    path = ROOT / "paperrepro" / "models" / "late.py"
    assert set(imports(path, source)) == {"cli"}


def test_readmes_table_is_what_the_networks_have():
    from paperrepro.complexity import stored_complexity
    from paperrepro.models import list_models, release_of

    table = re.findall(r"^\| (\w+_\w+) \| ([\d,. |]+) \|$", (ROOT / "README.md").read_text(), re.M)
    assert [name for name, _ in table] == list_models()
    for name, row in table:
        size = stored_complexity(name)
        counts = (size.params, size.params_fused, size.macs, size.macs_fused)
        assert row == " | ".join([*(f"{n:,}" for n in counts), str(release_of(name).top1)])


def test_readmes_examples_run():
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    names = {}
    for example in examples:
        exec(example, names)
    parameters = sum(p.numel() for p in names["detector"].parameters())
    assert len(examples) == 3 and round(parameters / 1e6, 1) == 5.6
    assert set(names["answer"]) == {"boxes", "labels", "scores", "masks"}
