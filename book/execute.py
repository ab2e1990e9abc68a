"""Execute the book's notebooks and measure what each of them costs.

By default a fresh copy of the book is executed in build/book, two notebooks at a time with one
thread each. With --save the notebooks are executed in place, one at a time with two threads, so
that the costs and timings that are kept were measured undisturbed. With --check they are executed
once more, in a copy, with one thread: the cells that print the same as what is saved, which was
made with two, get the tag by which nbval compares their outputs, and the others lose it.
"""

import argparse
import asyncio
import csv
import os
import platform
import re
import shutil
import sys
import time
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from math import ceil
from pathlib import Path

import nbformat
import numpy as np
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from tqdm import tqdm

BOOK = Path(__file__).resolve().parent
COPY = BOOK.parent / "build" / "book"
COSTS = BOOK.parent / "data" / "results" / "chapter_costs.csv"
COST = ("seconds", "peak_memory_gb", "cpu_seconds")
MARGIN = {"cpu_seconds": 5, "peak_memory_gb": 0.1}
CHECKED = "nbval-check-output"
TIMED = re.compile(r"\d (?:µs|ms|s|seconds?|minutes?)\b")
ROUNDED = re.compile(r"\de-\d")  # an error of rounding is the processor's
CARD = re.compile(
    r"^\d+ s on two CPU cores · \d+\.\d GB of memory", re.MULTILINE
)


def notebooks(root):
    return sorted([*root.glob("*.ipynb"), *root.glob("solutions/*.ipynb")])


async def execute(path, workers, bar):
    """Execute one notebook; return it with its cost, or raise RuntimeError saying what failed."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []

    def advance(**_):
        bar.set_postfix_str(path.stem)
        bar.update()

    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_executed=advance,
    )
    async with workers:
        watch = asyncio.create_task(usage(client))
        start = time.perf_counter()
        try:
            await client.async_execute()
        except (
            CellExecutionError,
            CellTimeoutError,
            DeadKernelError,
        ) as error:
            raise RuntimeError(failure(path, notebook, error)) from None
        finally:
            seconds = time.perf_counter() - start
            watch.cancel()
    tidy(notebook)
    peak, cpu = await watch
    return notebook, {
        "seconds": ceil(seconds),
        "peak_memory_gb": f"{peak:.1f}",
        "cpu_seconds": ceil(cpu),
    }


async def usage(client):
    """Sample the kernel and its children until cancelled; return peak memory in GB, CPU seconds."""
    peak, cpu = 0.0, 0.0
    with suppress(asyncio.CancelledError):
        while True:
            with suppress(AttributeError, psutil.Error):
                memory, cpu = used(client.km.provisioner.pid)
                peak = max(peak, memory)
            await asyncio.sleep(0.1)
    return peak, cpu


def used(pid):
    """The memory in GB of a process and its children now, and its CPU seconds so far."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(p.memory_info().rss for p in family) / 1e9, sum(
        process.cpu_times()[:4]
    )


def reference_seconds():
    """CPU seconds of a fixed computation, half of it Python and half a matrix product."""
    matrix = np.ones((2048, 2048), np.float32)
    times = []
    for _ in range(5):
        start = time.process_time()
        sum(n % 7 for n in range(3_000_000))
        matrix @ matrix
        times.append(time.process_time() - start)
    return min(times)


def excess(memory, cpu, reference, card):
    """What a notebook costs beyond half as much again as its row of COSTS; None where it does not.

    Seconds of CPU are compared, each over those of the reference computation on the same machine:
    they change little with the number of threads, with other processes and with the machine, as
    seconds on the clock do. Below MARGIN a second or a megabyte is noise.
    """
    scale = reference / float(card["reference_seconds"])
    seconds = (
        1.5 * float(card["cpu_seconds"]) * scale + MARGIN["cpu_seconds"]
    )
    peak = 1.5 * float(card["peak_memory_gb"]) + MARGIN["peak_memory_gb"]
    if cpu > seconds:
        return f"{cpu:.0f} CPU seconds, and {seconds:.0f} are allowed on this machine"
    if memory > peak:
        return f"{memory:.1f} GB of memory, and {peak:.1f} GB are allowed"


def failure(path, notebook, error):
    code = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.source.strip()
    ]
    done = [cell for cell in code if cell.execution_count]
    cell = done[-1] if done else code[0]
    if isinstance(error, CellExecutionError):
        reason = f"{error.ename}: {error.evalue}"
    elif isinstance(error, CellTimeoutError):
        reason = "the cell ran for more than 600 s"
    else:
        reason = "the kernel died (out of memory?)"
    source = "\n".join(
        f"    {line}" for line in cell.source.splitlines()[:30]
    )
    return f"{path.name}, code cell {code.index(cell) + 1} of {len(code)}:\n{source}\n{reason}"


def tidy(notebook):
    """Leave in a notebook's metadata only what is the same after every run."""
    notebook.metadata.kernelspec = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for key in ("execution", "ExecuteTime", "collapsed"):
            cell.metadata.pop(key, None)


