"""Messages of DNS as they travel (RFC 1035), as far as multicast DNS needs them: bytes in, questions and records out.

Anything may be in such bytes, as anybody on the network sends them. Whatever they are, they are read in bounded time,
and raise `Malformed` or nothing.
"""

import struct
from typing import NamedTuple

from edgemeta.errors import EdgemetaError

A, PTR, TXT, SRV, ANY = 1, 12, 16, 33, 255  # kinds of records; the last one is of questions
MOST_BYTES = 9000  # of a message (RFC 6762, section 17)
MOST_ENTRIES = 64  # questions and records of one: so the longest takes a fifth of a millisecond on a PC
MOST_NAME_BYTES = 255
MOST_STEPS = 20  # labels and jumps of a name: one of a service has five
JUMP, LABEL = 0xC0, 0x3F  # what a length has in its first two bits, and the longest one
ANSWER, AUTHORITATIVE, OPERATION = 0x8000, 0x0400, 0x7800  # of the flags
INTERNET, ALONE = 1, 0x8000  # the class; with this bit set, a record takes the place of others of its name and kind

Name = tuple[bytes, ...]


class Malformed(EdgemetaError):
    """Bytes that are no message, or none that anybody needs to send."""


class Question(NamedTuple):
    """What is asked for: records of a kind, under a name."""

    name: Name
    kind: int


class Record(NamedTuple):
    """What is said of a name. ttl: seconds for which it is good; data: with all its names written out."""

    name: Name
    kind: int
    ttl: int
    data: bytes
    alone: bool = False

    def answers(self, question: Question) -> bool:
        """Say whether a question asks for this."""
        return question.kind in (self.kind, ANY) and folded(question.name) == folded(self.name)


class Message(NamedTuple):
    """A message. number: that an answer repeats; records: of all its sections."""

    number: int
    is_answer: bool
    questions: list[Question]
    records: list[Record]


def folded(name: Name) -> Name:
    """Return a name as it is compared: capitals of ASCII are no others."""
    return tuple(label.lower() for label in name)


def read_message(packet: bytes) -> Message:
    """Return what a packet says; raises Malformed."""
    try:
        return _message(packet)
    except (IndexError, struct.error):
        raise Malformed("it is cut") from None


def write_message(message: Message, further: int = 0) -> bytes:
    """Return a message as it travels. further: how many records, the last ones, nobody asked for."""
    flags, answers = (ANSWER | AUTHORITATIVE) if message.is_answer else 0, len(message.records) - further
    parts = [struct.pack(">6H", message.number, flags, len(message.questions), answers, 0, further)]
    for name, kind in message.questions:
        parts.append(write_name(name) + struct.pack(">HH", kind, INTERNET))
    for name, kind, ttl, data, alone in message.records:
        head = struct.pack(">HHIH", kind, INTERNET | ALONE * alone, ttl, len(data))
        parts.append(write_name(name) + head + data)
    return b"".join(parts)


def write_name(name: Name) -> bytes:
    """Return a name as it travels, written out."""
    return b"".join(bytes([len(label)]) + label for label in name) + b"\0"


def read_name(packet: bytes, at: int) -> tuple[Name, int]:
    """Return the name at a place, and where what follows it begins; raises Malformed, and IndexError for a cut one."""
    labels: list[bytes] = []
    end, before, length = None, at, 1
    for _ in range(MOST_STEPS):
        size = packet[at]
        if size >= JUMP:
            end, at = end or at + 2, (size & LABEL) << 8 | packet[at + 1]
            if at >= before:  # so that no two of them lead to each other
                raise Malformed("a name leads forward")
            before = at
        elif size > LABEL:
            raise Malformed("a name has a part of an unknown kind")
        elif size:
            length += 1 + size
            if length > MOST_NAME_BYTES:
                break
            labels.append(packet[at + 1 : at + 1 + size])
            at += 1 + size
        else:
            return tuple(labels), end or at + 1
    raise Malformed("a name is too long")


def _message(packet: bytes) -> Message:
    number, flags, asked, *counts = struct.unpack_from(">6H", packet)
    if flags & OPERATION or asked + sum(counts) > MOST_ENTRIES or len(packet) > MOST_BYTES:
        raise Malformed("it asks for something else, or for too much")
    questions, records, at = [], [], 12
    for _ in range(asked):
        name, at = read_name(packet, at)
        questions.append(Question(name, struct.unpack_from(">HH", packet, at)[0]))
        at += 4
    for _ in range(sum(counts)):
        name, at = read_name(packet, at)
        kind, group, ttl, size = struct.unpack_from(">HHIH", packet, at)
        at += 10
        if at + size > len(packet):
            raise Malformed("it is cut")
        records.append(Record(name, kind, ttl, _data(packet, kind, at, size), bool(group & ALONE)))
        at += size
    return Message(number, bool(flags & ANSWER), questions, records)


def _data(packet: bytes, kind: int, at: int, size: int) -> bytes:
    fixed = {PTR: 0, SRV: 6}.get(kind)
    if fixed is None:
        return packet[at : at + size]
    name, end = read_name(packet, at + fixed)
    if end != at + size:
        raise Malformed("a record has another length than it says")
    return packet[at : at + fixed] + write_name(name)
