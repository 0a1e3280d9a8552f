"""kNN-Per by hand, and that the page has the figures."""

import json
from pathlib import Path

import numpy as np

from edgemeta.bench import neighbours
from edgemeta.data import from_arrays
from edgemeta.fed.participants import Participant
from edgemeta.meta import Samples, TrainedModel
from edgemeta.nn import build
from edgemeta.nn.heads import body_of

DOCS = Path(__file__).parents[2] / "docs"


def test_what_neighbours_say_by_hand(monkeypatch) -> None:
    """The squared distances of 0 are 1, 4 and 9, their mean 14 / 3; the third is not among the two nearest."""
    monkeypatch.setattr(neighbours, "NEAREST", 2)
    said = neighbours.of_neighbours(np.array([[0.0]]), np.array([[1.0], [-2.0], [3.0]]), np.array([2, 0, 1]), 3)
    first, second = np.exp(-3 / 14), np.exp(-12 / 14)
    np.testing.assert_allclose(said, [[second / (first + second), 0, first / (first + second)]], rtol=1e-12)


def test_samples_that_are_all_alike_count_the_same() -> None:
    said = neighbours.of_neighbours(np.zeros((1, 2)), np.zeros((4, 2)), np.array([0, 0, 0, 1]), 2)
    assert said.tolist() == [[0.75, 0.25]]


def test_of_an_outlier_the_nearer_ones_still_count_more() -> None:
    z = np.concatenate([np.zeros((999, 1)), [[1e4]]]).astype(np.float32)
    said = neighbours.of_neighbours(z, np.array([[0.0], [1.0]], np.float32), np.array([0, 1]), 2)
    assert np.isfinite(said).all()
    assert said[-1, 1] > 0.5 > said[0, 1]


def test_the_ends_of_the_mixture_are_the_model_and_its_neighbours() -> None:
    """Of 30 samples scored, counted by hand: the model's own answers, and those of the ten nearest of 40."""
    network, rng = build("mlp", (3,), 4), np.random.default_rng(0)
    theta, x, y = network.init(0), rng.standard_normal((70, 3), np.float32), rng.integers(0, 4, 70)
    support, scored = Samples(x[:40], y[:40]), Samples(x[40:], y[40:])
    found = neighbours.right(TrainedModel(network, theta, ("a", "b", "c", "d")), support, scored)
    assert found[0] == np.sum(network.forward(theta, scored.x).argmax(axis=1) == scored.y)
    body = body_of(network)
    z, known = (body.forward(theta[: body.layout.size], part.x).copy() for part in (scored, support))
    votes = neighbours.of_neighbours(z, known, support.y, 4)
    assert found[-1] == np.sum(votes.argmax(axis=1) == scored.y)
    assert len(found) == len(neighbours.SHARES)


def test_shares_are_chosen_on_training_pictures_that_are_not_labelled_and_new_ones_are_tested(monkeypatch) -> None:
    network, seen, rng = build("mlp", (3,), 4), [], np.random.default_rng(0)
    model = TrainedModel(network, network.init(0), ("a", "b", "c", "d"))
    sides = [from_arrays(rng.standard_normal((n, 3)), rng.integers(0, 4, n), model.classes) for n in (50, 20)]
    monkeypatch.setattr(
        neighbours,
        "right",
        lambda _, support, scored: seen.append((support, scored)) or np.ones(len(neighbours.SHARES)),
    )
    for new in (False, True):
        neighbours.accuracies(model, [Participant(*sides)], 20, 0, new=new)
    (support, aside), (again, tested) = seen
    train = {row.tobytes() for row in sides[0].load()[0]}
    rows = [{row.tobytes() for row in part.x} for part in (support, aside, tested)]
    assert (len(rows[0]), len(rows[1]), len(rows[2])) == (20, 30, 20)
    assert rows[0] | rows[1] == train
    assert not rows[2] & train
    assert (again.x == support.x).all()


def test_the_page_has_the_figures() -> None:
    kept = json.loads((DOCS / "neighbours.json").read_text())
    assert neighbours.table(kept["rows"]) in (DOCS / "own-classes.md").read_text()
    assert {row["support"] for row in kept["rows"]} == set(neighbours.SUPPORTS)
