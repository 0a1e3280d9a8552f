"""TLS: certificates by the real openssl program, devices that trust them or do not, and who speaks what to whom."""

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from certificates import NOW, join_file, openssl, signed
from gateways import Gateway, no_gateway_left, own_address, wait_for
from runs import command_line

import edgemeta
from edgemeta.device.calls import Away, ClockBehind
from edgemeta.device.calls import Gateway as Calls
from edgemeta.errors import ConfigError
from edgemeta.gateway.certificates import make_certificates
from edgemeta.gateway.enrolment import enroll_device, tls_of
from edgemeta.gateway.tokens import enroll
from edgemeta.link.joinfile import JoinFile, read_join_file, write_join_file
from edgemeta.link.trust import gateway_context
from edgemeta.nn import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("openssl"), reason="NOT TESTED: TLS, as there is no openssl program"),
]
DATA = (np.arange(24, dtype=np.float32).reshape(8, 3), np.arange(8, dtype=np.int64) % 2)
DEVICE = {"data": (DATA, DATA), "rng": np.random.default_rng(0)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A state folder with certificates, made once: they cost a fifth of a second."""
    state = tmp_path_factory.mktemp("made")
    assert make_certificates(state / "tls", ["gateway.test", "192.0.2.7"], NOW)
    return state


@pytest.fixture
def state(made, tmp_path):
    shutil.copytree(made / "tls", tmp_path / "state" / "tls")
    return tmp_path / "state"


@pytest.fixture
def run(state):
    """Start a gateway that speaks TLS with the certificates of the state folder, or as it is told."""
    gateways = []

    def start(**settings):
        settings = {"tls": tls_of(state, None, None), "network": build("mlp", (3,), 2)} | settings
        gateways.append(Gateway(state, **settings))
        return gateways[-1]

    with no_gateway_left(gateways):
        yield start


def altered(path, old, new):
    path.write_text(path.read_text().replace(old, new))
    return path


def step(path, folder, **more):
    """Return the first thing that a device with this join file does."""
    with edgemeta.Device(join=path, state=folder, **DEVICE | more) as device:
        return device.step()


def told(path, folder):
    with pytest.raises(ConfigError) as caught:
        step(path, folder)
    return str(caught.value)


def test_what_is_made_can_be_verified_strictly_and_only_its_owner_reads_keys(state):
    folder = state / "tls"
    for name in ("gateway.test", "localhost"):
        openssl(folder, "verify", "-x509_strict", "-CAfile", "ca.pem", "-verify_hostname", name, "gateway.pem")
    for address in ("192.0.2.7", "127.0.0.1"):
        openssl(folder, "verify", "-x509_strict", "-CAfile", "ca.pem", "-verify_ip", address, "gateway.pem")
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "ca.key": 0o600,
        "ca.pem": 0o600,
        "gateway.pem": 0o600,
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_new_certificate_from_the_same_authority_needs_no_new_join_file(state, run, tmp_path):
    path = join_file(state, 8742)
    assert not make_certificates(state / "tls", ["elsewhere.test"], NOW)
    gateway = run()
    altered(path, ":8742", f":{gateway.port}")
    assert step(path, tmp_path / "cam").kind == "joined"
    with pytest.raises(ConfigError, match=r"not for 'gateway\.test'"):
        join_file(state, 8742, "mic", "gateway.test")


def test_certificates_are_not_made_for_what_is_no_host_nor_by_a_clock_that_is_not_set(tmp_path, monkeypatch):
    for host in ("a b", "x\ny", "a,DNS:b", "", "-x", "é", "a" * 300):
        with pytest.raises(ConfigError, match="no name or address"):
            make_certificates(tmp_path / "tls", [host], NOW)
    with pytest.raises(ConfigError, match="clock"):
        make_certificates(tmp_path / "tls", ["g"], 1000.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt install openssl"):
        make_certificates(tmp_path / "tls", ["g"], NOW)
    assert not list(tmp_path.iterdir())


def test_enroll_finds_the_gateways_name_and_refuses_what_a_device_would(state, tmp_path):
    made = enroll_device(state, "cam", None, None, tmp_path, NOW)
    said = read_join_file(made.path)
    assert (said.url, said.name) == ("https://gateway.test:8742", "cam")
    assert said.certificate.strip() == (state / "tls" / "ca.pem").read_text().strip()
    assert said.token not in repr(said)
    with pytest.raises(ConfigError, match=r"not for 'other\.test'.*--host other\.test"):
        enroll_device(state, "mic", "https://other.test:1", None, tmp_path, NOW)
    signed(state / "tls", "20200101", "20210101")
    expired = [(state / "tls" / "made-20200101-20210101" / name).read_text() for name in ("key.pem", "cert.pem")]
    (state / "tls" / "gateway.pem").write_text("".join(expired))
    with pytest.raises(ConfigError, match="expired"):
        enroll_device(state, "mic", "https://127.0.0.1:1", None, tmp_path, NOW)
    with pytest.raises(ConfigError, match="expired"):
        tls_of(state, None, None)
    assert not (tmp_path / "mic.join").exists()


def test_a_device_joins_with_its_join_file_alone(state, run, tmp_path):
    gateway = run(host="0.0.0.0")  # open to other machines, so it takes nobody before the first one is enrolled
    calls = Calls(f"https://127.0.0.1:{gateway.port}", (state / "tls" / "ca.pem").read_text())
    asked = {"name": "cam", "version": 1, "key": "the long secret of cam"}
    answer = calls.call("POST", "/v1/join", body=json.dumps(asked).encode())
    calls.close()
    assert (answer.status, answer.refusal[0]) == (401, "token-required")
    path = join_file(state, gateway.port)
    done = step(path, tmp_path / "cam")
    assert (done.kind, str(done)) == ("joined", "joined as participant 0")
    kept = tmp_path / "cam" / "device.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    token = read_join_file(path).token
    assert not [file for file in (tmp_path / "cam").rglob("*") if token in file.read_text(errors="replace")]
    with pytest.raises(ConfigError, match="for 'cam', and not for 'mic'"):
        step(path, tmp_path / "mic", name="mic")


def test_wrong_revoked_missing_and_anothers_token(state, run, tmp_path):
    gateway = run()
    path, other = join_file(state, gateway.port), join_file(state, gateway.port, "mic")
    token, others = read_join_file(path).token, read_join_file(other).token
    assert "bad-token:" in told(altered(path, token, "0" * 64), tmp_path / "cam")
    assert "wrong-device:" in told(altered(path, "0" * 64, others), tmp_path / "cam")
    altered(path, others, token)
    assert step(path, tmp_path / "cam").kind == "joined"
    done = command_line("revoke", "cam", "--state", state)
    assert done.returncode == 0
    with edgemeta.Device(join=path, state=tmp_path / "cam", **DEVICE) as device:
        assert device.step().kind == "away"  # its session has ended: it will join again
        device._pace.asked(None)
        with pytest.raises(ConfigError, match="revoked:"):
            device.step()
    path.unlink()
    with pytest.raises(ConfigError, match="takes a join file"):
        edgemeta.Device(f"https://127.0.0.1:{gateway.port}", state=tmp_path / "x", **DEVICE)
    gateway.stop()
    plain = run(tls=None)
    with (
        edgemeta.Device(f"http://127.0.0.1:{plain.port}", state=tmp_path / "y", **DEVICE) as device,
        pytest.raises(ConfigError, match="token-required"),
    ):
        device.step()


def test_a_device_enrolled_again_goes_over_to_its_new_token_and_keeps_its_state(state, run, tmp_path):
    gateway = run()
    path = join_file(state, gateway.port)
    assert step(path, tmp_path / "cam").kind == "joined"
    path.rename(tmp_path / "old.join")
    assert enroll_device(state, "cam", f"https://127.0.0.1:{gateway.port}", None, state.parent, NOW).rotated
    assert step(tmp_path / "old.join", tmp_path / "cam").kind == "idle"  # still good, and its session goes on
    before = sorted(os.listdir(tmp_path / "cam"))
    done = step(path, tmp_path / "cam")
    assert (done.kind, str(done)) == ("joined", "joined as participant 0")
    assert sorted(os.listdir(tmp_path / "cam")) == before
    assert "revoked:" in told(tmp_path / "old.join", tmp_path / "new")


@pytest.mark.parametrize(
    ("start", "end", "kind", "text"),
    [
        ("20200101", "20210101", "away", "has expired"),
        ("20900101", "20910101", "clock", "waiting for the clock: it is 20"),
    ],
)
def test_a_certificate_that_is_not_good_now(state, run, tmp_path, start, end, kind, text):
    path = join_file(state, 1)
    gateway = run(tls=signed(state / "tls", start, end))
    done = step(altered(path, ':1"', f':{gateway.port}"'), tmp_path / "cam")
    assert done.kind == kind
    assert text in str(done)
    assert 0 < done.wait_s < 1


def test_a_board_whose_clock_is_set_later_waits_and_then_joins(state, run, tmp_path):
    path = join_file(state, 1)
    early = run(tls=signed(state / "tls", "20900101", "20910101"))
    altered(path, ':1"', f':{early.port}"')
    now = [0.0]
    with edgemeta.Device(join=path, state=tmp_path / "cam", clock=lambda: now[0], **DEVICE) as device:
        for _ in range(3):
            assert device.step().kind == "clock"
            assert device.step().kind == "waiting"
            now[0] += 60
        early.stop()
        context = signed(state / "tls", "20200101", "20910101")  # as when time has gone on
        device._gateway._connection.port = run(tls=context).port
        assert device.step().kind == "joined"


def test_certificates_for_another_name_or_by_somebody_else(state, run, tmp_path, caplog):
    path = join_file(state, 1)
    gateway = run(tls=signed(state / "tls", "20200101", "20910101", "DNS:other.test"))
    done = step(altered(path, ':1"', f':{gateway.port}"'), tmp_path / "cam")
    assert (done.kind, "is not for '127.0.0.1'" in str(done)) == ("away", True)
    gateway.stop()
    make_certificates(tmp_path / "mallory", ["gateway.test"], NOW)  # the same names, and a key of his own
    gateway = run(tls=gateway_context(tmp_path / "mallory" / "gateway.pem"))
    altered(path, "127.0.0.1:", "localhost:")
    done = step(re_ported(path, gateway.port), tmp_path / "cam")
    assert (done.kind, "not one to trust" in str(done)) == ("away", True)
    assert "needs a new join file" in str(done)
    wait_for(lambda: "it does not trust this gateway's certificate" in caplog.text)


def re_ported(path, port):
    path.write_text(re.sub(r":\d+\"", f':{port}"', path.read_text()))
    return path


def test_nothing_but_the_join_file_is_trusted(state, run, tmp_path, monkeypatch):
    gateway = run()
    other = tmp_path / "other"
    make_certificates(other / "tls", ["gateway.test"], NOW)
    path = join_file(other, gateway.port, "cam")
    monkeypatch.setenv("SSL_CERT_FILE", str(state / "tls" / "ca.pem"))  # where the system would look
    assert ssl.create_default_context().get_ca_certs()  # it does
    assert step(path, tmp_path / "cam").kind == "away"


def test_a_certificate_of_ones_own_is_trusted_as_it_is(state, run, tmp_path):
    signed(state / "tls", "20200101", "20910101")
    own = state / "tls" / "made-20200101-20910101"
    gateway = run(tls=tls_of(state, own / "cert.pem", own / "key.pem"))
    both = tmp_path / "both.pem"
    both.write_text((own / "key.pem").read_text() + (own / "cert.pem").read_text())
    url = f"https://127.0.0.1:{gateway.port}"
    path = enroll_device(state, "cam", url, both, tmp_path, NOW).path
    assert "PRIVATE" not in path.read_text()
    assert step(path, tmp_path / "cam").kind == "joined"


def test_a_join_file_for_another_gateway(state, run, tmp_path):
    gateway = run()
    other = tmp_path / "other"
    shutil.copytree(state / "tls", other / "tls")  # it may even have the same certificates
    path = join_file(other, gateway.port)
    enroll(state / "devices.json", "mic", "m" * 64, NOW)
    assert "this gateway did not give this token" in told(path, tmp_path / "cam")


def test_join_files_that_are_cut_old_or_none(state, tmp_path):
    path = join_file(state, 1)
    whole = path.read_text()
    for size in range(0, len(whole) - 2, 7):
        path.write_text(whole[:size])
        assert str(path) in told(path, tmp_path / "cam"), size
    (token,) = re.findall(r'token = "(\w+)"', whole)
    for text in (
        whole.replace("edgemeta-join/1", "edgemeta-join/0"),
        whole.replace("edgemeta-join/1", "edgemeta-join/2"),
        whole.replace("https", "gopher"),
        whole.replace('url = "', "url = 7 # "),
        re.sub("MII.*", "MIIxxxx", whole),
        whole.replace('"\n', '\x00"\n'),
    ):
        path.write_text(text)
        message = told(path, tmp_path / "cam")
        assert token not in message
    path.write_text(whole.replace("edgemeta-join/1", "edgemeta-join/2"))
    assert "'edgemeta-join/2'" in told(path, tmp_path / "cam")
    assert "cannot read" in told(tmp_path / "none.join", tmp_path / "cam")
    assert "cannot read" in told(tmp_path, tmp_path / "cam")


def test_a_join_file_that_others_can_read_is_warned_about(state, tmp_path, caplog):
    path = join_file(state, 1)
    read_join_file(path)
    assert not caplog.records
    path.chmod(0o644)
    assert read_join_file(path).name == "cam"
    (record,) = caplog.records
    assert f"chmod 600 {path}" in record.getMessage()


def test_a_join_file_says_whatever_it_is_given(tmp_path):
    given = JoinFile("http://[::1]:5", 'a "name" \\ with é, 🙂', "t" * 64)
    write_join_file(tmp_path / "x.join", given)
    assert read_join_file(tmp_path / "x.join") == given


def test_plain_http_to_a_tls_port_and_the_reverse_are_clear_on_both_sides(state, run, tmp_path, caplog):
    gateway = run()
    with edgemeta.Device(f"http://127.0.0.1:{gateway.port}", state=tmp_path / "a", **DEVICE) as device:
        done = device.step()
    assert done.kind == "away"
    assert "plain-to-tls-port: this port speaks TLS: use https://" in str(done)
    assert "speaks plain HTTP, and this gateway speaks TLS" in caplog.text
    path = join_file(state, gateway.port)
    gateway.stop()
    plain = run(tls=None)
    done = step(re_ported(path, plain.port), tmp_path / "b")
    assert done.kind == "away"
    assert "does not speak TLS: is the gateway's address http://" in str(done)
    wait_for(lambda: "speaks TLS, and this gateway does not" in caplog.text)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_no_protocol_below_tls_1_2_on_either_side(state, run, version, caplog):
    gateway = run()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = old.maximum_version = version
    old.set_ciphers("ALL:@SECLEVEL=0")
    refused_so = pytest.raises((ssl.SSLError, ConnectionResetError))
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as connection, refused_so:
        old.wrap_socket(connection)
    wait_for(lambda: "it speaks no TLS 1.2 or newer" in caplog.text)  # it was the gateway that did not want to
    with served_by(state, version) as port:
        with socket.create_connection(("127.0.0.1", port), 5) as connection, old.wrap_socket(connection) as spoken:
            assert spoken.version() in ("TLSv1", "TLSv1.1")  # so this peer would do it
        with pytest.raises(Away):
            Calls(f"https://127.0.0.1:{port}", (state / "tls" / "ca.pem").read_text()).call("GET", "/healthz")


class served_by:
    """The openssl program as a gateway that speaks one old version only; gives its port."""

    def __init__(self, state, version):
        kind = {ssl.TLSVersion.TLSv1: "-tls1", ssl.TLSVersion.TLSv1_1: "-tls1_1"}[version]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = ["openssl", "s_server", "-accept", f"127.0.0.1:{self.port}", "-cert", state / "tls" / "gateway.pem"]
        self.process = subprocess.Popen(
            [*command, kind, "-cipher", "ALL:@SECLEVEL=0"],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True},
        )

    def __enter__(self):
        assert any("ACCEPT" in line for line in iter(self.process.stdout.readline, ""))
        return self.port

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_newer_protocols_are_spoken_with_forward_secrecy(state, run, version):
    gateway = run()
    context = ssl.create_default_context(cafile=state / "tls" / "ca.pem")
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    peer = http.client.HTTPSConnection("localhost", gateway.port, timeout=5, context=context)
    peer.request("GET", "/healthz")
    assert json.load(peer.getresponse()) == {"ok": True}
    name, spoken, bits = peer.sock.cipher()
    peer.close()
    assert spoken == version
    assert bits >= 128
    assert version == "TLSv1.3" or name.startswith("ECDHE-")
    weak = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    weak.check_hostname, weak.verify_mode, weak.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-SHA:AES256-GCM-SHA384:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as connection, pytest.raises(ssl.SSLError):
        weak.wrap_socket(connection)


def test_peers_that_say_nothing_or_nonsense_at_the_tls_port_cost_nobody_else(state, run, caplog):
    gateway = run()
    silent = [socket.create_connection(("127.0.0.1", gateway.port), 5) for _ in range(20)]
    for sent in (b"\x16", b"\x16\x03\x01\xff\xff" + bytes(500), b"\x00", b"\x16\x03\x01\x00\x05hello"):
        with socket.create_connection(("127.0.0.1", gateway.port), 5) as connection:
            connection.sendall(sent)
    calls = Calls(f"https://127.0.0.1:{gateway.port}", (state / "tls" / "ca.pem").read_text())
    assert calls.call("GET", "/healthz").json() == {"ok": True}
    gateway.stop()  # not kept waiting by the silent ones
    with pytest.raises(Away):
        calls.call("GET", "/healthz")
    calls.close()
    for connection in silent:
        connection.close()
    assert "Traceback" not in caplog.text


def test_a_clock_that_is_behind_has_a_kind_of_its_own(state, run):
    gateway = run(tls=signed(state / "tls", "20900101", "20910101"))
    with pytest.raises(ClockBehind):
        Calls(f"https://127.0.0.1:{gateway.port}", (state / "tls" / "ca.pem").read_text()).call("GET", "/healthz")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: files that root makes for the gateway's user, as not root")
def test_what_root_makes_belongs_to_the_gateways_user(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 12345, 12345)
    make_certificates(state / "tls", ["g"], NOW)
    enroll(state / "devices.json", "cam", "c" * 64, NOW)
    made = [state / "tls", *(state / "tls").iterdir(), state / "devices.json"]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 12345)}


def test_a_client_takes_a_gateway_or_a_join_file(tmp_path):
    for options in ([], ["--server", "http://127.0.0.1:1", "--join", "x.join"], ["--join", "x.join"]):
        done = command_line("client", *options, "--state", tmp_path / "state")
        assert (done.returncode, "Traceback" in done.stderr, "join file" in done.stderr) == (2, False, True)
    assert not (tmp_path / "state").exists()


def test_beyond_this_machine_the_gateway_takes_a_certificate_or_the_word(tmp_path):
    done = command_line("server", "--host", "0.0.0.0", "--state", tmp_path / "state")
    assert done.returncode == 2
    assert all(word in done.stderr for word in ("edgemeta tls", "edgemeta enroll", "--insecure"))
    (tmp_path / "cert.pem").write_text("none")
    for options in (["--key", "x"], ["--cert", tmp_path / "cert.pem"], ["--cert", tmp_path / "no.pem"]):
        done = command_line("server", "--state", tmp_path / "state", *options)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert not (tmp_path / "state").exists()


def test_the_whole_way_by_the_commands(tmp_path):
    address = own_address() or "127.0.0.1"
    (tmp_path / "run.toml").write_text(
        'model.name = "mlp"\ndata.source = "synthetic:samples=120,size=8"\ndata.participants = 1\n'
        "server.min_fit_clients = 1\nphases = [{rounds = 1, local_steps = 1, batch_size = 4}]\n"
    )
    assert command_line("tls", "--host", address, cwd=tmp_path).returncode == 0
    command = [sys.executable, "-m", "edgemeta"]
    with open(tmp_path / "log", "w") as log:
        gateway = subprocess.Popen(
            [*command, "server", "--config", "run.toml", "--host", "0.0.0.0", "--port", "0"],
            **{"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": log, "text": True},
        )
    try:
        port = re.fullmatch(r"listening on https://0\.0\.0\.0:(\d+)\n", gateway.stdout.readline())[1]
        assert command_line("enroll", "cam", "--url", f"https://{address}:{port}", cwd=tmp_path).returncode == 0
        token = read_join_file(tmp_path / "cam.join").token
        spec = "synthetic:samples=120,size=8"
        client = subprocess.Popen(
            [*command, "client", "--join", "cam.join", "--state", "cam", "--partition-id", "0", "--data", spec],
            **{"cwd": tmp_path, "stderr": subprocess.PIPE, "text": True},
        )
        processes = Path(f"/proc/{client.pid}/cmdline").read_bytes() + Path(f"/proc/{client.pid}/environ").read_bytes()
        _, said = client.communicate(timeout=60)
        assert client.returncode == 0, said
        assert "the run is over" in said
        assert "participant 0" in command_line("devices", cwd=tmp_path).stdout
        device = json.loads((tmp_path / "cam" / "device.json").read_text())
    finally:
        gateway.terminate()
        gateway.communicate(timeout=20)
    assert gateway.returncode == 0
    everything = (tmp_path / "log").read_text() + said + processes.decode()
    for secret in (token, device["session"], device["key"]):
        assert secret not in everything