def printed(cell):
    """What a cell prints, as text and tables.

    None where that is nothing, a picture, or a time or an error of rounding, which change from
    machine to machine.
    """
    parts = []
    for output in cell.outputs:
        data = output.get("data", {})
        part = (
            output.get("text")
            or data.get("text/html")
            or data.get("text/plain", "")
        )
        if any(mark in part for mark in ("<img", "<svg", "<script")):
            return None
        parts.append(part)
    text = "".join(parts).strip()
    return (
        None if TIMED.search(text) or ROUNDED.search(text) else text or None
    )


def mark_stable(notebook, again):
    """Tags the cells that print the same in both executions.

    Returns how many they are, of how many that print, and the names of those that lose the tag.
    """
    stable, total, lost = 0, 0, []
    for cell, other in zip(notebook.cells, again.cells, strict=True):
        if cell.cell_type != "code":
            continue
        text = printed(cell)
        same = bool(text) and printed(other) == text
        total += bool(text)
        stable += same
        tags = cell.metadata.get("tags", [])
        if CHECKED in tags and not same:
            lost.append(cell.id)
        cell.metadata["tags"] = [tag for tag in tags if tag != CHECKED] + [
            CHECKED
        ] * same
        if not cell.metadata["tags"]:
            del cell.metadata["tags"]
    return stable, total, lost


def write_card(notebook, cost):
    card = f"{cost['seconds']} s on two CPU cores · {cost['peak_memory_gb']} GB of memory"
    first = notebook.cells[0]
    first.source = CARD.sub(card, first.source)


def save_costs(costs):
    rows = {}
    if COSTS.exists():
        with COSTS.open(newline="") as file:
            rows = {row["notebook"]: row for row in csv.DictReader(file)}
    provenance = {
        "reference_seconds": f"{reference_seconds():.3f}",
        "command": "python book/execute.py --save",
        "python": platform.python_version(),
        "torch": version("torch"),
        "processor": processor(),
        "date": date.today().isoformat(),
    }
    rows |= {
        name: {"notebook": name, **cost, **provenance}
        for name, cost in costs.items()
    }
    current = [
        rows[name] for name in map(name_of, notebooks(BOOK)) if name in rows
    ]
    COSTS.parent.mkdir(parents=True, exist_ok=True)
    with COSTS.open("w", newline="") as file:
        fields = ["notebook", *COST, *provenance]
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(current)


def name_of(path):
    return path.relative_to(BOOK).with_suffix("").as_posix()


def processor():
    with suppress(OSError, AttributeError):
        cpu = re.search(
            r"^model name\s*: (.+)",
            Path("/proc/cpuinfo").read_text(),
            re.MULTILINE,
        )
        return f"{cpu[1]}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


async def execute_all(paths, workers):
    workers = asyncio.Semaphore(workers)
    cells = sum(
        cell.cell_type == "code" and bool(cell.source.strip())
        for path in paths
        for cell in nbformat.read(path, as_version=4).cells
    )
    with tqdm(total=cells, unit="cell", desc="Executing the book") as bar:
        tasks = (execute(path, workers, bar) for path in paths)
        return await asyncio.gather(*tasks, return_exceptions=True)


def run(paths, threads, workers):
    os.environ |= {"OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": "0"}
    return asyncio.run(execute_all(paths, workers))


def check(saved, copies):
    """Tags the stable cells of the saved notebooks."""
    for path, again in zip(
        saved, run(copies, threads=1, workers=2), strict=True
    ):
        if isinstance(again, BaseException):
            sys.exit(f"\n{again}")
        notebook = nbformat.read(path, as_version=4)
        stable, total, lost = mark_stable(notebook, again[0])
        told = f"; these were: {', '.join(lost)}" if lost else ""
        print(
            f"{name_of(path)}: {stable} of {total} cells are stable{told}"
        )
        nbformat.write(notebook, path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="only these, say 'scorecard'",
    )
    parser.add_argument(
        "--save", action="store_true", help="in place, with costs recorded"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="tag the cells that print the same in one thread and in two",
    )
    args = parser.parse_args()

    known = {name_of(path): path for path in notebooks(BOOK)}
    if unknown := set(args.names) - set(known):
        parser.error(
            f"no notebook {', '.join(sorted(unknown))}; there are: {', '.join(known)}"
        )
    paths = [known[name] for name in args.names or known]
    saved = paths
    if not args.save:
        shutil.rmtree(COPY, ignore_errors=True)
        shutil.copytree(
            BOOK,
            COPY,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_*"),
        )
        paths = [COPY / path.relative_to(BOOK) for path in paths]

    if args.check:
        check(saved, paths)
        return
    results = run(
        paths, threads=2 if args.save else 1, workers=1 if args.save else 2
    )

    failures, costs = [], {}
    for name, path, result in zip(
        args.names or known, paths, results, strict=True
    ):
        if isinstance(result, BaseException):
            failures.append(str(result) or repr(result))
            continue
        notebook, cost = result
        print(f"{name}: {cost['seconds']} s, {cost['peak_memory_gb']} GB")
        if args.save:
            costs[name] = cost
            write_card(notebook, cost)
        nbformat.write(notebook, path)
    if args.save:
        save_costs(costs)
    if failures:
        sys.exit("\n\n".join(["", *failures]))


if __name__ == "__main__":
    main()
