"""Signals and kills at random moments: nothing is lost, and the end is told in one line.

SIGINT and SIGTERM in turn, to a process or to its whole group, while `paperrepro train` (without
workers and with two) or `paperrepro experiment --jobs 2` is at work; every third is a SIGKILL. Each
run is resumed until it is done. Its weights must be those of a run that nobody disturbed, to the
last bit; every end must have the code 128 + signal, no traceback, and be told in one line.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file

from ._tally import Tally, main

ROOT = Path(__file__).parents[2]
TRAIN = (
    "train mobileone_s1 --data digits --recipe small --set epochs=3 --set batch_size=32 "
    '--set config={"widths":[0.125,0.125,0.125,0.125],"blocks":[1,1,1,1]} --resume --minutes 0.01'
).split()
JOBS = {
    "train": [*TRAIN, "--out", "RUN"],
    "train, two workers": [*TRAIN, "--workers", "2", "--out", "RUN"],
    "experiment, two jobs": (
        "experiment fasternet-block --data DATA --seeds 1 --jobs 2 --runs RUN"
    ).split(),
}
BEFORE = 3.0
"""Seconds from the start in which Python imports itself, and no signal is sent."""

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


def start(words: list[str], run: Path, data: Path) -> subprocess.Popen:
    words = [{"RUN": str(run), "DATA": str(data)}.get(word, word) for word in words]
    return subprocess.Popen(
        [sys.executable, "-m", "paperrepro", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def pictures(folder: Path) -> Path:
    """A folder of two classes, twelve small pictures each."""
    from PIL import Image

    for label, shade in (("bright", 220), ("dark", 30)):
        for i in range(60):
            path = folder / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (shade + i % 30,) * 3).save(path)
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(run)} {name}": value
        for path in sorted(run.rglob("model.safetensors"))
        for name, value in load_file(path).items()
    }


def end_group(child: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def faults_of(child: subprocess.Popen, number: int, said: str) -> list[str]:
    """What is wrong with the end of a child after a signal."""
    if number == signal.SIGKILL:
        return [] if child.returncode == -number else [f"return code {child.returncode}"]
    wrong = []
    if child.returncode != 128 + number:
        wrong.append(f"return code {child.returncode} after signal {number}")
    if "Traceback" in said:
        wrong.append("a traceback")
    if said.count("paperrepro: stopped") != 1:
        wrong.append("not told in one line")
    return [f"{one}:\n{said[-1500:]}" for one in wrong]


def attempt(count: int, seed: int) -> Tally:
    moments, tally = random.Random(seed), Tally("signals")
    with tempfile.TemporaryDirectory() as folder:
        data = pictures(Path(folder) / "pictures")
        whole: dict[str, dict[str, torch.Tensor]] = {}
        seconds: dict[str, float] = {}
        for name, words in JOBS.items():
            began = time.monotonic()
            run = Path(folder) / f"whole {name}"
            child = start(words, run, data)
            said = child.communicate()[1]
            assert child.returncode == 0, said
            whole[name], seconds[name] = weights(run), time.monotonic() - began
        runs = dict.fromkeys(JOBS, 0)
        while tally.tried < count:
            number = KINDS[tally.tried % 3]
            name = moments.choice(list(JOBS))
            group = number != signal.SIGKILL and moments.random() < 0.5
            run = Path(folder) / f"{name} {runs[name]}"
            child = start(JOBS[name], run, data)
            time.sleep(moments.uniform(BEFORE, max(BEFORE + 0.5, seconds[name])))
            if child.poll() is None:
                (os.killpg if group else os.kill)(child.pid, number)
            what = f"{name}, {signal.Signals(number).name}{' to the group' if group else ''}"
            if number == signal.SIGKILL and child.wait() < 0:
                end_group(child)  # jobs that nobody waits for would first finish their run
            try:
                said = child.communicate(timeout=120)[1]
            except subprocess.TimeoutExpired:
                end_group(child)
                said = child.communicate()[1]
                tally.wrong.append(f"{what}: it went on for two minutes\n{said[-1500:]}")
            whole_already = not different(name, run, whole[name])
            if child.returncode == 0 or whole_already:  # done before the signal: not counted
                tally.wrong += different(name, run, whole[name])
                runs[name] += 1
                continue
            if child.returncode == -number != -signal.SIGKILL and not said:
                continue  # Python had not come to the command yet
            tally.tried += 1
            tally.wrong += [f"{what}: {fault}" for fault in faults_of(child, number, said)]
            print(f"{tally.tried} {what}: return code {child.returncode}", flush=True)
        for name, words in JOBS.items():
            run = Path(folder) / f"{name} {runs[name]}"
            child = start(words, run, data)
            said = child.communicate()[1]
            if child.returncode:
                tally.wrong.append(f"{name}, resumed: {said[-1500:]}")
            tally.wrong += different(name, run, whole[name])
    return tally


def different(name: str, run: Path, whole: dict[str, torch.Tensor]) -> list[str]:
    ours = weights(run)
    same = ours.keys() == whole.keys() and all(torch.equal(ours[k], whole[k]) for k in whole)
    return [] if same else [f"{name}: other weights than of the undisturbed run"]


if __name__ == "__main__":
    main(attempt, 40)
