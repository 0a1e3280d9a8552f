"""A device's page over HTTP: what it shows, that it opens to nobody else, and what it does not take."""

import base64
import hashlib
import re
import signal
import socket
import ssl
import time
from io import BytesIO
from urllib.parse import urlencode

import numpy as np
import pytest
from device_pages import NAME, Page, own_network, page, picture, write_device
from PIL import Image
from runs import command_line

from edgemeta.bench.loopback import ended, start
from edgemeta.nn import build
from edgemeta.teach.document import page as document

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def taught(place):
    """A device that was taught two things, and its page."""
    write_device(place / "state", own_network())
    with page(place / "state") as (device, asked):
        for colour, label in (("red", "cup"), ("blue", "key")):
            for seed in range(2):
                assert asked.learn(picture(colour, seed), label)[0] == 200
        yield device, asked


def test_what_is_taught_counts_at_once_and_is_shown(taught):
    device, asked = taught
    state = asked.state()
    assert (state["name"], state["classes"], state["not_teachable"]) == (NAME, ["cup", "key"], "")
    assert [(one["label"], one["count"], one["own"]) for one in state["held"]] == [("cup", 2, True), ("key", 2, True)]
    assert device.classes == ("cup", "key")
    status, seen = asked.see(picture("blue", 9, size=300, kind="JPEG"))
    assert status == 200
    assert [one["label"] for one in seen["answer"]] == ["key", "cup"]
    assert sum(one["chance"] for one in seen["answer"]) == pytest.approx(1, abs=1e-3)
    assert [one["label"] for one in seen["nearest"]] == ["key", "key", "cup", "cup"]
    status, headers, content = asked.call("GET", f"/picture?file={seen['nearest'][0]['file']}")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    with Image.open(BytesIO(content)) as small:
        assert small.size == (96, 96)
        red, _, blue = small.convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert blue > 150 > 60 > red


def test_a_class_is_forgotten(taught):
    device, asked = taught
    assert asked.learn(picture("green"), "door/left <b>")[0] == 200
    label = "door∕left <b>"  # as a folder can be called
    assert [one["label"] for one in asked.state()["held"]] == ["cup", label, "key"]
    assert device.classes == ("cup", label, "key")
    status, _, said = asked.call("POST", "/forget?label=door/left%20%3Cb%3E", b"")
    assert (status, said["classes"]) == (200, ["cup", "key"])
    status, _, said = asked.call("POST", "/forget?label=door", b"")
    assert (status, said["error"]) == (422, "refused")


def test_a_class_is_renamed_and_put_to_another_one(taught):
    device, asked = taught
    for seed, label in ((0, "mug"), (1, "mug"), (1, "door"), (2, "door")):  # one of them is the same picture
        assert asked.learn(picture("green", seed), label)[0] == 200

    def rename(label, name):
        status, _, said = asked.call("POST", f"/rename?{urlencode({'label': label, 'name': name})}", b"")
        return status, {one["label"]: one["count"] for one in said["held"]} if status == 200 else said["detail"]

    assert rename("mug", "my mug") == (200, {"cup": 2, "door": 2, "key": 2, "my mug": 2})
    assert device.classes == ("cup", "door", "key", "my mug")
    assert asked.see(picture("green", 9))[1]["answer"][0]["label"] in ("door", "my mug")
    assert rename("my mug", "door") == (200, {"cup": 2, "door": 3, "key": 2})
    assert rename("door", " door ") == (200, {"cup": 2, "door": 3, "key": 2})
    assert rename("mug", "x") == (422, "cannot rename 'mug': it was not taught")
    assert rename("door", "../x")[0] == 422
    assert rename("door", "")[0] == 422
    assert asked.call("POST", "/forget?label=door", b"")[2]["classes"] == ["cup", "key"]


def test_the_boards_camera_is_shown_small_and_one_that_fails_is_a_line(place):
    def camera():
        if broken:
            raise OSError("no\x1b[2J camera")
        return np.full((400, 600), 0.5)

    broken = []
    with page(place / "with-camera", camera=camera) as (_, asked):
        assert asked.state()["camera"] is True
        status, headers, content = asked.call("GET", "/frame")
        assert (status, headers["Content-Type"]) == (200, "image/png")
        with Image.open(BytesIO(content)) as small:
            assert (small.size, small.getpixel((0, 0))) == ((256, 171), (128, 128, 128))
        broken.append(True)
        said = {"error": "camera", "detail": "the board's camera does not work: no\\x1b[2J camera"}
        assert asked.call("GET", "/frame")[::2] == (503, said)
        assert asked.call("GET", "/frame", Host="evil.example")[2]["error"] == "unknown-host"
        assert asked.call("GET", "/frame", Sec_Fetch_Site="cross-site")[2]["error"] == "foreign-origin"


