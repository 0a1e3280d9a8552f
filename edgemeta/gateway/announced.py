"""A gateway says where it is, to who looks for one on its own networks: multicast DNS (RFC 6762, 6763).

A name of its own for each start and 24 random bits in it: nobody has to be asked whether it is taken.
"""

import asyncio
import ipaddress
import logging
import secrets
import socket
from collections.abc import Collection, Sequence
from contextlib import suppress

from edgemeta.link import dns, multicast
from edgemeta.link.dns import Malformed, Message, Name, Question, Record, read_message, write_message, write_name
from edgemeta.link.multicast import ENCRYPTED, GROUP, PLAIN, SERVICE

log = logging.getLogger("edgemeta")

LOOK_S = 10.0  # between two looks at which networks there are: a board's may come after its gateway
GOOD_S = 120  # for which others keep what is said
GOOD_ONCE_S = 10  # the same, for who asks once and hears nothing later
AGAIN_S = 1.0  # between two times when the same is said to a whole network
MOST_HEARD_S = 100  # packets that are looked at in a second: the worst take 2 % of a PC's core, some 20 % of a board's
AT_ONCE = 4  # packets between two turns of the gateway's work
MOST_LEFT = 1000  # more than the kernel keeps
MOST_SINGLE_S = 20  # answers to single askers in a second, as who asks may use another one's address
ANYWHERE = "0.0.0.0"


def new_name() -> str:
    """Return what a gateway is called on its networks, this machine's name in it."""
    return f"{socket.gethostname().partition('.')[0][:40] or 'gateway'}-{secrets.token_hex(3)}"


async def announce(name: str, port: int, addresses: Collection[str], *, encrypted: bool) -> None:
    """Answer who looks for a gateway, on each network that one of `addresses` listens on, until this is cancelled."""
    voices: dict[ipaddress.IPv4Interface, Voice] = {}
    said: list[str] | None = None
    try:
        while True:
            near = [one for one in multicast.networks() if ANYWHERE in addresses or str(one.ip) in addresses]
            for gone in voices.keys() - set(near):
                voices.pop(gone).close()
            why = "it listens on no network that takes multicast by IPv4"
            for network in near:
                if network not in voices:
                    try:
                        voices[network] = Voice(network, records_of(name, port, str(network.ip), encrypted=encrypted))
                    except OSError as error:
                        why = f"{network.ip}: {error.strerror}"
            heard = sorted(str(network.ip) for network in voices)
            if heard and heard != said:
                log.info("devices on the network of %s find this gateway as %s", ", ".join(heard), name)
            elif heard != said:
                log.warning("devices do not find this gateway by themselves (%s): give them its address", why)
            said = heard
            await asyncio.sleep(LOOK_S)
    finally:
        for voice in voices.values():
            voice.close()


def records_of(name: str, port: int, address: str, *, encrypted: bool) -> list[Record]:
    """Return what there is to say of a gateway at one of its addresses."""
    instance: Name = (name.encode(), *SERVICE)
    host: Name = (name.encode(), b"local")
    text = ENCRYPTED if encrypted else PLAIN
    place = bytes(4) + port.to_bytes(2) + write_name(host)
    return [
        Record(SERVICE, dns.PTR, GOOD_S, write_name(instance)),
        Record(instance, dns.SRV, GOOD_S, place, alone=True),
        Record(instance, dns.TXT, GOOD_S, bytes([len(text)]) + text, alone=True),
        Record(host, dns.A, GOOD_S, socket.inet_aton(address), alone=True),
    ]


class Voice:
    """A gateway's ear and voice on one network. Raises OSError where it takes no multicast."""

    def __init__(self, network: ipaddress.IPv4Interface, records: Sequence[Record]) -> None:
        self._network, self._records = network.network, list(records)
        self._loop = asyncio.get_running_loop()
        self._second, self._heard, self._single, self._silent_until = 0.0, 0, 0, 0.0
        self._socket = multicast.listening(network)
        self._listen()
        self._tell(GOOD_S)
        self._later = self._loop.call_later(AGAIN_S, self._tell, GOOD_S)

    def close(self) -> None:
        """Say that the gateway is gone, and be silent."""
        self._later.cancel()
        self._loop.remove_reader(self._socket)
        self._tell(0)
        self._socket.close()

    def _listen(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._hear)

    def _listen_anew(self) -> None:
        """Listen after a flood, and not to what it has left behind: who asks now does not wait for that."""
        with suppress(OSError):  # nothing is left, or all is over
            for _ in range(MOST_LEFT):
                self._socket.recv(1)
        self._listen()

    def _hear(self) -> None:
        now = self._loop.time()
        if now >= self._second + 1:
            self._second, self._heard, self._single = now, 0, 0
        for _ in range(AT_ONCE):
            if self._heard >= MOST_HEARD_S:
                self._loop.remove_reader(self._socket)
                self._loop.call_later(self._second + 1 - now, self._listen_anew)
                return
            try:
                packet, (host, port) = self._socket.recvfrom(dns.MOST_BYTES)
            except OSError:
                return
            self._heard += 1
            with suppress(Malformed):
                self._answer(read_message(packet), host, port, now)

    def _answer(self, asked: Message, host: str, port: int, now: float) -> None:
        """Answer a question: to the whole network, or to who asks once from a port of its own (section 6.7)."""
        if asked.is_answer or ipaddress.IPv4Address(host) not in self._network:
            return
        wanted = [one for one in self._records if any(map(one.answers, asked.questions)) and not _known(one, asked)]
        if not wanted:
            return
        if port == multicast.PORT:
            if now >= self._silent_until:
                self._silent_until = now + AGAIN_S
                self._tell(GOOD_S)
        elif self._single < MOST_SINGLE_S:
            self._single += 1
            further = [one for one in self._records if one not in wanted]
            records = [one._replace(ttl=GOOD_ONCE_S, alone=False) for one in (*wanted, *further)]
            questions = [Question(*one) for one in asked.questions if any(r.answers(one) for r in wanted)]
            self._send(write_message(Message(asked.number, True, questions, records), len(further)), host, port)

    def _tell(self, good_s: int) -> None:
        """Say all to the whole network."""
        records = [one._replace(ttl=good_s) for one in self._records]
        self._send(write_message(Message(0, True, [], records)), GROUP, multicast.PORT)

    def _send(self, packet: bytes, host: str, port: int) -> None:
        with suppress(OSError):  # the network has gone: it is looked at again
            self._socket.sendto(packet, (host, port))


def _known(record: Record, asked: Message) -> bool:
    """Say whether who asks has said that it knows the answer, and for long enough (section 7.1)."""
    return any(
        known.kind == record.kind and known.data == record.data and 2 * known.ttl >= record.ttl
        for known in asked.records
    )
