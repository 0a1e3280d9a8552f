"""A gateway's certificate over the years: names are added, it is renewed while the gateway runs, its end is said."""

import http.client
import json
import shutil
import ssl
import time

import pytest
from certificates import signed
from gateways import wait_for
from processes import end, write_config
from runs import TINY

from edgemeta.bench.loopback import start
from edgemeta.cli import commands
from edgemeta.errors import ConfigError
from edgemeta.gateway.certificates import make_certificates
from edgemeta.gateway.enrolment import offered_of
from edgemeta.gateway.renewal import Renewal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="NOT TESTED: certificates, as there is no openssl"),
]

DAY_S = 86_400


def day(days):
    return time.strftime("%Y%m%d", time.gmtime(time.time() + days * DAY_S))


def short(state, days):
    """Give the state directory a certificate that is good for so many days, signed by its authority."""
    signed(state / "tls", day(-2), day(days))
    made = state / "tls" / f"made-{day(-2)}-{day(days)}"
    (state / "tls" / "gateway.pem").write_text((made / "key.pem").read_text() + (made / "cert.pem").read_text())
    shutil.rmtree(made)


def names(state):
    return set(offered_of(state).names) - {"localhost", "127.0.0.1"}


def test_a_certificate_keeps_its_names_and_gains_and_loses_those_that_are_said(tmp_path):
    def tls(*arguments):
        commands.main(["tls", "--state", str(tmp_path / "s"), *arguments], "edgemeta", standalone_mode=False)

    tls("--host", "a.test")
    assert names(tmp_path / "s") == {"a.test"}
    anchor = (tmp_path / "s" / "tls" / "ca.pem").read_bytes()
    tls("--host", "b.test", "--host", "fe80::1%eth0")
    assert names(tmp_path / "s") == {"a.test", "b.test", "FE80:0:0:0:0:0:0:1"}
    tls("--remove", "a.test")
    assert names(tmp_path / "s") == {"b.test", "FE80:0:0:0:0:0:0:1"}
    short(tmp_path / "s", -1)  # one that has ended is renewed for its names, too
    assert offered_of(tmp_path / "s").days_left(time.time()) < 0
    tls("--host", "c.test")
    assert names(tmp_path / "s") == {"c.test"}  # the ended one was for 127.0.0.1 alone
    assert offered_of(tmp_path / "s").days_left(time.time()) > 3600
    assert (tmp_path / "s" / "tls" / "ca.pem").read_bytes() == anchor
    with pytest.raises(ConfigError, match=r"is not for 'z.test': expected one of c.test"):
        tls("--remove", "z.test")


def test_what_openssl_cannot_do_is_said_in_our_words(tmp_path):
    make_certificates(tmp_path / "tls", ["a.test"], time.time())
    (tmp_path / "tls" / "ca.key").write_text("no key")
    with pytest.raises(ConfigError, match=r"could not make a certificate with .*ca.key and ca.pem: they are damaged"):
        make_certificates(tmp_path / "tls", ["a.test"], time.time())


def test_the_end_is_said_from_sixty_days_on_once_a_day_and_a_bad_renewal_changes_nothing(tmp_path, caplog):
    make_certificates(tmp_path / "tls", ["a.test"], time.time())
    now = [time.time()]
    renewal = Renewal(tmp_path, None, None, clock=lambda: now[0])
    now[0] = renewal.offered.until - 61 * DAY_S
    assert not renewal.renewed()
    assert caplog.text == ""
    now[0] += 1.5 * DAY_S
    for _ in range(2):
        assert not renewal.renewed()
    assert caplog.text.count("the gateway's certificate ends in 59 days: 'edgemeta tls' renews it") == 1
    now[0] += DAY_S
    renewal.renewed()
    assert "ends in 58 days" in caplog.text
    context = renewal.context
    (tmp_path / "tls" / "gateway.pem").write_text("half")
    assert not renewal.renewed()
    assert "the certificate before goes on: cannot use the certificate" in caplog.text
    assert renewal.context is context
    make_certificates(tmp_path / "tls", ["b.test"], time.time())
    assert renewal.renewed()
    assert (renewal.context is context, "b.test" in renewal.offered.names) == (False, True)


def test_a_running_gateway_takes_up_a_renewed_certificate(tmp_path, capsys):
    state, log = tmp_path / "s", tmp_path / "log"
    make_certificates(state / "tls", ["127.0.0.1"], time.time())
    short(state, 30)
    config = write_config(tmp_path, TINY)
    server = start("server", "--config", config, "--state", state, "--port", 0, log=log)
    try:
        port = int(server.stdout.readline().rpartition(":")[2])
        context = ssl.create_default_context(cafile=str(state / "tls" / "ca.pem"))

        def days():
            peer = http.client.HTTPSConnection("127.0.0.1", port, context=context)
            peer.request("GET", "/status.json")
            ends = ssl.cert_time_to_seconds(peer.sock.getpeercert()["notAfter"])
            certificate = json.loads(peer.getresponse().read())["certificate"]
            peer.close()
            assert "127.0.0.1" in certificate["names"]
            return certificate["days_left"], int((ends - time.time()) // DAY_S)

        assert days() == (29, 29)
        wait_for(lambda: "the gateway's certificate ends in 29 days" in log.read_text())
        commands.main(["devices", "--state", str(state)], "edgemeta", standalone_mode=False)
        assert "the gateway's certificate ends in 29 days: 'edgemeta tls' renews it" in capsys.readouterr().err
        commands.main(["tls", "--state", str(state)], "edgemeta", standalone_mode=False)
        capsys.readouterr()
        wait_for(lambda: days()[0] > 3600, 10)
        assert days()[1] > 3600
        wait_for(lambda: "the new certificate is used" in log.read_text())
        commands.main(["devices", "--state", str(state), "--json"], "edgemeta", standalone_mode=False)
        shown = json.loads(capsys.readouterr().out)
        assert shown["certificate"]["days_left"] > 3600
    finally:
        end(server)