def test_without_a_camera_there_is_no_frame(taught):
    _, asked = taught
    assert asked.state()["camera"] is False
    assert asked.call("GET", "/frame")[0] == 404


def test_the_page_is_one_file_whose_policy_allows_its_own_parts_and_no_others(taught):
    status, headers, content = taught[1].call("GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    text, policy = content.decode(), headers["Content-Security-Policy"]
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"https?:|url\(|@import|<link[^>]*stylesheet|innerHTML| on\w+=| style=", text)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    status, headers, content = taught[1].call("HEAD", "/")
    assert (status, content, headers["Content-Length"]) == (200, b"", str(len(document()[0])))


@pytest.mark.parametrize(
    ("path", "method", "headers", "word"),
    [
        ("/", "GET", {"Host": "evil.example"}, "unknown-host"),
        ("/state.json", "GET", {"Host": "evil.example:8743"}, "unknown-host"),
        ("/learn?label=x", "POST", {"Host": "127.0.0.1.evil.example"}, "unknown-host"),
        ("/learn?label=x", "POST", {"Origin": "http://evil.example"}, "foreign-origin"),
        ("/learn?label=x", "POST", {"Origin": "null"}, "foreign-origin"),
        ("/forget?label=cup", "POST", {"Origin": "http://127.0.0.1:1"}, "foreign-origin"),
        ("/try", "POST", {"Sec_Fetch_Site": "cross-site"}, "foreign-origin"),
        ("/state.json", "GET", {"Sec_Fetch_Site": "cross-site"}, "foreign-origin"),
        ("/picture?file=cup/x", "GET", {"Sec_Fetch_Site": "same-site"}, "foreign-origin"),
    ],
)
def test_a_web_page_elsewhere_can_neither_teach_nor_look(taught, path, method, headers, word):
    before = taught[1].state()
    status, _, said = taught[1].call(method, path, picture("red", 77) if method == "POST" else None, **headers)
    assert (status, said["error"]) == (403, word)
    assert taught[1].state() == before


def test_its_own_page_and_a_link_to_it_are_let_in(taught):
    asked = taught[1]
    own = {
        "Host": f"localhost:{asked.port}",
        "Origin": f"http://localhost:{asked.port}",
        "Sec_Fetch_Site": "same-origin",
    }
    assert asked.call("POST", "/try", picture("red"), **own)[0] == 200
    assert asked.call("GET", "/", Sec_Fetch_Site="cross-site")[0] == 200


def test_a_picture_of_200_mb_is_refused_unread(taught):
    with socket.create_connection(("127.0.0.1", taught[1].port), timeout=5) as peer:
        head = f"POST /learn?label=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {200 << 20}\r\n\r\n"
        peer.sendall(head.encode() + bytes(1000))
        assert peer.recv(12) == b"HTTP/1.1 413"


def test_a_bomb_and_what_is_no_picture_are_refused_and_leave_nothing(taught):
    asked = taught[1]
    before = asked.state()
    file = BytesIO()
    Image.new("1", (6000, 6000)).save(file, "PNG")
    assert len(file.getvalue()) < 10_000
    for content, why in ((file.getvalue(), "6000 x 6000"), (b"<svg/>", "as a picture"), (b"", "as a picture")):
        for status, said in (asked.learn(content, "thing"), asked.see(content)):
            assert (status, said["error"], why in said["detail"]) == (422, "refused", True), said
    for label in ("", "..", "../up", "two\nlines", "x" * 300):
        status, said = asked.learn(picture("red", 5), label)
        assert (status, said["error"]) == (422, "refused"), label
    assert asked.state() == before


@pytest.mark.parametrize(
    "file",
    [
        "../device.json",
        "cup/../../device.json",
        "/etc/passwd",
        "cup",
        "device.json",
        "",
        "cup/%00",
        "//etc/passwd",
        "cup//x",
    ],
)
def test_no_other_file_is_shown(taught, file):
    status, _, said = taught[1].call("GET", f"/picture?file={file}")
    assert (status, said["error"]) == (404, "not-found")


