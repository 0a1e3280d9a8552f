"""Gateways on the networks that this machine is part of, found without an address: multicast DNS (RFC 6762, 6763).

What answers is not trusted: it may be anybody there. It is bounded, and shown escaped.
"""

import fcntl
import ipaddress
import secrets
import select
import socket
import struct
import time
from contextlib import ExitStack, suppress
from typing import NamedTuple

from edgemeta.link.dns import (
    MOST_BYTES,
    PTR,
    SRV,
    TXT,
    Malformed,
    Message,
    Name,
    Question,
    Record,
    folded,
    read_message,
    read_name,
    write_message,
)
from edgemeta.names import shown

GROUP, PORT = "224.0.0.251", 5353
SERVICE: Name = (b"_edgemeta", b"_tcp", b"local")
PLAIN, ENCRYPTED = b"tls=0", b"tls=1"  # what a gateway says of itself: whether it is http:// or https://
TTL = 255  # of what is sent; no router passes on what is sent to this group
ASK_S = (0.0, 0.3, 1.2)  # from the start of a search, when it is asked: a packet may be lost, and a peer at rest
SEARCH_S = 2.0
MOST_FOUND = 16
SHOWN_LETTERS = 63  # of a name

_ADDRESS, _NETMASK, _FLAGS = 0x8915, 0x891B, 0x8913  # Linux's ioctls about a network interface
_UP, _LOOPBACK, _MULTICAST = 0x1, 0x8, 0x1000
_OF_OTHERS = 49  # Linux's IP_MULTICAST_ALL, which Python does not name


class Found(NamedTuple):
    """A gateway that has answered. name: what it calls itself, to be shown; url: where the answer came from."""

    name: str
    url: str


def networks() -> list[ipaddress.IPv4Interface]:
    """Return this machine's addresses on networks that take multicast, loopback left out."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():

            def told(what: int, name: str = name) -> bytes:
                return fcntl.ioctl(asking, what, struct.pack("256s", name.encode()[:15]))

            with suppress(OSError):  # it has no address, or has just gone
                flags = struct.unpack_from("=H", told(_FLAGS), 16)[0]
                if flags & (_UP | _LOOPBACK | _MULTICAST) == _UP | _MULTICAST:
                    address, mask = (socket.inet_ntoa(told(what)[20:24]) for what in (_ADDRESS, _NETMASK))
                    found.append(ipaddress.IPv4Interface(f"{address}/{mask}"))
    return found


def listening(network: ipaddress.IPv4Interface) -> socket.socket:
    """Return a socket that hears what is sent to the group on one network, and nothing else; raises OSError."""
    heard = speaking(network)
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # beside the system's own responder
            heard.setsockopt(socket.SOL_SOCKET, option, 1)
        heard.setsockopt(socket.IPPROTO_IP, _OF_OTHERS, 0)
        heard.bind((GROUP, PORT))
        heard.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + network.ip.packed)
    except BaseException:
        heard.close()
        raise
    return heard


def speaking(network: ipaddress.IPv4Interface) -> socket.socket:
    """Return a socket that sends to the group on one network; raises OSError."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sender.setblocking(False)
        for option, value in ((socket.IP_MULTICAST_TTL, TTL), (socket.IP_TTL, TTL)):
            sender.setsockopt(socket.IPPROTO_IP, option, value)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, network.ip.packed)
    except BaseException:
        sender.close()
        raise
    return sender


def find() -> list[Found]:
    """Return the gateways that answer on this machine's networks within two seconds, in the order of their URLs."""
    found: dict[Name, Found] = {}
    with ExitStack() as opened:
        asking = {}
        for network in networks():
            with suppress(OSError):  # one that has gone down
                sender = opened.enter_context(speaking(network))
                sender.bind((str(network.ip), 0))
                asking[sender] = network
        number, began = secrets.randbelow(1 << 16), time.monotonic()
        question = write_message(Message(number, False, [Question(SERVICE, PTR)], []))
        asked = 0
        while asking and (past_s := time.monotonic() - began) < SEARCH_S:
            if asked < len(ASK_S) and past_s >= ASK_S[asked]:
                asked += 1
                for sender in asking:
                    with suppress(OSError):
                        sender.sendto(question, (GROUP, PORT))
            until_s = ASK_S[asked] if asked < len(ASK_S) else SEARCH_S
            for sender in select.select(list(asking), [], [], max(0.0, until_s - past_s))[0]:
                with suppress(OSError, Malformed):
                    packet, (host, port) = sender.recvfrom(MOST_BYTES)
                    if port == PORT and ipaddress.IPv4Address(host) in asking[sender].network:
                        for name, gateway in _gateways(read_message(packet), number, host).items():
                            if len(found) < MOST_FOUND:
                                found.setdefault(name, gateway)
    return sorted(found.values(), key=lambda one: one.url)


def _gateways(message: Message, number: int, host: str) -> dict[Name, Found]:
    """Return the gateways that an answer to a question tells of, at the host that it is from; raises Malformed."""
    if not message.is_answer or message.number != number:
        return {}
    found = {}
    for record in message.records:
        if record.kind == PTR and folded(record.name) == SERVICE and record.ttl:
            said = read_name(record.data, 0)[0]
            name = folded(said)
            port = next((int.from_bytes(data[4:6]) for data in _of(message.records, name, SRV)), 0)
            encrypted = not any(PLAIN in _texts(data) for data in _of(message.records, name, TXT))
            if port and name[1:] == SERVICE:
                label = shown(said[0].decode(errors="replace"), SHOWN_LETTERS)
                found[name] = Found(label, f"http{'s' if encrypted else ''}://{host}:{port}")
    return found


def _of(records: list[Record], name: Name, kind: int) -> list[bytes]:
    return [record.data for record in records if record.kind == kind and folded(record.name) == name]


def _texts(data: bytes) -> list[bytes]:
    texts, at = [], 0
    while at < len(data):
        texts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return texts
