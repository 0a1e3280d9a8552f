"""What a gateway says to Prometheus, read by its own tool and by a parser of the format that is written here."""

import math
import re
import shutil
import subprocess
from itertools import pairwise

import pytest
from gateways import Device, Gateway, no_gateway_left, own_address, refused

from edgemeta.fed.curves import MOST, Curves
from edgemeta.gateway.metrics import MOST_DEVICES, metrics_of
from edgemeta.gateway.standings import Doing

NAME = 'a "cup" \\ <b>'
LABEL = r'[a-z_]+="((?:[^"\\\n]|\\["\\n])*)"'
LINE = re.compile(rf"([a-z_]+)(?:\{{{LABEL}(?:,{LABEL})?\}})? ([0-9.e+-]+)")


def parsed(text):
    """Return (name, its labels' values or None) -> number, once every line is what the format knows."""
    kinds, series = {}, {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            if word == "TYPE":
                assert rest in ("counter", "gauge")
                kinds[name] = rest
            continue
        name, *values, number = LINE.fullmatch(line).groups()
        assert name.endswith("_total") == (kinds[name] == "counter"), name
        plain = [re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), one) for one in values if one]
        value = "/".join(plain) or None
        assert (name, value) not in series
        series[name, value] = float(number)
    return series


@pytest.fixture
def run(tmp_path):
    gateway = Gateway(tmp_path / "state", every=1)
    with no_gateway_left([gateway]):
        yield gateway


