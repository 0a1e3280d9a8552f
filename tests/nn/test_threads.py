"""Threads as users give them: on the commands and in scripts, and what is said of BLAS's own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from runs import command_line

import edgemeta
from edgemeta.errors import InputError
from edgemeta.nn import build
from edgemeta.nn.kernels import blas

SCRIPT = """
import logging
logging.basicConfig(level=logging.{level}, format="%(message)s")
import numpy as np
from edgemeta.nn import build
for _ in range(2):
    build("mlp", (3,), 2)
"""


def said(threads: int, level: str = "INFO") -> list[str]:
    """Return the lines that a script of a user's gets to see."""
    command = [sys.executable, "-c", SCRIPT.format(level=level)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"OPENBLAS_NUM_THREADS": str(threads)}
    )
    return done.stderr.splitlines()


@pytest.mark.skipif(blas.threads() is None, reason="NumPy's BLAS does not tell its threads here")
def test_more_than_one_thread_of_blas_is_said_once_and_only_to_who_listens():
    [line] = said(2)
    assert "2 threads" in line
    assert "OPENBLAS_NUM_THREADS=1" in line
    assert said(1) == said(2, "WARNING") == []


def test_threads_of_a_named_network_and_of_a_model_file(tmp_path):
    network = build("mlp", (3,), 2, threads=3)
    assert network.threads == 3
    edgemeta.meta.TrainedModel(network, network.init(0), ("a", "b")).save(tmp_path / "m.safetensors")
    assert edgemeta.load_model(tmp_path / "m.safetensors", threads=2).network.threads == 2
    for wrong in (0, 1000):
        with pytest.raises(InputError, match="threads"):
            edgemeta.load_model(tmp_path / "m.safetensors", threads=wrong)


def test_the_commands_give_the_same_bits_for_any_number_of_threads(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "picture.png")
    data = "synthetic:samples=200,size=8"
    results = []
    for threads in (1, 3):
        out = tmp_path / str(threads)
        done = command_line(
            *("simulate", "--data", data, "--participants", 2, "--algorithm", "fomaml", "--rounds", 1, "--out", out),
            *("--set", "model.name=cnn-small", "--threads", threads),
        )
        assert done.returncode == 0, done.stderr
        model, options = out / "model.safetensors", ("--threads", threads)
        adapted = command_line("adapt", model, "--data", data, "--out", out / "own", "--steps", 2, *options)
        assert adapted.returncode == 0, adapted.stderr
        scores = command_line("evaluate", model, "--data", data, "--json", *options)
        found = command_line("predict", out / "own", tmp_path / "picture.png", "--json", *options)
        results.append((model.read_bytes(), (out / "own").read_bytes(), scores.stdout, found.stdout))
    assert results[0] == results[1]
    assert json.loads(results[0][2])["samples"] > 0
    assert json.loads(results[0][3])
