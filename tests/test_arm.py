"""On ARM and on little memory, where the environment says with what: `.ci/run` sets these where it can.

EDGEMETA_ARM64_PYTHON, EDGEMETA_ARMHF_PYTHON: interpreters with NumPy, Pillow and click, emulated ones say.
EDGEMETA_PI_RUN: a program that runs a command in so much memory and so much of a core: PROGRAM MB PERCENT COMMAND...
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import end, write_config
from runs import TINY

import edgemeta
from edgemeta.bench.loopback import gateway, start

SMALL = "synthetic:samples=80,size=8"
PURE = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")  # pytest and what it needs


@pytest.fixture(params=["ARM64", "ARMHF"])
def python(request):
    """Return an ARM interpreter."""
    variable = f"EDGEMETA_{request.param}_PYTHON"
    if variable not in os.environ:
        pytest.skip(f"NOT TESTED: {request.param}, as {variable} names no Python")
    return os.environ[variable]


def test_the_tests_marked_for_boards_pass(python, tmp_path):
    """An emulated board has no pytest: it gets this interpreter's, which is Python only."""
    for name in PURE:
        if found := importlib.util.find_spec(name):
            path = Path(found.origin)
            path = path.parent if path.name == "__init__.py" else path
            (tmp_path / path.name).symlink_to(path)
    here = Path(__file__).parent
    done = subprocess.run(
        [
            *(python, "-B", "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", tmp_path / "base"),
            *("-m", "not counted"),  # what says nothing about ARM, and takes long where it is emulated
            *(path for path in here.rglob("test_*.py") if re.search("^pytestmark = .*board", path.read_text(), re.M)),
        ],
        capture_output=True,
        text=True,
        cwd=here.parent,
        env=os.environ | {"PYTHONPATH": f"{here.parent}:{tmp_path}"},
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def take_part(folder, board, spec):
    """Run a gateway with one device on this machine, and another that `board` starts; return what that said."""
    data = {"source": spec, "participants": 2, "partition": "iid"}
    config = write_config(folder, TINY | {"model": {"name": "cnn-small"}, "data": data})
    with gateway(config, folder / "served") as (_, url):
        logs, devices = [folder / f"log{k}" for k in range(2)], []
        try:
            for k, starts in enumerate((start, board)):
                arguments = ("client", "--server", url, "--data", spec, "--partition-id", k, "--name", f"board-{k}")
                devices.append(starts(*arguments, "--state", folder / f"device{k}", log=logs[k]))
            for device, log in zip(devices, logs, strict=True):
                assert device.wait(timeout=120) == 0, log.read_text()
        finally:
            end(*devices)
    assert edgemeta.load_model(folder / "device1" / "personal.safetensors").round == 4
    # Both counted in every round; sums of float32 products differ in the last bits from one machine to another.
    simulated, served = edgemeta.simulate(config), edgemeta.load_model(folder / "served" / "model.safetensors")
    np.testing.assert_allclose(served.theta, simulated.model.theta, atol=1e-4)
    assert not np.array_equal(served.theta, simulated.model.network.init(TINY["seed"]))
    return logs[1].read_text()


def test_a_device_takes_part_in_the_rounds_of_a_gateway_on_x86(python, tmp_path):
    take_part(tmp_path, lambda *arguments, **how: start(*arguments, executable=python, **how), SMALL)


@pytest.mark.skipif("EDGEMETA_PI_RUN" not in os.environ, reason="NOT TESTED: 256 MB, as EDGEMETA_PI_RUN names no tool")
def test_a_device_with_256_mb_and_a_quarter_of_a_core_takes_part(tmp_path):
    def board(*arguments, log):
        command = [os.environ["EDGEMETA_PI_RUN"], "256", "25", sys.executable, "-m", "edgemeta", *map(str, arguments)]
        with open(log, "w") as errors:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)

    said = take_part(tmp_path, board, "synthetic:samples=400")
    peak_mb = int(re.search(r"rc=0 peak=(\d+)MB of 256MB oom_kills=0", said)[1])
    assert peak_mb < 128, said
