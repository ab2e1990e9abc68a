"""Write a version wherever it stands, or check that it stands everywhere.

python .ci/release.py 0.2.0            write it, and date the changelog's section
python .ci/release.py --check v0.2.0   what the workflow asks of a tag before it publishes

The version stands in pyproject.toml, in the package, in CITATION.cff and where a line installs
the library from its git tag: README, CONTRIBUTING and the first code cell of every notebook. Only
those places are written; all else in a file stays as it is, byte by byte.
"""

import argparse
import re
import sys
import tomllib
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?"
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
    "Repository"
]
# What installs a release: the address and a tag, then a quote, a space or the end of the line.
INSTALL = re.compile(re.escape(f"git+{ADDRESS}") + rf"(?:@v(?P<version>{VERSION}))?(?=[\"'\\\s])")
FIELDS = {
    "pyproject.toml": re.compile(rf'^version = "(?P<version>{VERSION})"$', re.M),
    "paperrepro/__init__.py": re.compile(rf'^__version__ = "(?P<version>{VERSION})"$', re.M),
    "CITATION.cff": re.compile(rf"^version: (?P<version>{VERSION})$", re.M),
}
RELEASED = re.compile(r"^date-released: \"[\d-]+\"$", re.M)


def installing():
    """The files with lines that install the library from a git tag."""
    book = ROOT / "book"
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted([*book.glob("*.ipynb"), *book.glob("solutions/*.ipynb")]),
    ]


def places():
    """Every place of the version: the file, and the pattern that finds it there."""
    for name, pattern in FIELDS.items():
        yield ROOT / name, pattern
    for path in installing():
        yield path, INSTALL


def read(path):
    return path.read_bytes().decode("utf-8")


def write(version):
    for path, pattern in places():
        if pattern is INSTALL:
            new = f"git+{ADDRESS}@v{version}"
            text = INSTALL.sub(lambda _, new=new: new, read(path))
        else:
            text = pattern.sub(lambda m: m[0].replace(m["version"], version), read(path))
        if path.name == "CITATION.cff":
            text = RELEASED.sub(f'date-released: "{date.today()}"', text)
        path.write_bytes(text.encode("utf-8"))
    path = ROOT / "CHANGELOG.md"
    if not dated(version):
        text = read(path).replace(
            "## [Unreleased]\n", f"## [Unreleased]\n\n## [{version}] - {date.today()}\n", 1
        )
        path.write_bytes(text.encode("utf-8"))


def dated(version):
    """Whether the changelog has a section of this version that says something."""
    heading = re.escape(f"## [{version}]") + r" - \d{4}-\d\d-\d\d\n\s*(?!## )\S"
    return re.search("^" + heading, read(ROOT / "CHANGELOG.md"), re.M)


def mistakes(version):
    """Where another version stands, or none."""
    found = []
    for path, pattern in places():
        versions = [match["version"] for match in pattern.finditer(read(path))]
        if not versions or set(versions) != {version}:
            stands = ", ".join(sorted({str(v) for v in versions})) or "nothing"
            found.append(f"{path.relative_to(ROOT)}: {version} should stand here, not {stands}")
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version", help="0.2.0, say; or a tag, v0.2.0")
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args()
    version = args.version.removeprefix("v")
    if not re.fullmatch(VERSION, version):
        parser.error(f"{args.version!r} is no version such as 0.2.0 or 0.2.0rc1")
    if not args.check:
        write(version)
    found = mistakes(version)
    if not dated(version):
        found.append(f"CHANGELOG.md: no section '## [{version}] - DATE', or an empty one")
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
