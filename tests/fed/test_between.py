"""A site as one participant of a federation above it: by messages and a clock that the test turns, and whole runs."""

import itertools
import json

import numpy as np
import pytest

import edgemeta
from edgemeta import api
from edgemeta.config import config_from
from edgemeta.errors import ConfigError
from edgemeta.fed.between import Between, answer_to, check_between, place_order
from edgemeta.fed.client import Update
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory, write_parts
from edgemeta.fed.messages import encode_evaluation, encode_update
from edgemeta.fed.plan import Plan, resolve
from edgemeta.fed.progress import Progress, Stage
from edgemeta.fed.simulation import Task, perform
from edgemeta.nn import Dense, Model
from edgemeta.nn.files import load_parameters
from edgemeta.reading import read_file

NETWORK = Model([Dense(2)], (3,))  # 8 parameters
SIZE = NETWORK.layout.size


class Site:
    """A site with two boards, and short ways to order, to send and to read what it answers."""

    def __init__(self, path, roster=(0, 1), **server):
        settings = {
            "data": {"participants": 2},
            "phases": [{"rounds": 5}],
            "server": {"round_deadline_s": 60, "clip": "off", **server},
        }
        self.path, self.config = path, resolve(config_from(settings), (3,), ("a", "b"), NETWORK)
        self.keys = itertools.count()
        self.open(roster)

    def open(self, roster=(0, 1)):
        self.directory = RunDirectory(self.path, self.config)
        theta = np.zeros(SIZE, np.float32)
        self.run = Between(Plan(self.config), NETWORK, theta, self.directory, roster, 0.0, name="board-{}".format)

    def order(self, stage, number, value=0.0, counted=0, now=1.0):
        progress = Progress(stage=stage, round=number, counted={"0": counted})
        self.key = f"key {next(self.keys)}"
        vectors = {"theta": np.full(SIZE, value, np.float32)}
        place_order(self.path, self.key, Plan(self.config).task(progress, 0, NETWORK.layout), vectors)
        self.run.tick(now)

    def update(self, k, value, samples, number=1, now=2.0):
        update = Update({"theta": np.full(SIZE, value, np.float32)}, {}, samples, loss=value, gradient_evaluations=2)
        write_parts(self.path / "incoming", encode_update(update, number, NETWORK.layout.fingerprint))
        self.run.deliver(k, number, self.path / "incoming", now)

    def scores(self, k, accuracy, samples, number=0):
        scored = {"loss": 1.0, "accuracy": accuracy}
        body = encode_evaluation({"samples": samples, "before": scored, "after": scored, "grid": []})
        self.run.deliver_evaluation(k, number, body, 2.0)

    @property
    def answer(self):
        return answer_to(self.path, self.key)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.directory.close()


def test_nothing_opens_before_it_is_ordered_and_the_answer_is_the_weighted_mean(site):
    assert site.run.work(0, 0.5) is None
    site.order(Stage.TRAIN, 1, value=2.0)
    assert (load_parameters(site.run.model_path)[1] == 2.0).all()
    assert site.run.work(1, 1.5).round == 1
    site.update(0, 1.0, samples=10)
    assert site.answer is None
    site.update(1, 4.0, samples=30)
    vectors, said = site.answer
    assert (vectors["theta"] == 3.25).all()  # (10 * 1 + 30 * 4) / 40
    assert (said["samples"], float(said["loss"]), said["gradient_evaluations"]) == ("40", 3.25, "4")
    assert site.run.work(0, 3.0) is None  # until the next order


def test_scores_are_weighted_by_test_samples(site):
    site.order(Stage.EVALUATE, 0)
    site.scores(0, 0.5, samples=4)
    site.scores(1, 0.9, samples=12)
    scores = json.loads(site.answer[1]["scores"])
    assert scores["samples"] == 16
    assert scores["before"]["accuracy"] == scores["after"]["accuracy"] == pytest.approx(0.8)  # (2 + 10.8) / 16


def test_an_order_may_be_about_any_round_and_take_the_place_of_another(site):
    site.order(Stage.TRAIN, 1)
    site.update(0, 1.0, samples=10)
    site.order(Stage.TRAIN, 4, value=7.0, now=3.0)  # the round above went on without this site
    assert site.run.work(0, 3.5).round == 4
    site.update(0, 1.0, samples=1, number=4, now=4.0)
    site.update(1, 3.0, samples=1, number=4, now=4.0)
    assert (site.answer[0]["theta"] == 2.0).all()
    assert site.run.progress.model == 4


def test_an_order_outlives_a_kill_with_what_has_been_delivered(site):
    site.order(Stage.TRAIN, 1)
    site.update(0, 1.0, samples=10)
    site.directory.close()
    site.open()
    assert site.run.missing == [1]
    site.update(1, 3.0, samples=10)
    assert (site.answer[0]["theta"] == 2.0).all()
    site.directory.close()
    site.open()
    site.run.tick(1.0)
    assert site.run.progress.round == 2  # what was answered is not begun again
    assert not site.run.progress.cohort


