"""Runs every script of this folder, two at a time, and prints the table."""

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LINE = re.compile(r"^(\S+) tried=(\d+) wrong=(\d+) uncaught=(\d+)$", re.M)


def run(name: str) -> tuple[str, float, subprocess.CompletedProcess[str]]:
    start = time.monotonic()
    command = [sys.executable, "-m", f"tests.faults.{name}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return name, time.monotonic() - start, done


def main() -> int:
    names = sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")
    )
    rows, failed = [], False
    with ThreadPoolExecutor(2) as pool:
        for name, seconds, done in pool.map(run, names):
            found = LINE.findall(done.stdout)
            print(f"--- {name}, {seconds:.0f} s\n{done.stdout}{done.stderr}", flush=True)
            failed |= bool(done.returncode) or not found
            rows += found or [(name, "?", "?", "?")]
    print(f"{'what':28}{'tried':>8}{'silently wrong':>16}{'uncaught':>10}")
    for what, *counts in rows:
        print(f"{what:28}{counts[0]:>8}{counts[1]:>16}{counts[2]:>10}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
