"""A site: runs follow each other on one gateway, are changed while they are at work, and devices stay."""

import gc
import json
import shlex
import shutil
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import numpy as np
import pytest
from disks import Disk, Killed, in_place_of_the_system
from gateways import ACCEPTED, Gateway, no_gateway_left, wait_for
from kept import history_in, mark, run_in, unpack, vector_in
from processes import SPEC, end, write_config
from runs import TINY, command_line

import edgemeta
from edgemeta.bench.loopback import device, start_gateway
from edgemeta.fed.runs import run_of, runs
from edgemeta.gateway.site import begin_run, opened

ROUNDS = {"phases": [{"algorithm": "fedavg", "rounds": 2, "local_steps": 2, "batch_size": 4}]}


@pytest.fixture
def run(tmp_path):
    gateways = []

    def start(**settings):
        gateways.append(Gateway(tmp_path / "state", **settings))
        return gateways[-1]

    with no_gateway_left(gateways):
        yield start


def asked(site, *arguments):
    done = command_line("run", *arguments, "--state", site)
    assert "Traceback" not in done.stderr
    return done


def served_model(peer):
    try:
        return peer.call("GET", "/v1/run")[2]["model"]["name"]
    except (OSError, HTTPException, KeyError):  # between two runs nobody listens for a moment
        return None


