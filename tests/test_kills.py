"""Gateway and devices, killed again and again at random moments, end with the right bits.

EDGEMETA_KILLS=300 in the environment makes it so many kills; EDGEMETA_KILLS_SEED changes the moments.
"""

import os
import random
import re
import time

import pytest
from processes import SPEC, assert_same_run, end, write_config
from runs import TINY

import edgemeta
from edgemeta.bench.loopback import start, start_gateway
from edgemeta.fed.runs import run_of

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("EDGEMETA_KILLS", "32"))
SEED = int(os.environ.get("EDGEMETA_KILLS_SEED", "1"))
DEVICES = 4  # the last one is held out


@pytest.fixture
def processes():
    """Processes by name; all are killed at the end."""
    running = {}
    yield running
    end(*running.values())


def test_killed_at_random_moments_it_ends_with_the_right_bits(tmp_path, processes):
    moments = random.Random(SEED)
    first, second = TINY["phases"]
    # More work than can be done while there are kills, whatever the machine.
    phases = [first | {"rounds": KILLS, "local_steps": 30}, second | {"rounds": 3 * KILLS, "local_steps": 60}]
    settings = TINY | {"phases": phases}
    config = write_config(tmp_path, settings | {"evaluation": TINY["evaluation"] | {"every": 4}})
    reference = edgemeta.simulate(config, out=tmp_path / "simulated")
    served, url = tmp_path / "served", ""

    def begin(who):
        nonlocal url
        if who == DEVICES:
            port = url.rpartition(":")[2] or 0  # once it is known, the same again
            processes[who], url = start_gateway(config, served, "--port", port)
            return
        processes[who] = start(
            *("client", "--server", url, "--data", SPEC, "--partition-id", who),
            *("--state", tmp_path / f"device{who}", "--name", f"board-{who}"),
            log=tmp_path / f"log-{who}",
        )

    for who in (DEVICES, *range(DEVICES)):
        begin(who)
    kills = 0
    while kills < KILLS:
        time.sleep(moments.uniform(0.05, 0.5))
        assert not (run_of(served) / "summary.json").exists(), f"over after {kills} kills: give it more rounds"
        # Mostly one of them, the gateway as often as a device; now and then all of them: a power cut.
        struck = range(DEVICES + 1) if moments.random() < 0.1 else [moments.choice([*range(DEVICES), DEVICES, DEVICES])]
        for who in struck:
            processes[who].kill()
        for who in reversed(struck):
            processes[who].communicate()
            begin(who)
        kills += len(struck)

    for who in range(DEVICES):
        assert processes[who].wait(timeout=60 + KILLS) == 0, (tmp_path / f"log-{who}").read_text()[-2000:]
    assert_same_run(served, tmp_path / "simulated")
    for who in range(DEVICES):
        text = (tmp_path / f"log-{who}").read_text()
        assert "Traceback" not in text
        assert edgemeta.load_model(tmp_path / f"device{who}" / "personal.safetensors").round == reference.model.round
        assert_nothing_accepted_was_asked_for_again(text)
    assert "Traceback" not in (tmp_path / "served.log").read_text()


def assert_nothing_accepted_was_asked_for_again(text: str) -> None:
    """A device that was told that its result is accepted has no work with the same round again."""
    delivered = set()
    for line in text.splitlines():
        if found := re.match(r"delivered the (update|evaluation) of round (\d+)", line):
            delivered.add(found.groups())
        elif found := re.match(r"trained (\d+) of \1 steps of round (\d+)", line):
            assert ("update", found[2]) not in delivered, line
        elif found := re.match(r"round (\d+): accuracy", line):
            assert ("evaluation", found[1]) not in delivered, line
    assert delivered
