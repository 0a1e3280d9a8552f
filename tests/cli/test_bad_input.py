"""What users do wrong: one clear line, exit status 2 (1 where it happened while running), and never a traceback."""

import os
import subprocess

import numpy as np
import pytest
from PIL import Image
from runs import command_line

pytestmark = pytest.mark.slow

SMALL = ["--data", "synthetic:samples=120,size=8", "--participants", 3, "--rounds", 1, "--set", "model.name=mlp"]


def folder_of(root, **classes):
    """Make an image folder: class name -> contents of its files."""
    for name, contents in classes.items():
        (root / name).mkdir(parents=True)
        for i, content in enumerate(contents):
            (root / name / f"{i}.png").write_bytes(content)
    return root


def png(seed=0):
    from io import BytesIO

    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def refused(*arguments, status=2, says=(), cwd=None):
    done = command_line(*arguments, cwd=cwd)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1, done.stderr
    for part in says:
        assert part in errors[0], errors[0]
    return done


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--algorithm", "fedvag"], ["unknown algorithm 'fedvag'", "fedavg", "fomaml", "reptile"]),
        (["--set", "model.name=resnet"], ["unknown model 'resnet'", "cnn-small"]),
        (["--partition", "shrads:2"], ["shrads", "iid", "dirichlet", "shards"]),
        (["--partition", "shards:11"], ["11", "10 classes"]),
        (["--partition", "dirichlet:0"], ["dirichlet"]),
        (["--participants", "500"], ["500"]),
        (["--participants", "0"], ["data.participants is 0", "into how many"]),
        (["--set", "phases.0.lr=nan"], ["phases.0.lr", "finite"]),
        (["--set", "phases.0.lr=inf"], ["phases.0.lr", "finite"]),
        (["--set", "phases.0.lr=-1"], ["phases.0.lr", "more than 0"]),
        (["--set", "phases.0.learning_rate=1"], ["learning_rate", "lr"]),
        (["--set", "phases.3.lr=1"], ["phases.3.lr", "list of 1"]),
        (["--set", "lr"], ["KEY=VALUE"]),
        (["--set", "data.held_out=3"], ["held_out"]),
        (["--set", "model.classes=7"], ["model.classes is 7", "10"]),
        (["--config", "no-such"], ["no-such", "cifar10-10", "demo"]),
        (["--config", "demo"], ["single phase", "--set"]),
        (["--data", "synthetic:sample=3"], ["sample=3", "samples"]),
        (["--init", "no-such.safetensors"], ["no-such.safetensors"]),
    ],
)
def test_settings(options, says):
    refused("simulate", *SMALL, *options, says=says)


def test_unknown_options_and_missing_ones():
    refused("simulate", "--round", 3, says=["--round"])
    refused("evaluate", "m.safetensors", says=["--data"])
    refused("predict", "m.safetensors", says=["IMAGE"])
    refused("frobnicate", says=["frobnicate"])


def test_data_folders(tmp_path):
    refused("data", "info", tmp_path / "missing", says=["missing"])
    (tmp_path / "empty").mkdir()
    refused("data", "info", tmp_path / "empty", says=["empty"])
    one = folder_of(tmp_path / "one", cats=[png(i) for i in range(30)])
    refused("simulate", *SMALL, "--data", one, says=["one class (cats)"])
    bad = folder_of(tmp_path / "bad", cats=[b"", b"GIF no"], dogs=[png()[:50]])
    refused("data", "info", bad)


def test_bad_files_among_good_ones_are_named_and_counted(tmp_path):
    good = [png(i) for i in range(40)]
    folder = folder_of(tmp_path / "some", cats=[*good[:20], b"", b"no picture"], dogs=[*good[20:], png()[:60]])
    done = command_line("data", "info", folder)
    assert done.returncode == 0
    assert "3 files" in done.stderr
    assert os.path.join("cats", "20.png") in done.stderr
    assert "skipped: 3" in done.stdout


def test_cifar_files(tmp_path):
    python = tmp_path / "cifar-10-batches-py"
    python.mkdir()
    (python / "data_batch_1").write_bytes(b"\x80\x02}q\x01")
    refused("data", "info", python, says=["binary version"])
    for name, content in (("short", bytes(3072)), ("label", b"\x0b" + bytes(3072))):
        folder = tmp_path / name
        folder.mkdir()
        for batch in ("data_batch_1.bin", "test_batch.bin"):
            (folder / batch).write_bytes(content)
        refused("data", "info", folder, says=["data_batch_1.bin"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad") / "run"
    assert command_line("simulate", *SMALL, "--out", folder).returncode == 0
    return folder


def test_a_run_directory_of_another_configuration(run):
    kept = (run / "model.safetensors").read_bytes()
    refused("simulate", *SMALL, "--seed", 9, "--set", "phases.0.lr=0.5", "--out", run, says=["seed", "phases.0.lr"])
    assert (run / "model.safetensors").read_bytes() == kept


def hostile(model):
    """Return name -> bytes of model files that must not be believed."""
    head = 8 + int.from_bytes(model[:8], "little")
    return {
        "truncated": model[:-100],
        "head only": model[:5],
        "empty": b"",
        "endless header": (2**63 - 1).to_bytes(8, "little") + model[8:],
        "overlapping": model[:head].replace(b'"data_offsets": [0, ', b'"data_offsets": [4, ', 1) + model[head:],
        "another layout": model.replace(b'"model": "mlp"', b'"model": "cnn"', 1),
        "no model": b"hello " * 100,
    }


def test_model_files(run, tmp_path):
    model = (run / "model.safetensors").read_bytes()
    for name, content in hostile(model).items():
        assert content != model
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        done = refused("evaluate", path, "--data", "synthetic:samples=60,size=8", says=["model.safetensors"])
        assert len(done.stderr) < 1000, name
    refused("evaluate", tmp_path, "--data", "synthetic", says=["model file"])


def test_data_that_the_model_does_not_know(run, tmp_path):
    pictures = [png(i) for i in range(20)]
    folder = folder_of(tmp_path / "cats", cats=pictures, dogs=pictures[::-1])
    refused("adapt", run / "model.safetensors", "--data", folder, "--out", tmp_path / "m", says=["cats", "dogs"])
    refused("evaluate", run / "model.safetensors", "--data", "synthetic:size=9", says=["9", "8"])
    refused("predict", run / "model.safetensors", tmp_path / "no.jpg", says=["no.jpg"])


def test_output_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    refused("simulate", *SMALL, "--out", tmp_path / "file", says=["file"])
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=250k", "tmpfs", disk]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode()}")
    try:
        big = [*SMALL, "--set", "model.name=cnn-small", "--out", disk / "run"]
        refused("simulate", *big, says=["No space left", "free some space"])
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        assert command_line("simulate", *big).returncode == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_diverged_run_exits_1(tmp_path):
    wild = ["--set", "phases.0.lr=1e20", "--out", tmp_path / "run"]
    done = refused("simulate", *SMALL, *wild, status=1, says=["lower lr"])
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert "diverged" in done.stderr
