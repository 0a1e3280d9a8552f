"""What the commands say of what they could not use, whatever the terminal can show."""

import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from processes import end
from runs import command_line

from edgemeta.bench.loopback import start
from edgemeta.meta import TrainedModel
from edgemeta.nn import PICTURES, build

pytestmark = pytest.mark.slow

CLASSES = ("\u65e5\u672c", "caf\u00e9 \U0001f600")  # two scripts, and a letter beyond 16 bits
SHORT = ["--set", "model.name=mlp", "--set", 'phases=[{algorithm="fedavg",rounds=1,local_steps=1}]']


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, pictures, and a file that is none."""
    folder, rng = tmp_path_factory.mktemp("output"), np.random.default_rng(0)
    network = build("mlp", (8, 8, 3), 2, normalization=PICTURES)
    TrainedModel(network, network.init(0), CLASSES).save(folder / "model")
    for name in ("a.png", "b.png", "\u65e5\u672c \u00e9 \U0001f600.png"):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:60])
    return folder


def told(encoding, *arguments, cwd):
    command = [sys.executable, "-m", "edgemeta", *map(str, arguments)]
    how = {"cwd": cwd, "env": os.environ | {"PYTHONIOENCODING": encoding}, "timeout": 60}
    done = subprocess.run(command, capture_output=True, check=False, **how)
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    return done


def test_a_broken_picture_among_good_ones_is_named_and_the_others_answered(place):
    done = command_line("predict", "model", "a.png", "cut.png", "b.png", "none.png", cwd=place)
    assert done.returncode == 2
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["a.png", "b.png"]
    errors = done.stderr.splitlines()
    assert [line.split(" as ")[0] for line in errors] == ["Error: cannot read cut.png", "Error: cannot read none.png"]
    alone = command_line("predict", "model", "cut.png", "--json", cwd=place)
    assert (alone.returncode, json.loads(alone.stdout)) == (2, {})


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_json_is_json_in_any_encoding(place, encoding):
    name = "\u65e5\u672c \u00e9 \U0001f600.png"
    done = told(encoding, "predict", "model", name, "a.png", "--json", "--top", 2, cwd=place)
    # Click writes UTF-8 where it is told ASCII.
    guesses = json.loads(done.stdout.decode("utf-8" if encoding == "ascii" else encoding))
    assert done.returncode == 0
    assert list(guesses) == [name, "a.png"]
    assert {guess["class"] for guess in guesses[name]} == set(CLASSES)


def test_text_shows_what_can_be_shown(place):
    name = "\u65e5\u672c \u00e9 \U0001f600.png"
    lines = told("cp1252", "predict", "model", name, "none-\u65e5.png", "--top", 2, cwd=place)
    assert lines.stdout.decode("cp1252").startswith("\\u65e5\\u672c é \\ud83d\\ude00.png: ")
    assert b"none-\\u65e5.png" in lines.stderr
    assert lines.returncode == 2


def test_a_log_line_too(place, tmp_path):
    for k, name in enumerate(("\u65e5", "\u672c")):
        (tmp_path / name).mkdir()
        for i in range(12):
            pixels = np.random.default_rng([k, i]).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
        (tmp_path / name / "\u672c.png").write_bytes(b"no picture")
    done = told("cp1252", "data", "info", tmp_path, cwd=place)
    assert done.returncode == 0
    assert b"\\u672c" in done.stdout
    assert b"\\u672c.png" in done.stderr


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Training samples of two classes, and test samples of a third one too."""
    path = tmp_path_factory.mktemp("uneven") / "data.npz"
    x, y = np.random.default_rng(0).integers(0, 256, (45, 4, 4, 3), np.uint8), np.arange(45) % 3
    np.savez(path, x=x[y < 2], y=y[y < 2], x_test=x, y_test=y)
    return path


UNSCORED = "15 test samples are of 2, which the training data lacks: they are not scored"


def test_every_command_that_divides_data_says_what_is_not_scored(uneven, tmp_path):
    options = ["--data", uneven, *SHORT, "--set", "data.partition=iid", "--set", "data.participants=2"]
    done = command_line("simulate", *options, "--out", tmp_path / "run")
    assert UNSCORED in done.stderr.splitlines()
    compared = command_line("compare", *options, "--set", "data.held_out=0", "--seeds", 2, "--json")
    assert compared.stderr.splitlines().count(UNSCORED) == 1
    (run, _) = json.loads(compared.stdout)["runs"]
    assert run["fedavg"]["left_out"]["why"] == [UNSCORED]
    evaluated = command_line("evaluate", tmp_path / "run" / "model.safetensors", "--data", uneven, "--json")
    said = "15 test samples are of 2, which the training data lacks: they are scored, and not learned"
    assert evaluated.stderr.splitlines()[-1] == said
    assert json.loads(evaluated.stdout)["samples"] == 45


