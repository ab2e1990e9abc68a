"""Some of the faults that `make faults` provokes by the thousand."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from faults import commands, modules
from faults import weights as files_of_weights
from faults._invocations import INVOCATIONS

from paperrepro.cli.console import stopped_by_signal
from paperrepro.files import write_atomically


def test_random_trees_of_modules_keep_their_function():
    tally = modules.attempt(400)
    assert tally.tried > 100 and tally.folded > 20
    assert not tally.wrong and not tally.uncaught, tally


def test_damaged_files_of_weights_are_told():
    tally = files_of_weights.attempt(300)
    assert not tally.wrong and not tally.uncaught, tally


def test_wrong_commands_end_in_one_line():
    """Those whose arguments tell; and every command with arguments at random."""
    long = ("train", "evaluate", "recipe", "salient", "benchmark")
    early = [each for each in INVOCATIONS if each[1] == 2 and not each[0].startswith(long)]
    tally = commands.attempt(60, chosen=early)
    assert tally.tried == 60 + len(early) > 90
    assert not tally.wrong and not tally.uncaught, tally


def test_no_file_takes_the_place_of_a_pipe_or_device(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="pipe.*no regular file"):
        write_atomically(pipe, "text")
    assert pipe.is_fifo() and [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_a_signal_that_a_library_swallows_is_told_at_the_end(capsys):
    with pytest.raises(SystemExit) as stop, stopped_by_signal(), suppress(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.code == 143
    assert "stopped" in capsys.readouterr().err


def test_a_signal_before_the_command_listens_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop, stopped_by_signal():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.code == 143
    assert capsys.readouterr().err == "paperrepro: stopped\n"


def test_a_full_disk_under_the_output_is_told():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "paperrepro", "claims"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("paperrepro: ") and "No space" in done.stderr
    assert len(done.stderr.splitlines()) == 1