def history(site):
    return [json.loads(line) for line in (run_of(site) / "history.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_three_runs_after_each_other_with_the_same_devices(tmp_path):
    settings = TINY | ROUNDS | {"data": TINY["data"] | {"participants": 2, "held_out": 0}}
    config, site = write_config(tmp_path, settings), tmp_path / "site"
    process, url = start_gateway(config, site)
    places = [tmp_path / f"board-{k}" for k in range(2)]

    def go():
        devices = [device(url, place, "--data", SPEC, "--partition-id", k) for k, place in enumerate(places)]
        try:
            assert [one.wait(60) for one in devices] == [0, 0], [p.with_suffix(".log").read_text() for p in places]
        finally:
            end(*devices)

    try:
        go()
        first = edgemeta.load_model(site / "model.safetensors")
        assert asked(site, "new", "--config", config, "--from", "latest").returncode == 0
        begun = edgemeta.load_model(runs(site)[1] / "model.safetensors")
        assert (begun.round, begun.theta.tobytes()) == (0, first.theta.tobytes())
        go()  # without a word to them: they hear of another run, and take part in it
        reference = edgemeta.simulate(config, out=tmp_path / "simulated", init=runs(site)[0] / "model.safetensors")
        assert edgemeta.load_model(site / "model.safetensors").theta.tobytes() == reference.model.theta.tobytes()
        assert "another run" in places[0].with_suffix(".log").read_text()
        made = asked(site, "new", "--config", config, "--set", "phases.0.rounds=1", "--set", "model.name=cnn-small")
        assert made.returncode == 0, made.stderr
        go()
        listed = json.loads(asked(site, "list", "--json").stdout)["runs"]
        assert [(one["run"], one["state"], one["round"], one["last_round"], one["model"]) for one in listed] == [
            ("0001", "over", 2, 2, "mlp"),
            ("0002", "over", 2, 2, "mlp"),
            ("0003", "over", 1, 1, "cnn-small"),
        ]
        known = json.loads(command_line("devices", "--json", "--state", site).stdout)["devices"]
        assert [(one["name"], one["runs"], one["enrolled"]) for one in known] == [
            ("board-0", 3, None),
            ("board-1", 3, None),
        ]
        assert not (site / "progress.json").exists()
        assert not list(site.rglob("*.tmp"))
    finally:
        end(process)
    again, _ = start_gateway(config, site)  # a unit that starts with --config goes on with whatever run is newest
    end(again)
    assert "run 0003" in site.with_suffix(".log").read_text()


def test_a_run_that_is_at_work_keeps_another_one_out_until_it_is_stopped(run, tmp_path):
    gateway = run(rounds=3, every=1)
    devices, config = gateway.devices(), tmp_path / "next.toml"
    config.write_text('[model]\nname = "mlp"\ninput_shape = [3]\nclasses = ["a", "b"]\n[data]\nparticipants = 2\n')
    assert devices[0].update() == ACCEPTED
    refused = asked(gateway.path, "new", "--config", config)
    assert (refused.returncode, "'edgemeta run stop' ends it" in refused.stderr) == (2, True)
    assert len(runs(gateway.path)) == 1
    assert asked(gateway.path, "stop").returncode == 0
    begun = asked(gateway.path, "new", "--config", config)  # at once, whether the gateway has looked or not
    assert begun.returncode == 0, begun.stderr
    wait_for(lambda: served_model(devices[0]) == "mlp")
    assert devices[0].work() == 401  # its session was for the run before
    assert devices[0].join()[0] == 200
    assert json.loads((runs(gateway.path)[0] / "summary.json").read_text())["rounds"] == 0
    assert [record["round"] for record in gateway.records] == [0]


def test_stopped_in_an_evaluation_the_scores_that_came_are_kept_and_more_rounds_take_it_back(run):
    gateway = run(rounds=2, every=1)
    devices = gateway.devices()
    for one in devices:
        assert one.update() == ACCEPTED
    assert devices[0].work() == ("evaluate", 1)
    assert devices[0].scores(1) == ACCEPTED
    assert asked(gateway.path, "stop").returncode == 0
    wait_for(lambda: devices[0].work() == 410)
    assert [record["round"] for record in history(gateway.path)] == [0, 1]
    assert history(gateway.path)[1]["evaluation_missing"] == [1]
    assert (run_of(gateway.path) / "summary.json").exists()
    done = asked(gateway.path, "extend", "--rounds", 3)
    assert done.stdout == "run 0001: its last round is 5\n"
    wait_for(lambda: devices[1].work() == ("train", 2))
    assert not (run_of(gateway.path) / "summary.json").exists()
    assert devices[1].status()["last_round"] == 5


def test_a_run_that_was_over_goes_on_for_more_rounds_also_from_a_start(run):
    gateway = run(rounds=1)
    devices = gateway.devices()
    for one in devices:
        assert one.update() == ACCEPTED
    for one in devices:
        assert one.work(5) == ("evaluate", 1)
        assert one.scores(1) == ACCEPTED
    assert devices[0].work() == 410
    gateway.stop()
    assert asked(gateway.path, "extend", "--rounds", 1).returncode == 0
    gateway.start()
    for one in devices:
        one.port = gateway.port
    wait_for(lambda: devices[0].work() == ("train", 2))
    assert [record["round"] for record in history(gateway.path)] == [0, 1]


def test_what_may_change_holds_from_the_open_round_on_and_is_in_its_record(run):
    gateway = run(participants=3, rounds=3, min_fit_clients=2)
    devices = gateway.devices(3)
    for one in devices[:2]:
        assert one.update() == ACCEPTED
    done = asked(gateway.path, "set", "server.round_deadline_s=2", "server.fraction_fit=0.67")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: devices[0].status()["round"] == 2, 10)
    wait_for(lambda: len(devices[0].status()["cohort"]) == 2)  # 0.67 of three
    changed = {"server.round_deadline_s": 2, "server.fraction_fit": 0.67}
    assert [record.get("changed") for record in history(gateway.path)] == [None, changed]
    shown = json.loads(asked(gateway.path, "show", "--json").stdout)
    assert shown["settings"]["server"]["round_deadline_s"] == 2
    assert shown["changes"] == [{"settings": changed}]
    began = (run_of(gateway.path) / "run.toml").read_text()
    assert "round_deadline_s = 60" in began


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("set", "phases.0.lr=0.1"), "'edgemeta run new --config RUN.toml'"),
        (("set", "model.name=cnn"), "'edgemeta run new --config RUN.toml'"),
        (("set", "phases.0.rounds=9"), "'edgemeta run extend --rounds N'"),
        (("set", "server.fraction_fit=2"), "server.fraction_fit is 2"),
        (("set", "server.fraction_fit=all"), "expected a number"),
        (("set", "server.min_fit_clients=3"), "only 2 participants train"),
        (("set", "server.deadline=3"), "what can: server.round_deadline_s"),
        (("set", "nothing"), "KEY=VALUE"),
        (("extend", "--rounds", "0"), "0 is not in the range"),
        (("show", "7"), "has no run 7"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(tmp_path, run, arguments, says):
    gateway = run(rounds=1)
    done = asked(gateway.path, *arguments)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    assert not (run_of(gateway.path) / "changes.json").exists()
    nowhere = asked(tmp_path / "nowhere", *arguments)
    assert nowhere.returncode == 2
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.slow
def test_the_advice_of_a_start_with_other_settings_can_be_followed(tmp_path):
    config, site = write_config(tmp_path, TINY), tmp_path / "site"
    process, _ = start_gateway(config, site)
    end(process)

    def start(*settings):
        """Start with settings that differ, follow what is advised, and return that."""
        arguments = [part for setting in settings for part in ("--set", setting)]
        done = command_line("server", "--config", config, "--state", site, "--port", 0, *arguments)
        assert done.returncode == 2, done.stderr
        advised = [part for part in done.stderr.split("'") if part.startswith("edgemeta run")]
        for command in reversed(advised):  # what has to come first is said last
            followed = command_line(*shlex.split(command)[1:])
            assert followed.returncode == 0, followed.stderr
        return [command.split()[2] for command in advised]

    assert start("server.round_deadline_s=5", "evaluation.every=3") == ["set"]
    assert start("phases.1.rounds=9") == ["extend"]
    assert start("phases.0.lr=0.5") == ["new", "stop"]
    assert [run.name for run in runs(site)] == ["0001", "0002"]
    assert "lr = 0.5" in (runs(site)[1] / "run.toml").read_text()
    changed = ("server.round_deadline_s=5", "evaluation.every=3")
    for settings in ((), changed):  # the first run's settings, as it began or as they were changed since
        arguments = [part for setting in settings for part in ("--set", setting)]
        process, _ = start_gateway(config, site, *arguments)
        end(process)


@pytest.mark.parametrize("name", ["household-training", "household-finished", "gateway-opened-again"])
def test_a_state_directory_of_before_becomes_a_site_whenever_that_is_cut_off(tmp_path, name):
    kept = unpack(name, tmp_path / "kept") / "gateway"
    mark(next(kept.glob("rounds/*/model.safetensors")), "dense1.weight")
    held = {path.relative_to(kept): path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    whole, at = False, 0
    while not whole:
        at += 1
        site = tmp_path / f"{at}"
        shutil.copytree(kept, site)
        with in_place_of_the_system(Disk(at, "kill")):
            try:
                with opened(site):
                    whole = True
            except Killed:
                pass
        with opened(site):  # goes on with what was begun
            pass
        assert [run.name for run in runs(site)] == ["0001"]
        for path, content in held.items():
            if path.parts[0] not in ("lock", "incoming", "model.safetensors", "devices.json", "tls"):
                assert (runs(site)[0] / path).read_bytes() == content, path
                assert not (site / path).exists()
        assert (site / "model.safetensors").exists() == (Path("model.safetensors") in held)
    assert at > 20


def test_a_run_that_was_half_made_is_made_again(tmp_path):
    gateway = Gateway(tmp_path / "site", rounds=1)
    gateway.stop()
    site, theta = tmp_path / "site", np.ones(gateway.network.layout.size, np.float32)
    assert command_line("run", "stop", "--state", site).returncode == 0
    at = 0
    while len(runs(site)) < 2:
        at += 1
        with in_place_of_the_system(Disk(at, "kill")), suppress(Killed):
            begin_run(site, gateway.config, gateway.network, theta)
        gc.collect()  # as its end would, before anything else is open
        assert all((run / "progress.json").exists() for run in runs(site))
    assert at > 30
    assert vector_in((runs(site)[1] / "model.safetensors").read_bytes()).tolist() == theta.tolist()


def test_a_kept_run_goes_on_as_the_first_of_a_site(tmp_path):
    house = unpack("household-finished", tmp_path)
    before = history_in(house)
    process, _ = start_gateway(run_in(house) / "run.toml", house / "gateway")
    end(process)
    assert history_in(house) == before
    assert (house / "gateway" / "runs" / "0001" / "roster.json").exists()
    assert asked(house / "gateway", "show").returncode == 0


def test_who_was_last_heard_when_outlives_gateway_and_run(run):
    gateway = run()
    gateway.devices()
    began = time.time()
    gateway.stop()
    listed = json.loads(command_line("devices", "--json", "--state", gateway.path).stdout)["devices"]
    assert [(one["name"], abs(one["seen"] - began) < 5) for one in listed] == [("cam-0", True), ("cam-1", True)]
    assert "seen 20" in command_line("devices", "--state", gateway.path).stdout
    (gateway.path / "seen.json").write_text("{")
    gateway.start()  # it is no reason to stay away
    gateway.stop()
    damaged = command_line("devices", "--state", gateway.path)
    assert (damaged.returncode, "remove it" in damaged.stderr) == (2, True)
