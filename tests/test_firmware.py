"""The firmware scripts in devices/, each against a real gateway; no test machine has a camera or GPIO."""

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from processes import write_config

import edgemeta
from edgemeta.bench.loopback import gateway
from edgemeta.fed.runs import runs

pytestmark = pytest.mark.slow

DEVICES = Path(edgemeta.__file__).parent.parent / "devices"


def run_of(folder, shape, classes, local_steps=4):
    """Write the configuration of a short run with one device."""
    settings = {
        "model": {"name": "mlp", "input_shape": list(shape), "classes": classes if classes == "own" else list(classes)},
        "data": {"participants": 1},
        "phases": [
            {
                "algorithm": "protonet" if classes == "own" else "fedavg",
                "rounds": 2,
                "local_steps": local_steps,
                "batch_size": 8,
            }
        ],
        "server": {"min_fit_clients": 1},
        "evaluation": {"every": 2},
    }
    return write_config(folder, settings)


def script(name, *arguments, cwd, status=0):
    command = [sys.executable, str(DEVICES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def assert_finished(folder):
    assert (runs(folder / "served")[-1] / "summary.json").exists()
    assert edgemeta.load_model(folder / "edgemeta-state" / "personal.safetensors").round == 2


@pytest.mark.parametrize("classes", [("empty", "visitor"), "own"], ids=["common", "own"])
def test_the_camera_learns_from_a_folder_that_grows(tmp_path, classes):
    config = run_of(tmp_path, (32, 32, 3), classes)
    with gateway(config, tmp_path / "served") as (_, url):
        done = script("camera.py", "--server", url, "--every", 0.01, cwd=tmp_path)
    assert_finished(tmp_path)
    assert "no camera (" in done.stderr
    assert "apt install python3-picamera2" in done.stderr
    assert re.search(r"waiting for this device's data: .* samples are too few", done.stderr)  # it began with a handful
    assert re.search(r"it sees (empty|visitor) \[", done.stdout)
    assert {folder.name for folder in (tmp_path / "pictures").iterdir()} == {"empty", "visitor"}


def test_the_sensor_learns_from_recorded_windows(tmp_path):
    config = run_of(tmp_path, (64, 3), ("still", "shaking"), local_steps=40)
    said = script("sensor.py", "--label", "shaking", cwd=tmp_path)
    assert "no sensor (" in said.stderr
    assert "recorded 40 windows" in said.stdout
    (shaking,) = (tmp_path / "recordings").glob("shaking-*.npz")
    assert np.load(shaking)["x"].shape == (40, 64, 3)
    script("sensor.py", "--label", "still", cwd=tmp_path)
    with gateway(config, tmp_path / "served") as (_, url):
        done = script("sensor.py", "--server", url, "--name", "pump", cwd=tmp_path)
    assert_finished(tmp_path)
    assert json.loads((tmp_path / "edgemeta-state" / "device.json").read_text())["name"] == "pump"
    assert "the machine is still" in done.stdout  # what it measures is made up, at rest


def test_buttons_teach(tmp_path):
    config = run_of(tmp_path, (32, 32, 3), ("bad", "good"))
    with gateway(config, tmp_path / "served") as (_, url):
        done = script("button.py", "--server", url, cwd=tmp_path)
    assert_finished(tmp_path)
    assert "no buttons (" in done.stderr
    assert "no camera (" in done.stderr
    assert "learning that this is good" in done.stdout
    assert "learning that this is bad" in done.stdout


def test_buttons_teach_two_things_without_a_run(tmp_path):
    done = script("button.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("sees ")]
    assert said[:2] == ["sees nothing yet; learning that this is good", "sees good; learning that this is bad"]
    for line in said[2:]:  # what it sees in a picture that it was not shown before
        seen, taught = re.fullmatch("sees (good|bad); learning that this is (good|bad)", line).groups()
        assert seen == taught
    assert len(said) == 10


def test_a_duty_cycled_node_does_a_task_each_time_it_wakes(tmp_path):
    config = run_of(tmp_path, (8, 8, 3), ("disc", "ring"))
    data = ("--data", "synthetic:samples=60,size=8,classes=2")
    with gateway(config, tmp_path / "served") as (_, url):
        steps = []
        for _ in range(30):
            command = [sys.executable, str(DEVICES / "duty_cycle.py"), "--server", url, *data, "--once", "--every", "7"]
            done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
            steps.append(done.stderr.strip())
            if done.returncode == 3:
                break
            assert done.returncode == 0, done.stderr
            assert done.stdout.split() == ["7"]
    assert steps[0].splitlines()[:2] == ["joined as participant 0", "evaluation of round 0 has come"]
    done = [step.splitlines()[-1] for step in steps]
    assert done[:3] == [
        f"delivered the {what}" for what in ("evaluation of round 0", "update of round 1", "update of round 2")
    ]
    assert done[-1].startswith("the run is over")
    assert_finished(tmp_path)


def test_a_board_that_sleeps_takes_part_in_its_wakes_beside_boards_that_do_not(tmp_path):
    """The clock is scaled: a wake every 0.4 s, and rounds of a tenth."""
    settings = {
        "model": {"name": "mlp", "input_shape": [8, 8, 3], "classes": ["disc", "ring"]},
        "data": {"participants": 3},
        "phases": [{"algorithm": "fedavg", "rounds": 0, "local_steps": 1, "batch_size": 4}],
        "evaluation": {"every": 1000},
    }
    data, over = "synthetic:samples=60,size=8,classes=2", threading.Event()

    def always_on(url, name):
        with edgemeta.Device(url, data, tmp_path / name, name) as device:
            while not over.is_set():
                done = device.step(wait_s=1)
                time.sleep(0.03 if done.kind == "delivered" else min(done.wait_s, 0.02))

    with gateway(write_config(tmp_path, settings), tmp_path / "served") as (_, url):
        others = [threading.Thread(target=always_on, args=(url, name)) for name in ("a", "b")]
        command = [sys.executable, str(DEVICES / "duty_cycle.py"), "--server", url, "--data", data, "--every", "0.4"]
        board = subprocess.Popen([*command, "--budget", "5"], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        for other in others:
            other.start()
        wakes, tasks = [], 0
        try:
            for line in board.stderr:
                tasks += line.startswith("training of round")
                if line.startswith(("delivered the update", "the gateway does not want", "nothing to do")):
                    wakes.append(line)
                if len(wakes) == 10:
                    break
        finally:
            board.kill()
            board.communicate()
            over.set()
            for other in others:
                other.join()
    assert sum(line.startswith("delivered") for line in wakes) >= 9, wakes
    records = [json.loads(line) for line in (runs(tmp_path / "served")[-1] / "history.jsonl").read_text().splitlines()]
    assert sum(record["participants"] == 3 for record in records) >= tasks - 2  # the last one may not be closed


@pytest.mark.parametrize("name", ["camera.py", "sensor.py", "button.py", "duty_cycle.py"])
def test_each_says_what_it_does(name, tmp_path):
    assert "--join" in script(name, "--help", cwd=tmp_path).stdout


def test_every_script_can_be_given_a_name():
    for path in DEVICES.glob("*.py"):
        assert "--name" in script(path.name, "--help", cwd=DEVICES).stdout, path
