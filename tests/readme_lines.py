"""Run every command line of README's, from a wheel, with only what README says is installed.

python tests/readme_lines.py dist/paperrepro-0.1.0-py3-none-any.whl

The lines stand in README's bash blocks. A block that installs the library begins a part, and its
extras are installed from the wheel; the blocks below it are run in an empty folder, in order, as a
reader would. What stands above the first such block is about the checkout and is CI's own job.
tests/test_readme.py looks at the same lines within a second, without running them.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
INSTALL = re.compile(r'^pip install "paperrepro(?:\[(?P<extras>[\w,-]+)\])? @ \S+"$')
# The only changes to a line: what README says takes minutes is made short.
QUICK = {"--recipe small": "--recipe small --set epochs=1 --set warmup_epochs=0"}


def parts(text: str) -> list[tuple[str, list[str]]]:
    """README's parts: the extras that each installs, and the lines to be run with them."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S):
        lines = block.replace("\\\n", " ").splitlines()
        lines = [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]
        installs = [m for m in (INSTALL.match(line.replace("'", '"')) for line in lines) if m]
        if installs:
            found.append((installs[0]["extras"] or "", []))
        elif found:
            found[-1][1].extend(lines)
    return found


def quick(line: str) -> str:
    for slow, short in QUICK.items():
        line = line.replace(slow, short)
    return line


def main(wheel: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scripts = Path(folder, "environment", "bin")
        venv.create(scripts.parent, with_pip=True)
        place = Path(folder, "reader")
        place.mkdir()
        environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
        environment.pop("PYTHONPATH", None)
        for extras, lines in parts(README.read_text(encoding="utf-8")):
            target = str(Path(wheel).resolve()) + f"[{extras}]" * bool(extras)
            for line in (f"python -m pip install -q '{target}'", *map(quick, lines)):
                print(f"$ {line}", flush=True)
                start = time.perf_counter()
                subprocess.run(["bash", "-c", line], cwd=place, env=environment, check=True)
                print(f"[{time.perf_counter() - start:.0f} s]", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
