"""What a command shows of long work: nothing at first, then a bar on a terminal, and lines elsewhere."""

import os
import pty
import re
import subprocess
import sys

import pytest

from edgemeta.cli.report import Bar
from edgemeta.lengthy import lengthy, told

# What is long is slowed down, and what is short is shorter, so that neither is a matter of this machine.
SLOW = """
import sys, time
from edgemeta.cli.report import Bar
from edgemeta.nn import Model
sys.modules[Bar.__module__].SHORT_S = 0.2
forward = Model.forward
def slow(*arguments):
    time.sleep(0.12)
    return forward(*arguments)
Model.forward = slow
from edgemeta.cli import main
main()
"""


def test_who_listens_hears_of_each_and_nobody_else_does():
    heard = []
    with told(lambda *said: heard.append(said)):
        assert [*lengthy("counting", "ab")] == ["a", "b"]
    assert [*lengthy("counting", "ab")] == ["a", "b"]
    assert heard == [("counting", 1, 2), ("counting", 2, 2)]


def test_without_a_terminal_a_line_after_two_seconds_and_then_each_ten(capsys):
    shown = Bar(100.0)
    for now in (100.5, 101.9, 102.0, 103.0, 111.9, 112.0, 113.0):
        shown.show("reading pictures", int(10 * now), 2000, now)
    shown.clear()
    assert capsys.readouterr().err == "reading pictures: 1,020 of 2,000\nreading pictures: 1,120 of 2,000\n"


@pytest.mark.slow
def test_on_a_terminal_there_is_a_bar_and_nothing_of_it_is_left():
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SLOW, "evaluate", "start", "--data", "synthetic:samples=600"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    drawn = os.read(ours, 1 << 16).decode().split("\r\x1b[K")
    os.close(ours)
    assert drawn[0] == drawn[-1] == ""
    bars = [
        re.fullmatch(r"(?:looking at samples|scoring) \[(#*)(\.*)\] (\d+) of (\d+)", text) for text in drawn if text
    ]
    assert len(bars) > 1
    for bar in bars:
        full, empty, scored, count = bar.groups()
        assert (len(full), len(full) + len(empty)) == (24 * int(scored) // int(count), 24)
    assert done.stdout.startswith("120 test samples")
