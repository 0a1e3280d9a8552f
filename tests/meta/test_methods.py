"""What is said of the learners: by the command, and by the page that it makes; and that it is so."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from starts import shared

from edgemeta.cli import _status, commands
from edgemeta.config import PhaseConfig
from edgemeta.meta import ADAPTATIONS, LEARNERS, Samples, begin, take_step
from edgemeta.meta.methods import page, text_of
from edgemeta.nn import Dense, Model, Workspace

PAGE = Path(__file__).parent.parent.parent / "docs" / "methods.md"
CNN_BYTES = 4 * 2_156_490


def printed(*arguments: str) -> str:
    found = CliRunner().invoke(commands, ["methods", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_the_page_is_what_the_rows_say() -> None:
    assert PAGE.read_text() == page()  # after a change: write edgemeta.meta.methods.page() there


def test_the_list_has_a_line_for_each() -> None:
    lines = printed().splitlines()
    assert [line.split()[0] for line in lines] == list(LEARNERS)
    assert lines[0].endswith("  Plain local SGD: the gradient on one batch.")
    assert list(json.loads(printed("--json"))) == list(LEARNERS)


def test_what_is_said_of_one() -> None:
    said = json.loads(printed("scaffold", "--json"))
    assert said["travels"] == ["theta", "variate"]
    assert said["stays"] == ["own_variate"]
    assert said["bytes_each_way"] == 2 * CNN_BYTES
    assert said["memory_bytes"] == 3 * CNN_BYTES
    assert said["adaptations"] == list(ADAPTATIONS)
    fomaml = json.loads(printed("fomaml", "--json"))
    assert fomaml["gradients_a_step"] == {"inner_steps = 1": 2, "inner_steps = 5": 6}
    assert "- gradients in a step: 2 with inner_steps = 1, 6 with inner_steps = 5" in printed("fomaml")
    protonet = json.loads(printed("protonet", "--json"))
    assert protonet["classes"] == ["own"]
    assert protonet["adaptations"] == [name for name in ADAPTATIONS if name != "known"]
    (scale,) = protonet["settings"]
    assert (scale["range"], scale["default"]) == ("above 0", 5.0)
    assert scale["reason"].startswith("of squared distances, in units of the batch's spread")


@pytest.mark.parametrize("name", LEARNERS)
def test_every_setting_has_its_reason(name: str) -> None:
    for entry in fields(LEARNERS[name].settings):
        assert f"setting `{entry.name}` (" in text_of(name)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_memory_of_a_step_is_what_is_said(name: str) -> None:
    """Vectors of the local state, and the learner's part of the workspace, in units of the model's size."""
    model = Model([Dense(40), Dense(2)], (30,), "prototypes" if LEARNERS[name].embeds else "cross-entropy")
    recipe, workspace = PhaseConfig(algorithm=name, batch_size=2), Workspace()
    state = begin(model, recipe, shared(model, recipe, model.init(0)), {})
    rng = np.random.default_rng(0)
    data = Samples(rng.random((12, 30), np.float32), np.arange(12, dtype=np.int64) % 2)
    take_step(model, recipe, state, data, rng, workspace)
    scratch = sum(buffer.nbytes for buffer in workspace.part("learner")._buffers.values())
    kept = sum(vector.nbytes for vector in state.vectors.values())
    assert round((scratch + kept) / (4 * model.layout.size)) == 1 + LEARNERS[name].vectors


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(["methods", "scafold"]) == 2
    assert "unknown algorithm 'scafold': did you mean 'scaffold'?" in capsys.readouterr().err
