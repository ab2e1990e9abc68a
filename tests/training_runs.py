"""Tiny trainings for the tests, in this process and in others that can be killed."""

import multiprocessing
import os
import resource
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.utils.data import Subset

from paperrepro.datasets import load_data
from paperrepro.training import Interrupted, Machine, find_recipe, train
from paperrepro.training.identity import content_digest
from paperrepro.training.task import Classification
from paperrepro.training.trainer import fit

# The server imports once what every child needs; so a child costs a fork.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["paperrepro.training", "sklearn.datasets"])


def few_digits(images=128):
    data = load_data("digits")
    return replace(data, train=Subset(data.train, range(images)), val=Subset(data.val, range(32)))


def tiny(**changes):
    """A network of 20,000 parameters, with BatchNorm, EMA and annealed weight decay."""
    recipe = find_recipe("mobileone_s1", "small")
    config = {"widths": [0.125, 0.125, 0.125, 0.125], "blocks": [1, 1, 1, 1]}
    settings = {"config": config, "batch_size": 32, "epochs": 4, "ema": 0.9, "mixup": 0.2}
    return replace(recipe, **(settings | changes))


def without_batch_norm(**changes):
    recipe = find_recipe("fasternet_t0", "small")
    config = {"embed_dim": 8, "depths": [1, 1, 1, 1], "norm": "layer", "drop_path_rate": 0.0}
    settings = {"config": config, "batch_size": 32, "epochs": 2, "lr": 1e-3}
    return replace(recipe, **(settings | changes))


class Signalling(torch.utils.data.Dataset):
    """Sends this process a signal when the n-th image is asked for."""

    def __init__(self, images, moment, signal=signal.SIGTERM):
        self.images, self.left, self.signal = images, moment, signal

    def content_digest(self):
        return content_digest(self.images)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.signal)
        return self.images[index]


def run_in_child(recipe, run, *, faults=(), begun=None, **machine):
    """A child process that trains, with its faults: ("last.pt", n) kills it when a file is about to
    take that name for the n-th time, ("image", n) at its n-th image, ("group", s) sends the signal
    to all its processes in the second epoch, ("disk", bytes) lets no file grow beyond that."""
    child = CHILDREN.Process(target=in_child, args=(recipe, str(run), faults, begun, machine))
    child.start()
    return child


def in_child(recipe, run, faults, begun, machine):
    torch.set_num_threads(1)
    os.setpgrp()
    data = few_digits()
    for fault, number in faults:
        if fault == "disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
        elif fault == "image":
            data = replace(data, train=Signalling(data.train, number, signal.SIGKILL))
        elif fault == "group":
            at_renaming("last.pt", 1, partial(os.killpg, 0, number))
        else:
            at_renaming(fault, number, partial(os.kill, os.getpid(), signal.SIGKILL))
    if begun:
        begun.set()
    try:
        train(recipe, data, run, resume=True, machine=Machine(**machine), progress=False)
    except OSError as error:
        Path(f"{run}.error").write_text(str(error))
    except Interrupted as stop:
        Path(f"{run}.stopped").write_text(str(stop))


def at_renaming(name, number, do):
    """Does something before a file takes that name for the n-th time. Python announces every
    renaming, by whatever function, as the event "os.rename"."""
    left = number

    def watch(event, arguments):
        nonlocal left
        if event == "os.rename" and Path(os.fsdecode(arguments[1])).name == name:
            left -= 1
            if left == 0:
                do()

    sys.addaudithook(watch)


def in_two_processes(recipe, run, make_task=None):
    """Two child processes that train together: digits, or what `make_task` makes of the recipe."""
    arguments = [(rank, recipe, run, make_task) for rank in (0, 1)]
    children = [CHILDREN.Process(target=worker, args=each) for each in arguments]
    for child in children:
        child.start()
    return children


def worker(rank, recipe, run, make_task):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(20000 + os.getppid() % 20000),
    }
    task = make_task(recipe) if make_task else Classification(recipe, few_digits())
    fit(task, run, progress=False, machine=Machine(device="cpu"))


def same_weights(run, other):
    ours, theirs = (load_file(each / "model.safetensors") for each in (run, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def largest_difference(run, other):
    ours, theirs = (load_file(each / "model.safetensors") for each in (run, other))
    return max((ours[key] - theirs[key]).abs().max().item() for key in ours)