def scraped(device):
    status, headers, text = device.call("GET", "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return parsed(text.decode())


def test_the_numbers_follow_a_run(run):
    first, second = run.device(NAME), run.device("cam")
    for device in (first, second):
        assert device.work(wait=5) == ("evaluate", 0)
    before = scraped(Device(run.port, "operator"))
    assert before["edgemeta_round", None] == 0
    assert before["edgemeta_stage", "evaluate"] == 1
    assert before["edgemeta_stage", "train"] == 0
    assert before["edgemeta_devices", "works"] == 2
    assert sum(before["edgemeta_devices", word] for word in Doing) == 2
    assert 0 <= before["edgemeta_device_silent_seconds", NAME] < 5
    assert 50 < before["edgemeta_stage_remaining_seconds", None] <= 60
    assert ("edgemeta_trained_round", None) not in before
    assert ("edgemeta_certificate_remaining_seconds", None) not in before

    first.scores(before={"loss": 2.0, "accuracy": 0.25}, after={"loss": 1.0, "accuracy": 0.5})
    second.scores(before={"loss": 2.0, "accuracy": 0.75}, after={"loss": 1.0, "accuracy": 1.0})
    assert refused(first.update(round_number=7)) == (409, "wrong-round")
    first.update()
    after = scraped(Device(run.port, "operator"))
    assert (after["edgemeta_round", None], after["edgemeta_last_round", None]) == (1, 1)
    assert (after["edgemeta_devices", "delivered"], after["edgemeta_devices", "asked"]) == (1, 1)
    assert after["edgemeta_refusals_total", "wrong-round"] == 1
    assert after["edgemeta_device_refusals_total", NAME] == 1
    assert after["edgemeta_device_refusals_total", "cam"] == 0
    assert after["edgemeta_received_bytes_total", None] > 200
    assert after["edgemeta_evaluated_round", None] == 0
    second.update()
    assert [device.scores(round_number=1)[0] for device in (first, second)] == [200, 200]
    over = scraped(Device(run.port, "operator"))
    assert over["edgemeta_trained_round", None] == over["edgemeta_evaluated_round", None] == 1
    assert over["edgemeta_training_loss", None] == 0.5
    assert over["edgemeta_device_counted_round", "cam"] == 1
    assert over["edgemeta_stage", "over"] == 1


def test_accuracies_of_both_models_have_series_of_their_own(run):
    assert not [name for name, _ in scraped(Device(run.port, "x")) if "accuracy" in name]
    for device, share in zip([run.device("a"), run.device("b")], (0.25, 0.75), strict=True):
        device.work(wait=5)
        device.scores(before={"loss": 2.0, "accuracy": share}, after={"loss": 1.0, "accuracy": 1.0})
    found = scraped(Device(run.port, "x"))
    assert found["edgemeta_accuracy_ratio", "known/global"] == 0.5
    assert found["edgemeta_accuracy_ratio", "known/adapted"] == 1.0
    assert found["edgemeta_loss", "known/global"] == 2.0


@pytest.mark.skipif(not shutil.which("promtool"), reason="NOT TESTED: /metrics by promtool, as there is none")
def test_promtool_has_nothing_to_say(run):
    for device in (run.device(NAME), run.device("b")):
        device.work(wait=5)
        device.scores()
        device.scores(round_number=9)  # a refusal
    text = Device(run.port, "x").call("GET", "/metrics")[2]
    assert b"device_refusals_total" in text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_who_may_read_them_is_who_may_read_the_status(tmp_path):
    address = own_address()
    gateway = Gateway(tmp_path / "state", host="0.0.0.0", insecure=True)
    with no_gateway_left([gateway]):
        peer = Device(gateway.port, "x")
        for path in ("/metrics", "/status.json"):
            assert peer.call("GET", path, Host="evil.example")[2]["error"] == "unknown-host"
            assert peer.call("GET", path, Origin="https://evil.example")[2]["error"] == "foreign-origin"
            assert peer.call("HEAD", path)[::2] == (200, b"")
            assert peer.call("POST", path)[2]["error"] == "wrong-method"
            if address:
                status = subprocess.run(
                    ["curl", "-s", "-m", "5", f"http://{address}:{gateway.port}{path}"], capture_output=True, check=True
                )
                assert b"operator-only" in status.stdout


def test_a_thousand_devices_have_series_and_all_are_counted(run):
    status = Device(run.port, "x").status()
    one = {"heard_s": 1.0, "counted": 2, "refusals": {}, "doing": "waits"}
    status["devices"] = [{"name": f"d{k}", **one} for k in range(MOST_DEVICES + 500)]
    found = parsed(metrics_of(status))
    assert len([key for key in found if key[0] == "edgemeta_device_silent_seconds"]) == 1000
    assert found["edgemeta_devices", "waits"] == 1500


def test_an_unchanged_status_is_not_sent_again(run):
    peer = Device(run.port, "x")
    _, headers, said = peer.call("GET", "/status.json")
    assert said["devices"] == []
    tag = headers["ETag"]
    assert peer.call("GET", "/status.json", **{"If-None-Match": f'"other", {tag}'})[::2] == (304, b"")
    assert peer.call("GET", "/status.json", **{"If-None-Match": '"other"'})[0] == 200
    run.device("cam")
    status, headers, said = peer.call("GET", "/status.json", **{"If-None-Match": tag})
    assert (status, [one["name"] for one in said["devices"]]) == (200, ["cam"])
    assert headers["ETag"] != tag


def record(number, loss):
    scores = {"accuracy": {"mean": 0.5, "p10": 0.25, "p50": 0.5, "p90": 0.75}}
    return {"round": number, "train_loss": loss, "evaluation": {"before": None, "after": scores, "chance": 0.2}}


def test_curves_of_a_long_run_stay_few_points_from_its_first_to_its_last():
    curves = Curves([])
    for number in range(1000):
        curves.add(record(number, float(number)))
        assert len(curves.losses) <= MOST
    rounds = [number for number, _ in curves.losses]
    assert (rounds[0], rounds[-1], rounds) == (0, 999, sorted(set(rounds)))
    assert len(rounds) == MOST
    assert max(after - before for before, after in pairwise(rounds)) <= 32
    known = {"before": None, "after": {"accuracy": [0.5, 0.25, 0.75]}, "chance": 0.2}
    assert curves.to_json()["losses"][-1] == [999, 999.0]
    assert curves.to_json()["scores"][-1] == {"round": 999, "known": known}


def test_what_somebody_wrote_into_a_history_is_left_out_of_curves():
    damaged = [{}, {"round": 1}, *({"round": 1, "train_loss": loss} for loss in ("x", math.inf))]
    curves = Curves([*damaged, {**record(2, 1.0), "evaluation": {"before": 1, "after": 2}}, record(3, 0.5)])
    assert curves.losses[-1] == (3, 0.5)
    assert [number for number, _ in curves.scores] == [3]
