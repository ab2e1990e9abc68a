"""The command line: invocations that were found by hand, and arguments at random.

None may end in a traceback, or in return code 0 with a number that is not finite. What takes long
is replaced; arguments are drawn for every option of every command.
"""

import os
import random
import re
import tempfile
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from typer.main import get_command
from typer.testing import CliRunner

from paperrepro.cli import app

from ._invocations import INVOCATIONS, prepare
from ._tally import Tally, main

NOT_FINITE = re.compile(r"(?<![\w.])[-+]?(nan|inf|infinity)(?![\w.])", re.I)
NUMBERS = ["0", "1", "-1", "2", "3", "32", "64", "nan", "inf", "1e9", "99999999999999999999", ""]
TEXTS = ["", "x", "None", "-1", "9", "a=b", "=", "é", "*", "fast*", "shapes", "cpu", "gpu", "table"]
PLACES = (
    "net.safetensors last.pt empty.safetensors noise.pt readme.txt latin broken.json list.json "
    "empty pictures pictures/0.png absent absent.pt out/table.csv out/picture.png out/net.mlpackage"
).split()
NAMES = ["fasternet_t0", "mobileone_s9", "resnet18", "fasternet_t0={here}/net.safetensors", "=", ""]
# So that no valid invocation takes long; what follows on the line counts.
SMALL = {
    "erf": "--size 64 --count 1",
    "similarity": "--size 32 --count 4",
    "approximate": "--size 32 --count 10 --steps 1 --seeds 1",
    "shape-bias": "--size 32 --count 16",
    "attribute": "--method saliency --size 32",
    "verify": "--count 1",
    "verify-networks": "--count 1",
}
NEVER = {"--download", "--help", "-h", "--install-completion", "--show-completion"}
TABLE = pd.DataFrame({"top1": [1.0], "top5": [2.0], "note": [""], "network": ["x"]})
LONG = (
    "paperrepro.training.train",
    "paperrepro.training.experiments.run_experiment",
    "paperrepro.complexity.complexity_table",
    "paperrepro.claims.reproduce.update_claims",
    "paperrepro.export.survey.run",
)


def paths(group, path=()):
    """Every command by the words that call it."""
    for name, command in getattr(group, "commands", {}).items():
        yield from paths(command, (*path, name))
    if path and not hasattr(group, "commands"):
        yield path, group


def value(parameter, chance: random.Random, here: Path) -> str:
    """What fits the parameter, mostly."""
    default = parameter.default
    numeric = isinstance(default, int | float) or getattr(parameter, "min", None) is not None
    if parameter.name in ("name", "names", "network", "networks") and chance.random() < 0.8:
        return chance.choice(NAMES).format(here=here)
    if isinstance(default, Enum) and chance.random() < 0.8:
        return chance.choice(list(type(default))).value
    if chance.random() < (0.9 if numeric else 0.1):
        return chance.choice(NUMBERS)
    return str(here / chance.choice(PLACES)) if chance.random() < 0.6 else chance.choice(TEXTS)


def drawn(path, command, chance: random.Random, here: Path) -> list[str]:
    words = list(path)
    for parameter in command.params:
        options = [option for option in parameter.opts if option.startswith("-")]
        if parameter.param_type_name == "argument":
            if parameter.required or chance.random() < 0.7:
                count = chance.choice([1, 1, 2]) if parameter.nargs == -1 else 1
                words += [value(parameter, chance, here) for _ in range(count)]
        elif not NEVER.intersection(options) and chance.random() < (
            0.9 if parameter.required else 0.25
        ):
            words.append(options[0])
            if not getattr(parameter, "is_flag", False):
                words.append(value(parameter, chance, here))
    if chance.random() < 0.05:
        words.append("--nowhere")
    return words + SMALL.get(path[0], "").split()


def check(words: list[str], result, tally: Tally) -> None:
    tally.tried += 1
    line = " ".join(words)
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        tally.uncaught.append(f"{line}\n{error!r}")
    elif result.exit_code == 0 and NOT_FINITE.search(result.stdout):
        tally.wrong.append(f"{line}: {NOT_FINITE.search(result.stdout)[0]} in the output")
    elif result.exit_code not in (0, 1, 2) or (result.exit_code and not result.stderr.strip()):
        tally.uncaught.append(f"{line}: ends with {result.exit_code}, {result.stderr[-200:]!r}")


def short(stack: ExitStack) -> None:
    """Puts something short in the place of what takes long."""
    for name in LONG:
        stack.enter_context(patch(name, return_value=TABLE))
    exported = ValueError("an export would begin here")
    stack.enter_context(patch("paperrepro.export.export_coreml", side_effect=exported))
    stack.enter_context(patch("paperrepro.datasets.COUNTS", (64, 64)))
    stack.enter_context(patch("paperrepro.cli.benchmark.report"))


def by_hand(tally: Tally, here: Path, chosen=INVOCATIONS) -> None:
    for words, code, fragment in chosen:
        with ExitStack() as stack:
            stack.enter_context(patch("paperrepro.datasets.COUNTS", (64, 64)))
            split = words.format(here=here).split(" ")
            result = CliRunner().invoke(app, split)
        check(split, result, tally)
        lines = result.stderr.replace("\r", "\n").strip().splitlines()
        if result.exit_code == 0:
            tally.wrong.append(f"{words}: accepted")
        elif result.exit_code != code or fragment not in result.stderr:
            tally.wrong.append(f"{words}: {result.exit_code}, {result.stderr[-300:]!r}")
        elif lines[-1].startswith("paperrepro: ") and sum(map(bool, lines)) > 2:
            tally.wrong.append(f"{words}: {len(lines)} lines")


def at_random(tally: Tally, here: Path, count: int, chance: random.Random) -> None:
    commands = list(paths(get_command(app)))
    (here / "out").mkdir(exist_ok=True)
    with ExitStack() as stack:
        short(stack)
        for number in range(count):
            words = drawn(*commands[number % len(commands)], chance, here)
            check(words, CliRunner().invoke(app, words), tally)


def attempt(count: int, seed: int = 0, chosen=INVOCATIONS) -> Tally:
    tally = Tally("commands")
    torch.manual_seed(0)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        os.chdir(folder)
        try:
            by_hand(tally, Path(folder), chosen)
            at_random(tally, Path(folder), count, random.Random(seed))
        finally:
            os.chdir(before)
    return tally


if __name__ == "__main__":
    main(attempt, 1000)
