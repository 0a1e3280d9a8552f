"""Messages of DNS: those of the RFCs byte by byte, and whatever else somebody may send."""

import random
import struct
import time

import pytest

from edgemeta.link.dns import PTR, SRV, A, Malformed, Message, Question, Record, read_message, read_name, write_message

SERVICE = (b"_edgemeta", b"_tcp", b"local")
ON_WIRE = b"\x09_edgemeta\x04_tcp\x05local\0"
# A printer's usual answer: names point back to earlier ones, the service's at 12, its last label at 27.
ANSWER = (
    b"\x12\x34\x84\0\0\0\0\x01\0\0\0\x02"
    + (ON_WIRE + b"\0\x0c\0\x01\0\0\0\x78\0\x04" + b"\x01a\xc0\x0c")  # PTR: a._edgemeta._tcp.local, at 44
    + (b"\xc0\x2c" + b"\0\x21\x80\x01\0\0\0\x78\0\x0a" + b"\0\0\0\0\x22\x26" + b"\x01h\xc0\x1b")  # SRV: 8742, h.local
    + (b"\x01h\xc0\x1b" + b"\0\x01\x80\x01\0\0\0\x78\0\x04" + b"\xc0\0\x02\x07")  # A: 192.0.2.7
)


def head(*counts):
    return struct.pack(">6H", 0, 0, *counts)


def test_the_example_of_rfc_1035():
    """Section 4.1.4: at 20 F.ISI.ARPA, at 40 FOO and a pointer to 20, at 64 a pointer to 26 (ARPA), at 92 the root."""
    packet = bytearray(93)
    packet[20:32] = b"\x01F\x03ISI\x04ARPA\0"
    packet[40:46] = b"\x03FOO\xc0\x14"
    packet[64:66] = b"\xc0\x1a"
    assert read_name(packet, 20) == ((b"F", b"ISI", b"ARPA"), 32)
    assert read_name(packet, 40) == ((b"FOO", b"F", b"ISI", b"ARPA"), 46)
    assert read_name(packet, 64) == ((b"ARPA",), 66)
    assert read_name(packet, 92) == ((), 93)


def test_an_answer_is_read_with_its_names_written_out():
    instance = (b"a", *SERVICE)
    assert read_message(ANSWER) == Message(
        *(0x1234, True, []),
        [
            Record(SERVICE, PTR, 120, b"\x01a" + ON_WIRE),
            Record(instance, SRV, 120, b"\0\0\0\0\x22\x26\x01h\x05local\0", alone=True),
            Record((b"h", b"local"), A, 120, b"\xc0\0\x02\x07", alone=True),
        ],
    )


def test_a_question_is_written_byte_for_byte():
    message = Message(0x1234, False, [Question(SERVICE, PTR)], [])
    assert write_message(message) == b"\x12\x34\0\0\0\x01\0\0\0\0\0\0" + ON_WIRE + b"\0\x0c\0\x01"


def test_what_is_written_is_read_again():
    records = read_message(ANSWER).records
    message = Message(7, True, [Question(SERVICE, PTR)], records)
    packet = write_message(message, further=2)
    assert struct.unpack_from(">6H", packet) == (7, 0x8400, 1, 1, 0, 2)
    assert read_message(packet) == message


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        head(0, 0, 0, 0)[:-1],
        head(0, 65535, 65535, 65535),
        head(65, 0, 0, 0) + (b"\0" + b"\0\x0c\0\x01") * 65,  # more than anybody asks
        b"\0\0\x28\0" + bytes(8),  # an update (opcode 5), no question
        head(1, 0, 0, 0) + b"\xc0\x0c\0\x0c\0\x01",  # a name that is itself
        head(1, 0, 0, 0) + b"\x01a\xc0\x0c\0\x0c\0\x01",  # and one that has itself at its end
        head(1, 0, 0, 0) + b"\xc0\x12\0\x0c\0\x01\0",  # forward
        head(1, 0, 0, 0) + b"\x41" + b"a" * 65 + b"\0\0\x0c\0\x01",  # a label of 65 bytes
        head(1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\x0c\0\x01",  # a name of 257 bytes
        head(1, 0, 0, 0) + ON_WIRE[:-3],
        head(1, 0, 0, 0) + ON_WIRE + b"\0\x0c\0",
        head(0, 1, 0, 0) + b"\0\0\x10\0\x01\0\0\0\x78\x00\x05abcd",  # a record of 5 bytes that has 4
        head(0, 1, 0, 0) + b"\0\0\x0c\0\x01\0\0\0\x78\x00\x05\x01a\0bc",  # a name that is shorter than its record
        head(0, 1, 0, 0) + b"\0\0\x21\0\x01\0\0\0\x78\x00\x03\0\0\0",
    ],
)
def test_what_is_no_message_is_refused(packet):
    with pytest.raises(Malformed):
        read_message(packet)


def test_a_chain_of_pointers_ends():
    """The root, and 8,000 pointers, each to the one before: one of them is a name, and a long chain is none."""
    packet = head(0, 0, 0, 0) + b"\0\0" + b"".join(struct.pack(">H", 0xC000 | 12 + 2 * k) for k in range(8000))
    assert read_name(packet, 14) == ((), 16)
    began = time.perf_counter()
    for _ in range(100):
        with pytest.raises(Malformed):
            read_name(packet, len(packet) - 2)
    assert time.perf_counter() - began < 0.1


def test_damaged_packets_raise_one_kind_of_error_or_are_read():
    draw, read = random.Random(0), 0
    for _ in range(5000):
        packet = bytearray(ANSWER[: draw.randrange(len(ANSWER) + 1)] if draw.random() < 0.2 else ANSWER)
        for _ in range(draw.randrange(1, 6)):
            if packet:
                packet[draw.randrange(len(packet))] = draw.choice((0, 1, 0x0C, 0x3F, 0xC0, 0xFF, draw.randrange(256)))
        try:
            read_message(bytes(packet))
            read += 1
        except Malformed:
            pass
    assert 100 < read < 4900
