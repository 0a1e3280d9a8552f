"""The commands as a user runs them, on real pictures made on the spot."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from runs import command_line

import edgemeta


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on small synthetic pictures: its folder."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    settings = ["--set", "model.name=mlp", "--set", "evaluation.every=1", "--set", "data.held_out=1"]
    done = command_line(
        *("simulate", "--data", "synthetic:samples=200,size=8", "--participants", 3, "--partition", "shards:5"),
        *("--algorithm", "reptile", "--rounds", 2, "--seed", 5, *settings, "--out", folder),
    )
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A participant's folder: two classes that the synthetic set knows too, in train/ and test/."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part in ("train", "test"):
        for name in edgemeta.data.open_data("synthetic").train.classes[:2]:
            (root / part / name).mkdir(parents=True)
            for i in range(6):
                noise = rng.integers(0, 256, (11, 13, 3), np.uint8)
                Image.fromarray(noise).save(root / part / name / f"{i}.png")
    return root


def test_simulate_shows_a_line_a_round_and_a_table(run):
    folder, done = run
    lines = done.stderr.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("round ")] == ["0/2", "1/2", "2/2"]
    assert " left" in lines[-2]
    assert "accuracy" in lines[-1]
    assert "new" in lines[-1]
    assert "participants, after adaptation" in done.stdout
    assert "new ones, before adaptation" in done.stdout
    record = json.loads((folder / "history.jsonl").read_text().splitlines()[-1])
    assert (record["algorithm"], record["phase"]) == ("reptile", "reptile")


def test_evaluate(run, pictures):
    folder, _ = run
    done = command_line("evaluate", folder / "model.safetensors", "--data", pictures, "--json")
    scores = json.loads(done.stdout)
    assert scores["samples"] == 12
    assert scores["before"].keys() == scores["after"].keys() == {"loss", "accuracy"}
    assert scores["after"]["loss"] != scores["before"]["loss"]
    same = command_line("evaluate", folder / "model.safetensors", "--data", pictures, "--adapt-steps", 0, "--json")
    assert json.loads(same.stdout)["after"] == scores["before"]
    assert "12 test samples" in command_line("evaluate", folder / "model.safetensors", "--data", pictures).stdout


def test_adapt_then_predict(run, pictures, tmp_path):
    folder, _ = run
    personal = tmp_path / "personal.safetensors"
    done = command_line(
        *("adapt", folder / "model.safetensors", "--data", pictures, "--out", personal, "--steps", 20, "--lr", 0.05)
    )
    assert done.returncode == 0, done.stderr
    assert "12 training samples, 20 steps" in done.stdout
    images = sorted((pictures / "train").glob("*/0.png"))
    predicted = command_line("predict", personal, *images, "--top", 3, "--json")
    guesses = json.loads(predicted.stdout)
    assert list(guesses) == [str(image) for image in images]
    # Twenty steps on twelve pictures: by heart.
    assert [guesses[str(image)][0]["class"] for image in images] == [image.parent.name for image in images]
    assert all(len(best) == 3 and best[0]["probability"] >= best[1]["probability"] for best in guesses.values())
    assert images[0].parent.name in command_line("predict", personal, images[0]).stdout


def test_data_info(pictures):
    facts = json.loads(command_line("data", "info", pictures, "--json").stdout)
    assert (facts["train"], facts["test"], len(facts["classes"])) == (12, 12, 2)
    assert "train: 6000" in command_line("data", "info", "synthetic").stdout


def test_compare_shows_the_baselines():
    options = ["--data", "synthetic:samples=200,size=8", "--set", "model.name=mlp"]
    short = [word for i in (0, 1) for word in ("--set", f"phases.{i}.rounds=1")]
    compared = json.loads(command_line("compare", *options, *short, "--seeds", 2, "--json").stdout)
    assert len(compared["runs"]) == 2
    for run in compared["runs"]:
        assert list(run) == ["fomaml, then fedavg", "fedavg", "each alone"]
        budgets = [run[name]["gradient_evaluations"] for name in ("fomaml, then fedavg", "fedavg")]
        assert budgets[0] == budgets[1]
    assert "(" in command_line("compare", *options, *short, "--seeds", 2).stdout


def test_bench():
    facts = json.loads(command_line("bench", "--model", "mlp", "--batch", 4, "--json").stdout)
    assert facts["numpy"] == np.__version__
    assert facts["step_ms"] > 0
    assert facts["peak_mb"] > 10


def test_version_and_help():
    assert command_line("--version").stdout.split()[-1] == edgemeta.__version__
    for name in ("simulate", "evaluate", "adapt", "predict", "bench", "data", "demo"):
        assert name in command_line("--help").stdout
        assert command_line(name, "--help").returncode == 0


def test_output_that_nobody_reads_is_no_error():
    command = f"{sys.executable} -m edgemeta data info synthetic | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_presets_are_sound():
    from edgemeta.config import PRESETS, RunConfig, config_from, read_settings

    names = [path.stem for path in PRESETS.glob("*.toml")]
    assert {"demo", "cifar10-10"} <= set(names)
    for name in names:
        assert isinstance(config_from(read_settings(name)), RunConfig)


def test_later_options_win(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('seed = 1\n[data]\nparticipants = 4\n[[phases]]\nname = "mine"\nlr = 0.5\nrounds = 9\n')
    from edgemeta.cli.settings import settings_from

    named = {"seed": 2, "rounds": 3, "data.participants": None}
    config = settings_from(str(file), named, ["seed=3", "phases.0.lr=0.25"])
    assert (config.seed, config.data.participants) == (3, 4)
    assert (config.phases[0].rounds, config.phases[0].lr) == (3, 0.25)
