"""What nodes can do to a ServerApp, and a kill, in one process: messages, contexts and apps are Flower's own."""

import json
import logging

import numpy as np
import pytest
from federations import needs_flower
from runs import TINY, arrays, without_seconds

import edgemeta
from edgemeta.config import config_from, to_toml

pytestmark = [needs_flower, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # what Flower itself imports

RUN = TINY | {
    "data": TINY["data"] | {"held_out": 0, "participants": 3, "partition": "iid"},
    "phases": [TINY["phases"][1]],
    "server": {"min_fit_clients": 1},
}


@pytest.fixture
def serve(tmp_path):
    """Runs settings on nodes with a grid of a kind, and returns the records of what was run."""

    def served(settings, nodes, kind=None):
        from flwr.app import Context, RecordDict
        from ingrid import InProcess

        (tmp_path / "run.toml").write_text(to_toml(config_from(settings)))
        grid = (kind(InProcess) if kind else InProcess)(nodes)
        config = {"out": str(tmp_path / "run")}
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
        edgemeta.flower.server_app(tmp_path / "run.toml")(grid, context)
        return [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]

    return served


def numbered(count):
    return {10 + k: {"partition-id": k} for k in range(count)}


def test_nodes_that_cannot_take_part_are_named_and_the_run_goes_on_without_them(serve, tmp_path, caplog):
    x, y = arrays(30)
    np.savez(tmp_path / "small.npz", x=x, y=y)
    bad = {
        1: {"partition-id": 0, "data": str(tmp_path / "nowhere")},
        2: {"partition-id": 0, "data": str(tmp_path / "small.npz")},
        3: {"num-partitions": 3},
        4: {"partition-id": 7},
        20: {"partition-id": 2},  # as node 12
    }
    history = serve(RUN, bad | numbered(3))
    assert without_seconds(history) == without_seconds(edgemeta.simulate(RUN).history)
    for said in (
        f"node 1: no data at '{tmp_path / 'nowhere'}' (No such file or directory): expected",
        f"node 2: {tmp_path / 'small.npz'} (npz) has samples of shape (4, 4, 1), and (8, 8, 3) is wanted",
        "node 3: this node's partition-id is None: start each with its own number, counted from 0",
        "node 4: there is no part 7: this run cuts its data into 3, counted from 0",
        "node 20: its partition-id is 2, which node 12 has: give each its own",
    ):
        assert said in caplog.text


def test_a_node_that_diverges_is_not_waited_for(serve, caplog):
    def loud(kind):
        class Loud(kind):
            def push_messages(self, messages):
                for message in messages:
                    if message.metadata.dst_node_id == 12:
                        said = message.content["config"]
                        said["settings"] = said["settings"].replace("lr = 0.02", "lr = 1e30")
                return super().push_messages(messages)

        return Loud

    history = serve(RUN | {"phases": [RUN["phases"][0] | {"lr": 0.02}]}, numbered(3), loud)
    assert [(record["participants"], record["failures"]) for record in history[1:]] == [(2, 1), (2, 1)]
    assert "participant 2: training diverged: loss or parameters are not finite" in caplog.text


def test_a_node_with_one_class_takes_part(serve, tmp_path):
    data = edgemeta.data.open_data(TINY["data"]["source"], seed=3)
    x, _ = data.train.load()
    np.savez(tmp_path / "one.npz", x=x, y=np.full(len(x), data.train.classes[0]))
    history = serve(RUN, numbered(2) | {12: {"partition-id": 2, "data": str(tmp_path / "one.npz")}})
    assert history[-1]["participants"] == 3


def test_a_node_that_dies_in_a_round_is_not_waited_for(serve, caplog):
    def dying(kind):
        class Dying(kind):
            def pull_messages(self, message_ids):
                kinds = {self.waiting[number].metadata.message_type for number in message_ids if number in self.waiting}
                if "train" in kinds:
                    self.gone = {12}
                return super().pull_messages(message_ids)

        return Dying

    history = serve(RUN, numbered(3), dying)
    assert [(record["participants"], record["failures"]) for record in history[1:]] == [(2, 1), (2, 0)]
    assert "participant 2: its node 12 has gone" in caplog.text


def test_a_node_whose_updates_do_not_count_is_held_until_another_one_comes(serve, caplog):
    def spoiling(kind):
        class Spoiling(kind):
            def get_node_ids(self):
                if "participant 2 is asked no more" in caplog.text and 22 not in self.contexts:
                    self.contexts[22] = self.contexts.pop(12)
                return super().get_node_ids()

            def pull_messages(self, message_ids):
                from edgemeta.flower.records import to_arrays

                replies = super().pull_messages(message_ids)
                for reply in replies:
                    if "update" in reply.content and reply.metadata.src_node_id == 12:
                        sizes = {name: array.shape for name, array in reply.content["arrays"].items()}
                        nothing = {name: np.full(shape, np.nan, np.float32) for name, shape in sizes.items()}
                        reply.content["arrays"] = to_arrays(nothing)
                return replies

        return Spoiling

    history = serve(RUN | {"phases": [RUN["phases"][0] | {"rounds": 6}]}, numbered(3), spoiling)
    counts = [record["participants"] for record in history[1:]]
    assert counts[:3] == [2, 2, 2]
    assert counts[-1] == 3
    assert "participant 2: the update holds NaN or infinity" in caplog.text
    assert "asked no more: a node that is started anew with its partition-id lets it take part again" in caplog.text


def test_whatever_a_node_answers_the_run_goes_on(serve, caplog):
    def hostile(kind):
        class Hostile(kind):
            def pull_messages(self, message_ids):
                from flwr.app import ConfigRecord, RecordDict

                replies = super().pull_messages(message_ids)
                spoiled = {
                    1: {"node": ConfigRecord({"participant": -1, "own": False})},
                    2: {"node": ConfigRecord({"participant": "first"})},
                    3: {"node": ConfigRecord({"participant": [1, 2]})},
                    4: {},
                    12: {"scores": ConfigRecord({"body": 10**9}), "update": ConfigRecord({"round": 1})},
                }
                for reply in replies:
                    sender = reply.metadata.src_node_id
                    if sender in spoiled and (sender != 12 or "node" not in reply.content):  # 12 takes part
                        reply.content = RecordDict(spoiled[sender])
                return replies

        return Hostile

    bad = {node: {"partition-id": 0} for node in (1, 2, 3, 4)}
    history = serve(RUN, bad | numbered(3), hostile)
    assert [(record["participants"], record["failures"]) for record in history[1:]] == [(2, 1), (2, 1)]
    for said in ("node 1: its partition-id is -1", "node 2: invalid literal", "participant 2: scores as int"):
        assert said in caplog.text


def test_a_server_app_that_was_killed_goes_on_with_the_same_bits(serve, tmp_path):
    class Killed(BaseException):
        pass

    def killed_at(call):
        def made(kind):
            class Kills(kind):
                calls = 0

                def pull_messages(self, message_ids):
                    self.calls += 1
                    if self.calls == call:
                        raise Killed
                    return super().pull_messages(message_ids)

            return Kills

        return made

    for call in (2, 3, 4):
        with pytest.raises(Killed):
            serve(RUN, numbered(3), killed_at(call))
    history, expected = serve(RUN, numbered(3)), edgemeta.simulate(RUN)
    ours = edgemeta.load_model(tmp_path / "run" / "model.safetensors").theta
    assert ours.tobytes() == expected.model.theta.tobytes()
    assert without_seconds(history) == without_seconds(expected.history)


def test_another_layout_on_a_node_is_named(tmp_path, caplog):
    from flwr.app import ConfigRecord, Message, RecordDict
    from ingrid import InProcess

    (tmp_path / "run.toml").write_text(to_toml(config_from(RUN)))
    _, said = edgemeta.flower.initial(tmp_path / "run.toml")
    run = json.loads(said["run"])
    run["model"]["layout"] = "0" * 16
    grid = InProcess(numbered(1))
    message = Message(
        RecordDict({"config": ConfigRecord(dict(said) | {"run": json.dumps(run), "counted": 0})}), 10, "query"
    )
    with caplog.at_level(logging.ERROR):
        (reply,) = grid.send_and_receive([message])
    assert "its layout is 0000000000000000, and here it would be" in reply.content["refused"]["said"]


def test_a_mod_that_takes_an_update_for_parameters_is_an_error(tmp_path):
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.clientapp.mod import LocalDpMod
    from ingrid import InProcess

    (tmp_path / "run.toml").write_text(to_toml(config_from(RUN)))
    start, said = edgemeta.flower.initial(tmp_path / "run.toml")
    grid = InProcess(numbered(1), mods=[LocalDpMod(1.0, 1.0, 1.0, 1e-5)])
    task = ConfigRecord(dict(said) | {"server-round": 1, "counted": 0})
    (reply,) = grid.send_and_receive([Message(RecordDict({"config": task, "arrays": start}), 10, "train")])
    assert reply.has_error()


@pytest.mark.parametrize("algorithm", ["fedper", "scaffold", "meta-sgd"])
def test_what_stays_on_a_node_and_what_travels_beside_theta_have_the_simulations_bits(serve, algorithm):
    phase = {"algorithm": algorithm, "rounds": 3, "local_steps": 2, "batch_size": 4}
    settings = RUN | {"phases": [phase], "evaluation": {"every": 2, "support": 8}}
    assert without_seconds(serve(settings, numbered(3))) == without_seconds(edgemeta.simulate(settings).history)
