"""Two nodes, played by two torchruns that meet over loopback; a worker of one is killed.

torchrun ends the other worker, both meet again, and the training goes on from the last checkpoint.
The weights must be those of the same two nodes when nobody disturbs them, to the last bit.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from ._tally import Tally, main

ROOT = Path(__file__).parents[2]
TRAIN = (
    "train fasternet_t0 --data digits --recipe small --set epochs=6 --set warmup_epochs=1 "
    '--set config={"embed_dim":8,"depths":[1,1,1,1],"drop_path_rate":0.1} --minutes 0.02 --resume'
).split()

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "GLOO_SOCKET_IFNAME": "lo",
    # Otherwise a restarted process looks for its peers where the dead ones were, and waits.
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}


def nodes(run: Path, port: int) -> list[subprocess.Popen]:
    """Two torchruns of one process each."""
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
                *("--nproc-per-node", "1", "--max-restarts", "3", "--rdzv-backend", "c10d"),
                *("--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", str(port)),
                *("--local-addr", "127.0.0.1", "-m", "paperrepro", *TRAIN, "--out", str(run)),
            ],
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(2)
    ]


def finished(pair: list[subprocess.Popen]) -> tuple[list[int], str]:
    said = [node.communicate(timeout=300)[1] for node in pair]
    return [node.returncode for node in pair], "\n".join(said)


def attempt(count: int, seed: int) -> Tally:
    chance, tally = random.Random(seed), Tally("elastic")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        codes, said = finished(nodes(whole, 20000 + os.getpid() % 10000))
        assert codes == [0, 0], said
        expected = load_file(whole / "model.safetensors")
        for i in range(count):
            run = Path(folder) / str(i)
            pair = nodes(run, 31000 + (os.getpid() + i) % 10000)
            while not (run / "last.pt").exists() and all(node.poll() is None for node in pair):
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 1))
            workers = psutil.Process(pair[i % 2].pid).children()
            if not workers:
                tally.wrong.append(
                    f"node {i % 2} had no worker to kill\n{finished(pair)[1][-3000:]}"
                )
                continue
            os.kill(workers[0].pid, signal.SIGKILL)
            codes, said = finished(pair)
            tally.tried += 1
            if codes != [0, 0]:
                tally.wrong.append(f"node {i % 2}: return codes {codes}\n{said[-3000:]}")
                continue
            ours = load_file(run / "model.safetensors")
            if any(not torch.equal(ours[name], expected[name]) for name in expected):
                tally.wrong.append(f"node {i % 2}: other weights than undisturbed")
    return tally


if __name__ == "__main__":
    main(attempt, 2)