def test_what_boards_keep_goes_back_to_the_round_that_counted_above(site):
    for number in (1, 2):
        site.order(Stage.TRAIN, number, counted=number - 1)
        for k in (0, 1):
            site.update(k, 1.0, samples=10, number=number)
    site.order(Stage.TRAIN, 3, counted=1)  # the answer of round 2 came too late
    assert site.run.work(0, 5.0).counted == 1


def test_boards_that_are_all_away_are_named(tmp_path):
    site = Site(tmp_path)
    site.order(Stage.TRAIN, 1)
    site.run.tick(62.0)
    assert site.answer[1]["refused"] == "too few of this site's boards have delivered in time (away: board-0, board-1)"
    assert site.run.work(0, 63.0) is None
    site.directory.close()


def test_a_site_that_nobody_has_joined_says_so(tmp_path):
    site = Site(tmp_path, roster=())
    site.order(Stage.TRAIN, 1)
    site.run.tick(60.0)
    assert site.answer is None
    site.run.tick(62.0)
    assert site.answer[1]["refused"] == "0 of 2 boards of this site have joined (away: nobody known)"
    site.directory.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"server": {"optimizer": "adam"}}, "server.optimizer is 'adam', and a site answers with its mean: leave it"),
        ({"phases": [{"algorithm": "scaffold"}]}, "'scaffold' keeps a mean over all participants"),
    ],
)
def test_what_a_site_cannot_answer_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        check_between(config_from(settings))


RUN = {
    "seed": 3,
    "model": {"name": "mlp"},
    "data": {"source": "synthetic:samples=120,size=8", "participants": 4, "partition": "dirichlet:1"},
    "phases": [
        {"algorithm": "fomaml", "rounds": 2, "local_steps": 2, "batch_size": 4},
        {"algorithm": "anil", "rounds": 2, "local_steps": 2, "batch_size": 4},
    ],
    "server": {"clip": "off", "optimizer": "momentum"},
    "evaluation": {"every": 2, "support": 8, "grid": [[1, 4]]},
}


def test_two_sites_of_two_boards_have_the_flat_runs_model_to_rounding(tmp_path):
    flat = edgemeta.simulate(RUN)
    prepared = api.prepare(config_from(RUN))
    network, parts = prepared.network, prepared.participants

    def opened(name, settings, kind, roster):
        config = resolve(config_from(RUN | settings), prepared.config.model.input_shape, prepared.config.model.names)
        return kind(Plan(config), network, network.init(3), RunDirectory(tmp_path / name, config), roster, 0.0)

    top = opened("top", {"data": RUN["data"] | {"participants": 2}}, Coordinator, (0, 1))
    below = {"server": {"clip": "off", "min_available_clients": 2}}
    sites = [opened(f"site{k}", below, Between, (2 * k, 2 * k + 1)) for k in (0, 1)]
    for turn in itertools.count():
        if top.finished:
            break
        for k, site in enumerate(sites):
            work, folder = top.work(k, 0.0), site.directory.path
            place_order(folder, str(turn), work, {"theta": load_parameters(top.model_path)[1], **top.beside})
            site.tick(0.0)
            for board in site.roster:
                files = (site.model_path, site.state_path, folder / "result", folder / f"board{board}")
                one = perform(network, parts, Task(site.work(board, 0.0), *files)).work
                if one.kind is Stage.TRAIN:
                    site.deliver(board, one.round, folder / "result", 0.0)
                else:
                    site.deliver_evaluation(board, one.round, read_file(folder / "result"), 0.0)
            vectors, said = answer_to(folder, str(turn))
            if work.kind is Stage.TRAIN:
                numbers = float(said["loss"]), int(said["gradient_evaluations"])
                update = Update(vectors, {}, int(said["samples"]), *numbers)
                parts_of = encode_update(update, work.round, work.layout, work.recipe.upload)
                write_parts(tmp_path / "up", parts_of)
                top.deliver(k, work.round, tmp_path / "up", 0.0)
            else:
                body = encode_evaluation(json.loads(said["scores"]))
                top.deliver_evaluation(k, work.round, body, 0.0)
    theta = load_parameters(top.model_path)[1]
    np.testing.assert_allclose(theta, flat.model.theta, rtol=0, atol=1e-6)
    ours, theirs = top.directory.history(), flat.history
    for key in ("before", "after"):
        mean = [records[-1]["evaluation"][key]["accuracy"]["mean"] for records in (ours, theirs)]
        assert mean[0] == pytest.approx(mean[1], abs=0.02)
    for run in (top, *sites):
        run.directory.close()
