"""A gateway is found without an address: by real multicast on loopback, at a port that nobody else uses."""

import asyncio
import ipaddress
import json
import signal
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress

import pytest
from gateways import Gateway, no_gateway_left, wait_for
from processes import RUN

from edgemeta.bench.loopback import ended, start
from edgemeta.cli import _status
from edgemeta.gateway import announced
from edgemeta.link import multicast
from edgemeta.link.dns import read_message

TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
GROUP = "224.0.0.251"
QUESTION = b"\x09_edgemeta\x04_tcp\x05local\0\0\x0c\0\x01"
AFTER = b"\0\0\0\x01\0\0\0\0\0\0" + QUESTION  # of a question, behind its number
LOOPBACK = ipaddress.IPv4Interface("127.0.0.1/8")


def sender(address="127.0.0.1", port=0):
    """Return a socket that sends to loopback's group; at the group's own port it shares that with others."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    made.bind((address, port))
    made.settimeout(2)
    return made


def listener(port):
    made = sender(GROUP, port)
    joined = socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1")
    made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
    return made


@pytest.fixture
def port(monkeypatch):
    """Have multicast DNS on loopback only, at a port of its own."""
    with sender() as free:
        number = free.getsockname()[1]
    try:
        with listener(number) as heard, sender() as told:
            told.sendto(b"x", (GROUP, number))
            heard.recv(9)
    except OSError as error:
        pytest.skip(f"NOT TESTED: finding gateways, as loopback takes no multicast here ({error})")
    monkeypatch.setattr(multicast, "PORT", number)
    monkeypatch.setattr(multicast, "networks", lambda: [LOOPBACK])
    monkeypatch.setattr(multicast, "ASK_S", (0.0, 0.1, 0.2))
    monkeypatch.setattr(multicast, "SEARCH_S", 0.3)
    return number


@pytest.fixture
def same_signals():
    """Have a command that takes signals take them no longer than the test."""
    before = {number: signal.getsignal(number) for number in TAKEN}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def announcing(name="hall-1", port=8742, encrypted=False):
    """Announce a gateway from a thread."""
    loop = asyncio.new_event_loop()

    async def live():
        task = asyncio.ensure_future(announced.announce(name, port, ["0.0.0.0"], encrypted=encrypted))
        stopped.set_result(task)
        await asyncio.wait([task])

    stopped = loop.create_future()
    thread = threading.Thread(target=lambda: loop.run_until_complete(live()))
    thread.start()
    try:
        while not stopped.done():
            time.sleep(0.005)
        time.sleep(0.02)
        yield
    finally:
        loop.call_soon_threadsafe(stopped.result().cancel)
        thread.join(10)
        loop.close()


def test_a_gateway_is_found_and_joined_without_its_address(tmp_path, port):
    gateway = Gateway(tmp_path / "state", host="0.0.0.0", insecure=True, announced=True)
    with no_gateway_left([gateway]):
        (found,) = multicast.find()
        assert found.url == f"http://127.0.0.1:{gateway.port}"
        assert found.name.startswith(socket.gethostname().partition(".")[0][:40])
    assert multicast.find() == []


def test_on_its_own_machine_alone_it_says_nothing(tmp_path, port):
    with no_gateway_left([Gateway(tmp_path / "state", announced=True)]):
        assert multicast.find() == []


def test_a_client_takes_the_one_that_there_is(tmp_path, port, capsys, same_signals):
    with announcing(port=9):
        assert _status(["client", "--state", str(tmp_path / "d"), "--for", "0.1"]) == 1
    said = capsys.readouterr().err
    assert "hall-1  http://127.0.0.1:9\n" in said
    assert "at http://127.0.0.1:9: asking for work" in said
    assert "gave up after 0.1 s" in said
    # And it has it from then on: nothing is looked for, or nothing would be found.
    assert json.loads((tmp_path / "d" / "device.json").read_text())["server"] == "http://127.0.0.1:9"
    assert _status(["client", "--state", str(tmp_path / "d"), "--for", "0.1"]) == 1
    assert "looking" not in capsys.readouterr().err


def test_two_are_listed_and_none_is_taken(tmp_path, port, capsys):
    with announcing("hall-1", 9), announcing("shed-2", 10, encrypted=True):
        assert _status(["client", "--state", str(tmp_path / "d")]) == 2
    said = capsys.readouterr()
    assert said.out == "hall-1  http://127.0.0.1:9\nshed-2  https://127.0.0.1:10\n"
    assert said.err.splitlines()[-1] == (
        "Error: 2 gateways answer on this network: give the gateway as --server URL, or a join file as --join FILE"
    )
    assert not (tmp_path / "d").exists()


def test_one_that_speaks_tls_is_not_trusted_for_being_there(tmp_path, port, capsys):
    with announcing(encrypted=True):
        assert _status(["client", "--state", str(tmp_path / "d")]) == 2
    assert (
        "'https://127.0.0.1:8742' takes a join file, which says which certificate to trust" in capsys.readouterr().err
    )


def test_without_a_network_it_says_what_to_give(tmp_path, port, capsys, monkeypatch):
    monkeypatch.setattr(multicast, "networks", list)
    assert _status(["client", "--state", str(tmp_path / "d")]) == 2
    said = "Error: no gateway answers on this network: give the gateway as --server URL, or a join file as --join FILE"
    assert capsys.readouterr().err.splitlines()[-1] == said


def test_it_says_so_twice_at_its_start(port, monkeypatch):
    monkeypatch.setattr(announced, "AGAIN_S", 0.05)
    with listener(port) as network, announcing():
        assert network.recv(9000) == network.recv(9000)


def test_what_it_says_to_whom(port, monkeypatch):
    """By raw packets: the whole network at its start, once in a while, and at its end; and who asks once, alone."""
    monkeypatch.setattr(announced, "AGAIN_S", 60.0)
    name, host = b"\x06hall-1\x09_edgemeta\x04_tcp\x05local\0", b"\x06hall-1\x05local\0"
    with listener(port) as network, sender() as once, sender(port=port) as other:
        with announcing():
            first = network.recv(9000)
            assert first[:12] == bytes.fromhex("0000 8400 0000 0004 0000 0000")
            assert QUESTION[:-4] + b"\0\x0c\0\x01\0\0\0\x78" + struct.pack(">H", len(name)) + name in first
            assert name + b"\0\x21\x80\x01\0\0\0\x78" + struct.pack(">H", 6 + len(host)) + b"\0\0\0\0\x22\x26" in first
            assert name + b"\0\x10\x80\x01\0\0\0\x78\0\x06\x05tls=0" in first
            assert first.endswith(host + b"\0\x01\x80\x01\0\0\0\x78\0\x04\x7f\0\0\x01")

            once.sendto(b"\xab\xcd" + AFTER, (GROUP, port))
            answer, asked = once.recvfrom(9000)
            assert asked == ("127.0.0.1", port)
            assert answer[:12] == bytes.fromhex("abcd 8400 0001 0001 0000 0003")
            assert answer[12:].startswith(QUESTION)
            assert b"\0\0\0\x78" not in answer  # it is good for ten seconds

            known = QUESTION[:-4] + b"\0\x0c\0\x01\0\0\0\x3c" + struct.pack(">H", len(name)) + name
            network.recv(9000)  # our question
            other.sendto(b"\0\0\0\0\0\x01\0\x01\0\0\0\0" + QUESTION + known, (GROUP, port))
            assert network.recv(9000).endswith(known)
            network.settimeout(0.2)
            with pytest.raises(TimeoutError):  # who asks knows it already
                network.recv(9000)
            network.settimeout(2)
            other.sendto(b"\0\0" + AFTER, (GROUP, port))
            other.sendto(b"\0\0" + AFTER, (GROUP, port))
            heard = [network.recv(9000) for _ in range(3)]
            assert sorted(packet == first for packet in heard) == [False, False, True]
        last = network.recv(9000)
        assert last == first.replace(b"\0\0\0\x78", bytes(4))  # good for no second: it is gone


def test_who_is_not_of_the_network_hears_nothing(port, monkeypatch):
    monkeypatch.setattr(multicast, "networks", lambda: [ipaddress.IPv4Interface("127.0.0.1/32")])
    with announcing(), sender("127.0.0.2") as elsewhere, sender() as near:
        for asking in (elsewhere, near):
            asking.settimeout(0.3)
            asking.sendto(b"\0\0" + AFTER, (GROUP, port))
        assert near.recv(9000)
        with pytest.raises(TimeoutError):
            elsewhere.recv(9000)


def test_single_askers_are_answered_a_bounded_number_of_times(port):
    with announcing(), sender() as asking:
        asking.settimeout(0.2)
        for _ in range(60):
            asking.sendto(b"\0\0" + AFTER, (GROUP, port))
        answers = 0
        with suppress(TimeoutError):
            while asking.recv(9000):
                answers += 1
        assert 20 <= answers <= 40  # the more where a second ends between them


def test_a_flood_of_garbage_neither_ends_nor_slows_it(port, monkeypatch):
    hostile = [bytes(4), b"\xc0\x0c" * 50, b"\0\0\0\0\xff\xff" + bytes(500), b"\0\0" + AFTER[:-2] + b"\xff\xff\xff"]
    hostile.append(b"\0\0\0\0\0\x40" + bytes(6) + b"\1x" * 15 + QUESTION + b"\xc0\x0c\0\x0c\0\x01" * 63)
    monkeypatch.setattr(multicast, "ASK_S", (0.0, 0.7, 0.9))
    monkeypatch.setattr(multicast, "SEARCH_S", 1.1)
    looked = Counter()

    def counted(packet):
        looked["at"] += 1
        return read_message(packet)

    monkeypatch.setattr(announced, "read_message", counted)
    began = time.monotonic()
    with announcing(), sender() as told:
        for k in range(1000):
            told.sendto(hostile[k % len(hostile)], (GROUP, port))
            time.sleep(0.0003)
        assert [one.name for one in multicast.find()] == ["hall-1"]
    assert looked["at"] <= 100 * (time.monotonic() - began + 1)


def test_what_answers_may_say_anything_and_is_bounded_and_shown_escaped(port):
    over = threading.Event()

    def gateway(label, number):
        name = bytes([len(label)]) + label + QUESTION[:-4]
        head = b"\x84\0\0\0\0\x02\0\0\0\0"
        pointer = QUESTION[:-4] + b"\0\x0c\0\x01\0\0\0\x0a" + struct.pack(">H", len(name)) + name
        return number + head + pointer + name + b"\0\x21\0\x01\0\0\0\x0a\0\x07\0\0\0\0\0\x09\0"

    def answer():
        with listener(port) as network, sender(port=port) as told:
            network.settimeout(0.05)
            while not over.is_set():
                try:
                    question, asker = network.recvfrom(9000)
                except TimeoutError:
                    continue
                number = question[:2]
                told.sendto(gateway(b"another question's", bytes([number[0] ^ 1, number[1]])), asker)
                cut = gateway(b"cut", number)
                for k in range(0, len(cut), 7):
                    told.sendto(cut[:k], asker)
                told.sendto(gateway(b"\x1b[2Jred\xe2\x80\xae\xff", number), asker)
                for k in range(40):
                    told.sendto(gateway(b"x%d" % k, number), asker)
                over.set()

    thread = threading.Thread(target=answer)
    thread.start()
    time.sleep(0.1)
    try:
        found = multicast.find()
    finally:
        over.set()
        thread.join()
    assert len(found) == 16
    assert "another question's" not in [one.name for one in found]
    assert "\\x1b[2Jred\\u202e\ufffd" in [one.name for one in found]
    # No word of plain http in it: what it speaks is taken for TLS.
    assert {one.url for one in found} == {"https://127.0.0.1:9"}


def test_no_network_is_one_line_and_a_network_that_comes_is_used(port, monkeypatch, caplog):
    caplog.set_level("INFO", "edgemeta")
    monkeypatch.setattr(announced, "LOOK_S", 0.05)
    near = []
    monkeypatch.setattr(multicast, "networks", lambda: near)
    with announcing():
        wait_for(lambda: len(caplog.records) == 1)
        assert multicast.find() == []
        near.append(LOOPBACK)
        wait_for(lambda: len(caplog.records) == 2)
        assert [one.name for one in multicast.find()] == ["hall-1"]
    assert [record.getMessage() for record in caplog.records] == [
        "devices do not find this gateway by themselves (it listens on no network that takes multicast by IPv4): give "
        "them its address",
        "devices on the network of 127.0.0.1 find this gateway as hall-1",
    ]


def test_a_network_that_refuses_is_one_line(monkeypatch, caplog):
    monkeypatch.setattr(multicast, "networks", lambda: [ipaddress.IPv4Interface("198.51.100.7/24")])  # not ours
    with announcing():
        pass
    (record,) = caplog.records
    assert (
        "(198.51.100.7: Cannot assign requested address)" in record.getMessage()
        or "No such device" in record.getMessage()
    )


@pytest.mark.slow
def test_the_command_announces_beyond_its_machine_unless_it_is_told_not_to(tmp_path):
    (tmp_path / "run.toml").write_text(RUN)
    how = ("server", "--config", "run.toml", "--port", 0, "--host", "0.0.0.0", "--insecure")
    told = start(*how, "--state", "a", log=tmp_path / "told", cwd=tmp_path)
    silent = start(*how, "--state", "b", "--no-announce", log=tmp_path / "silent", cwd=tmp_path)
    with ended(told, silent):
        for process in (told, silent):
            assert process.stdout.readline().startswith("listening on http://0.0.0.0:")
        wait_for(lambda: "find this gateway" in (tmp_path / "told").read_text())
        time.sleep(0.1)
    assert "find this gateway" not in (tmp_path / "silent").read_text()
