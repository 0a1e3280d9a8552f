"""A web page elsewhere cannot talk to a gateway through a browser on its machine: Host and Origin, by real requests."""

import shutil
import socket

import pytest
from gateways import ACCEPTED, Device, Gateway, no_gateway_left, refused

from edgemeta.gateway.certificates import make_certificates
from edgemeta.gateway.enrolment import names_of
from edgemeta.gateway.tokens import enroll

TOKEN = "a" * 64
NAMES = ("Gateway.example", "*.boards.example")
OWN = ["127.0.0.1", "127.0.0.1:8742", "192.0.2.7:1", "[::1]:8742", "[fe80::1%25eth0]", "LOCALHOST", "localhost:80"]
OWN += ["gateway.example", "GATEWAY.EXAMPLE:8742", "gateway.example.", "pump.boards.example", ""]
FOREIGN = ["evil.example", "evil.example:8742", "gateway.example.evil.example", "localhost.evil.example", "x"]
FOREIGN += ["a.pump.boards.example", "boards.example", "127.0.0.1.evil.example", "evil", "2130706433x"]


@pytest.fixture
def gateway(tmp_path):
    gateways = [Gateway(tmp_path / "state", names=NAMES)]
    with no_gateway_left(gateways):
        yield gateways[0]


def asked(gateway, path, host, method="GET", body=None, **headers):
    """Return (status, answer) of a request to a name, from loopback, without a token unless the headers have one."""
    return Device(gateway.port, "page").call(method, path, body, Host=host, **headers)[::2]


JOIN = {"name": "page", "version": 1, "key": "a key of sixteen characters"}


@pytest.mark.parametrize("host", FOREIGN)
def test_under_a_foreign_name_nothing_is_answered_without_a_token(gateway, host):
    for path in ("/healthz", "/status.json", "/v1/model", "/v1/run"):
        assert refused(asked(gateway, path, host)) == (403, "unknown-host"), path
        assert refused(asked(gateway, path, host, Authorization="Bearer made-up")) == (403, "unknown-host"), path
    assert refused(asked(gateway, "/v1/join", host, "POST", JOIN)) == (403, "unknown-host")
    status = asked(gateway, "/status.json", "localhost")[1]
    assert (status["joined"], status["refusals"]) == (0, {"unknown-host": 9})


@pytest.mark.parametrize("host", OWN)
def test_under_its_own_names_it_answers(gateway, host):
    for path in ("/healthz", "/status.json", "/v1/model", "/v1/run"):
        assert asked(gateway, path, host)[0] == 200, path
    assert asked(gateway, "/v1/join", host, "POST", JOIN)[0] == 200


@pytest.mark.parametrize("own", ["board7", "board7.home.arpa"])
def test_a_machine_answers_under_its_own_host_names(tmp_path, monkeypatch, own):
    monkeypatch.setattr(socket, "gethostname", lambda: own)
    gateway = Gateway(tmp_path / "state")
    with no_gateway_left([gateway]):
        for host in (own, "Board7", "board7.local:8742"):
            assert asked(gateway, "/healthz", host)[0] == 200
        assert refused(asked(gateway, "/healthz", "board7.evil.example")) == (403, "unknown-host")


def test_an_address_in_the_target_is_a_host_too(gateway):
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as peer:
        peer.sendall(b"GET http://evil.example/status.json HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert peer.recv(1000).startswith(b"HTTP/1.1 403 ")


def test_with_a_token_any_name_will_do(gateway):
    device = gateway.device("cam")
    assert gateway.device("mic").scores() == ACCEPTED
    for path in ("/v1/work", "/v1/model"):
        assert device.call("GET", path, Host="gateway.somewhere")[0] == 200
    enroll(gateway.path / "devices.json", "new", TOKEN, 0)
    assert refused(asked(gateway, "/v1/run", "gateway.somewhere")) == (401, "token-required")
    assert asked(gateway, "/v1/run", "gateway.somewhere", Authorization=f"Bearer {TOKEN}")[0] == 200
    device.session = TOKEN
    device.name = "new"
    assert refused(device.call("POST", "/v1/join", JOIN, Host="gateway.somewhere")[::2]) == (403, "wrong-device")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8742", "http://evil.example"),
        ("127.0.0.1:8742", "https://127.0.0.1:8743"),
        ("127.0.0.1:8742", "http://127.0.0.1"),
        ("127.0.0.1:8742", "http://localhost:8742"),
        ("127.0.0.1:8742", "null"),
        ("127.0.0.1:8742", ""),
        ("127.0.0.1:8742", "file://"),
        ("127.0.0.1:8742", "http://127.0.0.1:8742, http://evil.example"),
        ("evil.example:8742", "http://evil.example:8742"),
    ],
)
def test_a_page_of_another_origin_is_refused_whatever_it_sends(gateway, host, origin):
    device = gateway.device("cam")
    for method, path, body in (
        ("GET", "/healthz", None),
        ("GET", "/status.json", None),
        ("GET", "/v1/work", None),
        ("POST", "/v1/join", JOIN),
        ("POST", "/v1/rounds/0/evaluation", {}),
        ("OPTIONS", "/v1/join", None),
        ("GET", "/nothing", None),
    ):
        answer = device.call(method, path, body, Host=host, Origin=origin)
        assert refused(answer[::2]) == (403, "foreign-origin"), path
        assert not [header for header in answer[1] if header.lower().startswith("access-control")]
    assert device.status()["joined"] == 1


@pytest.mark.parametrize("host", ["127.0.0.1:8742", "gateway.example"])
def test_a_page_of_its_own_may_ask(gateway, host):
    for scheme in ("http", "https"):  # a proxy may stand before it
        assert asked(gateway, "/v1/join", host, "POST", JOIN, Origin=f"{scheme}://{host.upper()}")[0] == 200


@pytest.mark.skipif(not shutil.which("openssl"), reason="NOT TESTED: certificates, as there is no openssl")
def test_the_names_of_a_certificate_are_known(tmp_path):
    state = tmp_path / "state"
    assert names_of(state, None, None) == []
    make_certificates(state / "tls", ["gateway.home.arpa", "192.0.2.9"], 1.9e9)
    assert names_of(state, None, None) == ["gateway.home.arpa", "192.0.2.9", "localhost", "127.0.0.1"]
    mine = tmp_path / "mine.pem"
    mine.write_bytes((state / "tls" / "gateway.pem").read_bytes())
    assert names_of(tmp_path, mine, None) == names_of(state, None, None)
    assert names_of(tmp_path, state / "tls" / "ca.pem", None) == []  # that it has no key is said elsewhere
