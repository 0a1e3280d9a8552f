"""The comparison with PyTorch: its workers, its table; with PyTorch itself only where that is installed."""

import json

import pytest
from runs import command_line

from edgemeta.bench import against
from edgemeta.bench.contenders import LIBRARIES, Work


@pytest.mark.parametrize("library", list(LIBRARIES))
@pytest.mark.parametrize("kind", ["step", "natural", "fomaml", "forward"])
def test_a_contender_does_the_work_and_says_how_long_it_took(library, kind):
    if library == "torch":
        pytest.importorskip("torch")
    with against._contender(library, 1) as ask:
        answer = ask(Work(kind, "cnn-small", 2), 3)
    assert len(answer["wall_s"]) == len(answer["cpu_s"]) == 3
    assert min(answer["wall_s"]) > 0
    assert answer["first_s"] > max(answer["wall_s"])
    assert answer["peak_mb"] > 10


def test_both_contenders_train_the_same_network():
    torch = pytest.importorskip("torch")
    from edgemeta.nn import build

    for name in ("cnn", "cnn-small"):
        step = LIBRARIES["torch"](Work("step", name, 1))
        cells = dict(zip(step.__code__.co_freevars, step.__closure__, strict=True))
        net = cells["net"].cell_contents
        assert isinstance(net, torch.nn.Module)
        assert sum(p.numel() for p in net.parameters()) == build(name, (32, 32, 3), 10).layout.size


def test_the_table_calls_a_miss_a_miss():
    row = {"title": "a step", "unit": "ms", "target": 0.5, "ours": 6.0, "theirs": 10.0, "measured_cpu": 0.55}
    peak = {"title": "peak", "unit": "MB", "target": 100, "measured": 80.0, "hit": True, "ours": 80.0, "theirs": 350.0}
    rows = [row | {"measured": 0.6, "hit": False}, peak | {"measured_cpu": None}]
    lines = against.table({"machine": {"load": 0.1, "torch": "2.13"}, "rows": rows}).splitlines()
    assert lines[2] == "| a step | <= 0.5 | 0.60 | **miss** | 6 ms | 10 ms | 0.55 |"
    assert lines[3] == "| peak | <= 100 | 80 | hit | 80 MB | 350 MB |  |"
    assert lines[-1] == "load 0.1, torch 2.13"
    assert "busy" in against.table({"machine": {"load": 2.0}, "rows": rows}).splitlines()[-1]


def test_a_row_is_ours_over_theirs(monkeypatch):
    """Ours against a slower piece of our own: the larger batch must show."""
    monkeypatch.setattr(against, "ROUNDS", 2)
    monkeypatch.setattr(against, "TURN_MS", 20)
    contender = against._contender
    monkeypatch.setattr(against, "_contender", lambda _, threads: contender("edgemeta", threads))
    small = Work("forward", "cnn-small", 2)
    row = against._compared(against.Row("small", 0.5, small, small._replace(batch=60)))
    assert row["measured"] == row["ours"] / row["theirs"] < 0.5
    assert row["hit"]


def test_without_pytorch_the_command_says_what_to_install():
    try:
        import torch  # noqa: F401
    except ImportError:
        done = command_line("bench", "--against", "torch", "--json")
        assert done.returncode == 2
        assert "pip install 'edgemeta[bench]'" in done.stderr
        assert not done.stdout
    else:
        pytest.skip("PyTorch is installed")


def test_machine_facts_are_json(monkeypatch):
    monkeypatch.setattr(against, "version", lambda name: f"{name} 1")  # PyTorch's need not be there
    facts = json.loads(json.dumps(against.machine()))
    assert facts["processor"]
    assert facts["cores"] >= 1
