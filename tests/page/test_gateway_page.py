"""The gateway's page: what a server can say of it, and what a person sees of it in a real browser."""

import base64
import hashlib
import json
import re
import time

import pytest
from gateways import ACCEPTED, SCORES, SIZE, Device, Gateway, no_gateway_left, own_address, update_body, wait_for

from edgemeta.gateway.tokens import DEVICES_FILE, set_operator

NAME = '<script>alert(1)</script><img src=x onerror=alert(2)>"&amp;'


@pytest.fixture
def run(tmp_path):
    gateway = Gateway(tmp_path / "state", rounds=2, every=1)
    with no_gateway_left([gateway]):
        yield gateway


def scored(device, before, after, round_number=0):
    scores = {"before": {"loss": 2.0, "accuracy": before}, "after": {"loss": 1.0, "accuracy": after}}
    return device.scores(round_number=round_number, **scores)


def test_it_is_one_file_and_its_policy_lets_nothing_else_run(run):
    status, headers, text = Device(run.port, "x").call("GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    html = text.decode()
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    for kind in ("script", "style"):
        (inside,) = re.findall(f"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert re.findall(r"https?://[^\"'`\s]*", html) == ["http://www.w3.org/2000/svg"]
    assert not re.search(
        r"\bon[a-z]+=|\sstyle=|@import|url\(|\.innerHTML|outerHTML|insertAdjacent|document\.write", html
    )


def test_who_asks_for_it_by_a_strange_name_or_from_a_strange_page_is_refused(run):
    peer = Device(run.port, "x")
    assert peer.call("GET", "/", Host="evil.example")[2]["error"] == "unknown-host"
    assert peer.call("GET", "/", Origin="https://evil.example")[2]["error"] == "foreign-origin"
    assert peer.call("POST", "/", b"")[2]["error"] == "wrong-method"
    assert peer.call("HEAD", "/")[::2] == (200, b"")


@pytest.mark.slow
def test_it_follows_a_run_and_hostile_names_stay_text(run, tab):
    tab.open(f"http://127.0.0.1:{run.port}/")
    tab.wait("document.querySelector('#state').textContent.includes('0 of 2 training devices')")
    assert tab.text("#devices") == "No device has joined yet."
    first, second = run.device(NAME), run.device("cam 2")
    for device in (first, second):
        assert device.work(wait=5) == ("evaluate", 0)
    again(tab)
    tab.wait("document.querySelector('#state').textContent.includes('0 of 2 devices have delivered')")
    assert tab.text("#missing") == f"Missing: {NAME}, cam 2"
    assert tab.text("#devices tbody tr th") == NAME
    assert tab.value("document.querySelectorAll('main script, main img').length") == 0

    assert [scored(first, 0.25, 0.5), scored(second, 0.25, 1.0)] == [ACCEPTED, ACCEPTED]
    assert second.update(round_number=7)[0] == 409
    assert first.update() == ACCEPTED
    again(tab)
    tab.wait("document.querySelector('#state').textContent.startsWith('Round 1 of 2, training: 1 of 2 devices')")
    figures = tab.text("#figures")
    assert "chance 50.0\u00a0%\n25.0\u00a0% → 75.0\u00a0%" in figures
    assert "wrong-round 1" in tab.text("#devices")
    assert "25.0\u00a0% → 50.0\u00a0%" in tab.text("#devices tbody tr")
    assert "wrong-round\trefused\t1" in tab.text("#refused")
    rows = tab.value("[...document.querySelectorAll('#devices tbody tr')].map((row) => row.innerText)")
    assert [row.split("\t")[2] for row in rows] == ["has delivered", "is asked"]
    assert [row.split("\t")[3] for row in rows] == ["25.0\u00a0% → 50.0\u00a0%", "25.0\u00a0% → 100.0\u00a0%"]

    assert second.update() == ACCEPTED
    assert [scored(first, 0.5, 0.5, 1), scored(second, 0.5, 1.0, 1)] == [ACCEPTED, ACCEPTED]
    again(tab)
    tab.wait("document.querySelector('#state').textContent.startsWith('Round 2 of 2')")
    label = tab.value("document.querySelector('#charts svg').getAttribute('aria-label')")
    assert label == (
        "accuracy, participants that train: as it is ends at 50.0 %; adapted ends at 75.0 %; chance ends at 50.0 %"
    )
    # 0 to 100 % are 194 units above the line at 204, and rounds 0 and 1 are at 44 and 350: 25 % is at 155.5.
    assert tab.value("document.querySelector('#charts polyline.c0').getAttribute('points')") == "44.0,155.5 350.0,107.0"
    assert tab.errors == []


@pytest.mark.slow
def test_of_many_devices_a_status_is_good_for_a_fifth_of_a_second(tmp_path):
    gateway = Gateway(tmp_path / "state", participants=50)
    with no_gateway_left([gateway]):
        peer = gateway.device("cam-0")
        for k in range(1, 49):
            gateway.device(f"cam-{k}")
        before = peer.status()["refusals"]
        assert peer.call("GET", "/nothing")[0] == 404
        assert peer.status()["refusals"] == {"not-found": before.get("not-found", 0) + 1}  # of few it is made each time
        gateway.device("cam-49")
        while not (answers := two_quick_answers(peer)):
            time.sleep(0.2)
        assert answers[0] == answers[1]
        count = answers[0][1]["refusals"]["not-found"]
        wait_for(lambda: peer.status()["refusals"]["not-found"] > count, 1.0)


def two_quick_answers(peer):
    """Return the ETag and the status before and after a refusal; None where this machine was too busy for that."""
    began, answers = time.monotonic(), []
    for _ in range(2):
        _, headers, status = peer.call("GET", "/status.json")
        answers.append((headers["ETag"], status))
        assert peer.call("GET", "/nothing")[0] == 404
    quick = time.monotonic() - began < 0.1
    return answers if quick else None


def test_what_a_device_was_sent_and_has_sent_and_how_it_was_last_scored(run):
    first, second = run.devices(2)
    assert first.work(wait=5) == ("train", 1)
    assert [scored_of(run, one) for one in (first, second)] == [{"before": 0.5, "after": 0.5}] * 2
    body = update_body(1.0, 1)
    down = {one["name"]: one["bytes_down"] for one in first.status()["devices"]}
    assert first.call("POST", "/v1/rounds/1/update", body)[0] == 200
    said = {one["name"]: one for one in first.status()["devices"]}
    scores = json.dumps({"metrics": {"samples": 4, "before": SCORES, "after": SCORES, "grid": []}})
    assert [said[one.name]["bytes_up"] for one in (first, second)] == [len(body) + len(scores), len(scores)]
    assert down["cam-0"] > down["cam-1"] > 4 * SIZE  # a task more, each of which has eight numbers
    assert sum(down.values()) == first.status()["bytes_down"]
    assert first.status()["site"] == str(run.path)


def scored_of(run, device):
    (one,) = [one for one in device.status()["devices"] if one["name"] == device.name]
    return one["accuracy"]


@pytest.mark.slow
def test_an_unchanged_status_costs_an_empty_answer(run, tab):
    tab.open(f"http://127.0.0.1:{run.port}/")
    tab.wait("document.querySelector('#state').textContent.includes('0 of 2 training devices')")
    tab.answers.clear()
    again(tab)
    wait_for(lambda: tab.value("true") and tab.answers)
    assert tab.answers == [(f"http://127.0.0.1:{run.port}/status.json", 304)]
    tab.value("document.documentElement.dataset.version = '0.0.1'")
    again(tab)
    tab.wait("document.querySelector('#notice').textContent.includes('load it again')")
    run.stop()
    again(tab)
    tab.wait("document.querySelector('#notice').textContent.includes('does not answer')")


@pytest.mark.slow
def test_on_a_phone_in_the_dark_and_by_keyboard(run, tab):
    for device in (run.device(NAME), run.device("a name as long as it may be, and not one letter longer than 64 c")):
        assert device.work(wait=5) == ("evaluate", 0)
        assert scored(device, 0.25, 0.5) == ACCEPTED
    for dark in (False, True):
        tab.open(f"http://127.0.0.1:{run.port}/", width=360, dark=dark)
        tab.wait("document.querySelectorAll('#charts svg').length === 2")
        tab.wait("document.querySelectorAll('#devices tbody tr').length === 2")
        assert tab.value("document.documentElement.scrollWidth") == 360
        background = tab.value("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    assert tab.value("document.querySelector('details').open") is False
    tab.press("Tab")
    assert tab.value("document.activeElement.tagName") == "SUMMARY"
    tab.press("Enter")
    tab.wait("document.querySelector('details').open")
    assert "25.0\u00a0% (25.0\u00a0% to 25.0\u00a0%)" in tab.text("#numbers")
    tab.press("Tab")
    assert (
        tab.value("document.activeElement.getAttribute('aria-label')") == f"Copy: edgemeta run stop --state {run.path}"
    )
    tab.press("Enter")
    tab.wait("['Copied', 'Marked'].includes(document.activeElement.textContent)")
    assert tab.errors == []


@pytest.mark.slow
@pytest.mark.skipif(
    not own_address(), reason="NOT TESTED: the page from another machine: there is no address beside loopback"
)
def test_from_elsewhere_it_opens_with_the_operators_token_and_no_devices(tmp_path, tab):
    gateway = Gateway(tmp_path / "state", host="0.0.0.0", insecure=True)
    with no_gateway_left([gateway]):
        device = gateway.device("cam")
        operator = "f" * 64
        set_operator(tmp_path / "state" / DEVICES_FILE, operator)
        tab.open(f"http://{own_address()}:{gateway.port}/")
        for wrong in (None, "0" * 64, device.session):
            if wrong:
                enter(tab, wrong)
                tab.wait("document.querySelector('#notice').textContent === \"This is not the operator's token.\"")
            tab.wait("!document.querySelector('#access').hidden")
            assert tab.value("document.querySelector('main').hidden")
            assert "cam" not in tab.value("document.body.textContent.replace(/<script>.*/s, '')").split("const")[0]
        enter(tab, operator)
        tab.wait("document.querySelector('#devices').textContent.includes('cam')")
        assert tab.value("document.querySelector('#access').hidden")
        tab.open(f"http://{own_address()}:{gateway.port}/")
        tab.wait("document.querySelector('#devices').textContent.includes('cam')")  # the tab has kept it


def again(tab):
    """Have the page ask now, as it does when somebody comes back to its tab."""
    tab.value("document.dispatchEvent(new Event('visibilitychange'))")


def enter(tab, token):
    tab.value("document.querySelector('#notice').textContent = ''")  # of the one before
    tab.value(f"document.querySelector('#token').value = '{token}'")
    tab.value("document.querySelector('#access').requestSubmit()")