def test_what_it_does_not_know_is_not_found(taught):
    for method, path in (("GET", "/learn"), ("POST", "/state.json"), ("GET", "/v1/model"), ("DELETE", "/")):
        assert taught[1].call(method, path, b"")[0] == 404


def test_what_is_taught_before_an_embedding_has_come_is_kept(place):
    write_device(place / "early", own_network(), embedding=False)
    with page(place / "early") as (_, asked):
        status, said = asked.learn(picture("red"), "cup")
        assert (status, said["classes"], [one["label"] for one in said["held"]]) == (200, [], ["cup"])
        status, said = asked.see(picture("red"))
        assert (status, said["error"]) == (422, "refused")


def test_a_run_of_common_classes_shows_what_it_sees_and_is_not_taught(place):
    write_device(place / "common", build("mlp", (8, 8, 3), 2), ("cup", "key"))
    with page(place / "common") as (_, asked):
        state = asked.state()
        assert state["classes"] == ["cup", "key"]
        assert "this run's classes have common names" in state["not_teachable"]
        status, said = asked.see(picture("red"))
        assert (status, {one["label"] for one in said["answer"]}, said["nearest"]) == (200, {"cup", "key"}, [])


def test_a_part_of_a_data_set_cannot_be_taught_and_that_is_said(place):
    with page(place / "part", data="synthetic", partition_id=0) as (_, asked):
        state = asked.state()
        assert "give it data of its own" in state["not_teachable"]
        assert state["held"] == []
        assert asked.learn(picture("red"), "cup") == (422, {"error": "refused", "detail": state["not_teachable"]})


def test_beyond_this_machine_it_is_encrypted_and_opens_to_who_has_the_code(tmp_path):
    process = start("teach", "--state", tmp_path / "state", "--host", "0.0.0.0", "--port", 0, log=tmp_path / "log")
    with ended(process):
        assert process.stdout is not None
        url, code = process.stdout.readline().strip(), process.stdout.readline().rpartition(" ")[2].strip()
        assert re.fullmatch(r"the page is https://\S+:\d+/", url), (tmp_path / "log").read_text()
        assert re.fullmatch(r"[0-9A-Z]{4}-[0-9A-Z]{4}", code)
        trust = ssl.create_default_context(cafile=tmp_path / "state" / "page" / "ca.pem")
        port = int(url.rpartition(":")[2].rstrip("/"))
        assert Page(port).call("GET", "/")[0] == 400  # without encryption
        asked = Page(port, trust)
        assert asked.call("GET", "/")[0] == 200
        for method, path in (
            ("GET", "/state.json"),
            ("POST", "/learn?label=x"),
            ("GET", "/picture?file=x/y"),
            ("POST", "/try"),
        ):
            status, _, said = asked.call(method, path, b"", Cookie="__Host-edgemeta=guess; other=1")
            assert (status, said["error"]) == (401, "not-paired"), path
        began = time.monotonic()
        assert asked.call("POST", "/pair", b"2222-2222")[::2][0] == 403
        assert time.monotonic() - began >= 1
        status, headers, _ = asked.call("POST", "/pair", code.lower().replace("-", " ").encode())
        cookie = headers["Set-Cookie"]
        assert status == 200
        assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Strict")
        asked.headers["Cookie"] = f"a=b; {cookie.partition(';')[0]}"
        assert asked.learn(picture("red"), "cup")[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert "pairing" not in (tmp_path / "log").read_text()
    assert len(list((tmp_path / "state" / "learned" / "cup").iterdir())) == 1


def test_a_device_at_work_has_its_page_too(tmp_path):
    log = tmp_path / "log"
    process = start("client", "--server", "http://127.0.0.1:9", "--state", tmp_path / "s", "--page", 0, log=log)
    with ended(process):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("the page is http://127.0.0.1:"), log.read_text()
        asked = Page(int(line.rpartition(":")[2].strip().rstrip("/")))
        began = time.monotonic()
        assert asked.learn(picture("red"), "cup")[0] == 200
        assert time.monotonic() - began < 5
        assert asked.state()["held"][0]["label"] == "cup"


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = command_line("teach", "--state", tmp_path / "state", "--port", taken.getsockname()[1])
    assert (done.returncode, "cannot listen on 127.0.0.1" in done.stderr, "Traceback" in done.stderr) == (
        2,
        True,
        False,
    )