def test_other_data_in_a_finished_runs_directory_is_refused(uneven, tmp_path):
    options = [*SHORT, "--participants", 2, "--partition", "iid", "--out", tmp_path / "run"]
    assert command_line("simulate", "--data", uneven, *options).returncode == 0
    again = command_line("simulate", "--data", uneven.name, *options, cwd=uneven.parent)
    assert again.returncode == 0
    assert again.stderr.splitlines()[-1] == f"{tmp_path / 'run'} holds this run, and it is finished"
    with np.load(uneven) as arrays:
        np.savez(uneven, **{key: 255 - values if key == "x" else values for key, values in arrays.items()})
    other = command_line("simulate", "--data", uneven, *options)
    assert other.returncode == 2
    assert "holds a run on other data (other values in the samples): give another folder" in other.stderr


def test_a_gateway_goes_on_by_another_path_and_refuses_other_data(uneven, tmp_path):
    options = [*SHORT, "--set", "data.participants=2", "--state", tmp_path / "state", "--port", "0"]
    for source in (uneven, tmp_path / "copy.npz"):
        server = start("server", *options, "--set", f"data.source={source}", log=tmp_path / "log")
        try:
            assert server.stdout.readline().startswith("listening on http://127.0.0.1:")
        finally:
            end(server)
        shutil.copy(uneven, tmp_path / "copy.npz")
    with np.load(uneven) as arrays:
        np.savez(tmp_path / "copy.npz", **{key: values[::-1] for key, values in arrays.items()})
    done = command_line("server", *options, "--set", f"data.source={tmp_path / 'copy.npz'}")
    assert done.returncode == 2
    assert "; other classes or labels): 'edgemeta run new --config RUN.toml --set" in done.stderr


def test_a_model_that_diverged_is_not_written(uneven, tmp_path):
    network = build("mlp", (4, 4, 3), 3, normalization=PICTURES)
    TrainedModel(network, network.init(0), ("0", "1", "2")).save(tmp_path / "model")
    done = command_line("adapt", tmp_path / "model", "--data", uneven, "--out", tmp_path / "own", "--lr", 1e6)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: adaptation diverged after 5 steps: lower lr")
    assert not (tmp_path / "own").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="NOT TESTED: a full disk, as there is no /dev/full")
def test_a_log_that_cannot_be_written_stops_no_training_and_results_that_cannot_are_an_error(tmp_path):
    data = ("--set", "data.source=synthetic:samples=120,size=8", "--set", "data.participants=1")
    simulate = [sys.executable, "-m", "edgemeta", "simulate", *SHORT, *data, "--set", "data.partition=iid"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*simulate, "--out", tmp_path / "a"], stdout=subprocess.PIPE, stderr=full, check=False)
        assert (done.returncode, b"adaptation" in done.stdout) == (0, True)
        lost = subprocess.run([*simulate, "--out", tmp_path / "b"], stdout=full, stderr=subprocess.PIPE, check=False)
        assert lost.returncode == 1
        assert b"Error: cannot write the results: No space left on device" in lost.stderr
        assert b"Traceback" not in lost.stderr
        assert b"Exception ignored" not in lost.stderr
        assert (tmp_path / "b" / "summary.json").exists()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = [sys.executable, "-m", "edgemeta", "server", *SHORT, *data, "--port", str(port), "--state", tmp_path / "s"]
    client = [sys.executable, "-m", "edgemeta", "client", "--server", f"http://127.0.0.1:{port}", "--state"]
    with open("/dev/full", "w") as full:
        gateway = subprocess.Popen(server, stdout=full, stderr=full)
    reader, writer = os.pipe()
    os.close(reader)  # as of a pager that was left
    try:
        how = {"stderr": writer, "timeout": 60, "check": False}
        done = subprocess.run([*client, tmp_path / "d", "--data", "synthetic:samples=120,size=8"], **how)
        assert done.returncode == 0
        assert (tmp_path / "d" / "personal.safetensors").exists()
        gateway.terminate()
        assert gateway.wait(20) == 0
    finally:
        os.close(writer)
        gateway.kill()
        gateway.wait()
