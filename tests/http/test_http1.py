"""The HTTP/1.1 parser: what it reads, what it refuses and why, and that no bytes make it do anything else."""

import time
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgemeta.http.head import encode_head
from edgemeta.http.http1 import NEED_DATA, Data, EndOfMessage, Limits, Parser, ProtocolError, Request

LIMITS = Limits()
GET = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"
SESSION = (
    b"\r\nPOST /v1/join?wait=30&name=k%C3%BCche HTTP/1.1\r\nHost: gateway:8080\r\nContent-Length: 11\r\n\r\n"
    b"hello\r\nyou\r"
    b"PUT /a HTTP/1.1\r\nhost:[::1]\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n"
    b"3;note=x\r\nabc\r\n00A\r\n0123456789\r\n0\r\nDigest: none\r\n\r\n"
    b"HEAD http://gateway/b%20c HTTP/1.1\r\nHost: gateway\r\nX:\t one \r\nx: two\r\n\r\n"
    b"POST /c HTTP/1.0\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\nnever read"
)


def events(pieces, limits=LIMITS):
    """What a parser says about the pieces: requests, whole bodies, ends; at last a refusal's status and reason."""
    parser, said, body = Parser(limits), [], b""
    for piece in pieces:
        parser.receive(piece)
        try:
            while (event := parser.next_event()) is not NEED_DATA:
                if isinstance(event, Data):
                    assert event.data
                    body += event.data
                    continue
                said += [body, event] if isinstance(event, EndOfMessage) else [event]
                body = b""
        except ProtocolError as error:
            with pytest.raises(ProtocolError, match=error.fault):
                parser.next_event()
            return [*said, body, (error.fault.status, str(error.fault))]
    return [*said, body] if body else said


def refusal(data, limits=LIMITS):
    return events([data], limits)[-1]


def post(*headers, body=b""):
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: g", *headers, b"", body])


def test_a_session_is_read_in_order():
    join, first, end, put, second, _, head, third, _, last, fourth, _ = events([SESSION])
    assert end == EndOfMessage()
    assert (join.method, join.target, join.path) == ("POST", "/v1/join?wait=30&name=k%C3%BCche", "/v1/join")
    assert (dict(join.query), join.length, join.version) == ({"wait": "30", "name": "küche"}, 11, "1.1")
    assert (first, join.keep_alive, join.expects_continue) == (b"hello\r\nyou\r", True, False)
    assert (second, put.length, put.expects_continue, put.headers["host"]) == (b"abc0123456789", None, True, "[::1]")
    assert (third, head.method, head.path, head.headers["x"]) == (b"", "HEAD", "/b%20c", "one, two")
    assert (fourth, last.version, last.keep_alive, last.length) == (b"", "1.0", False, 0)


def test_dribbled_bytes_say_what_whole_ones_say():
    whole = events([SESSION])
    assert events([SESSION[i : i + 1] for i in range(len(SESSION))]) == whole
    for size in (2, 3, 7, 64):
        assert events([SESSION[i : i + size] for i in range(0, len(SESSION), size)]) == whole


def test_bytes_after_a_request_that_ends_the_connection_are_ignored():
    assert len(events([GET.replace(b"\r\n\r\n", b"\r\nConnection: TE, Close\r\n\r\n") + GET])) == 3
    assert len(events([GET + GET])) == 6


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET /\r\n", (400, "bad-request-line")),
        (b"GET  / HTTP/1.1\r\n", (400, "bad-request-line")),
        (b"GET / HTTP/1.1 \r\n", (400, "bad-request-line")),
        (b"G\xc3\x89T / HTTP/1.1\r\n", (400, "bad-request-line")),
        (b"\r\n\r\n", (400, "bad-request-line")),
        (b"GET healthz HTTP/1.1\r\n", (400, "bad-target")),
        (b"GET /\x00 HTTP/1.1\r\n", (400, "bad-target")),
        (b"GET /\xff HTTP/1.1\r\n", (400, "bad-target")),
        (b"GET /#top HTTP/1.1\r\n", (400, "bad-target")),
        (b"CONNECT gateway:80 HTTP/1.1\r\n", (400, "bad-target")),
        (GET.replace(b"/healthz", b"/?a=%FF"), (400, "bad-query")),
        (GET.replace(b"/healthz", b"/?a=1&a=2"), (400, "bad-query")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505, "bad-version")),
        (b"GET / HTTP/1.2\r\n", (505, "bad-version")),
        (bytes.fromhex("1603010200010001fc0303") + bytes(200), (400, "tls-to-plain-port")),
        (b"GET / HTTP/1.1\nHost: g\n\n", (400, "bad-line-end")),
        (b"GET / HTTP/1.1\r\nHost: g\rX: 1\r\n\r\n", (400, "bad-line-end")),
        (b"GET / HTTP/1.1\r\n\r\n", (400, "bad-host")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", (400, "bad-host")),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", (400, "bad-host")),
        (post(b"no colon"), (400, "bad-header")),
        (post(b": empty"), (400, "bad-header")),
        (post(b"X: one", b" two"), (400, "bad-header")),
        (post(b"Content-Length : 5"), (400, "bad-header")),
        (post(b"X\xe9: 1"), (400, "bad-header")),
        (post(b"X: \x00"), (400, "bad-header")),
        (post(b"X: \x7f"), (400, "bad-header")),
        (post(), (411, "length-required")),
        (post(b"Content-Length: 5", b"Content-Length: 6"), (400, "bad-length")),
        (post(b"Content-Length: 5", b"Content-Length: 5"), (400, "bad-length")),
        (post(b"Content-Length: +5"), (400, "bad-length")),
        (post(b"Content-Length: -5"), (400, "bad-length")),
        (post(b"Content-Length: 5_0"), (400, "bad-length")),
        (post("Content-Length: ٣".encode()), (400, "bad-length")),
        (post(b"Content-Length:"), (400, "bad-length")),
        (post(b"Content-Length: 5", b"Transfer-Encoding: chunked"), (400, "bad-length")),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", (400, "bad-length")),
        (post(b"Transfer-Encoding: gzip, chunked"), (501, "bad-transfer-encoding")),
        (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), (501, "bad-transfer-encoding")),
        (post(b"Transfer-Encoding: \x0bchunked"), (400, "bad-header")),
        (post(b"Content-Length: 5", b"Expect: money"), (417, "bad-expectation")),
    ],
)
def test_a_bad_head_is_refused_with_its_reason(data, answer):
    assert refusal(data) == answer


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b" 5\r\n",
        b"5 \r\n",
        b"1_0\r\n",
        b"+5\r\n",
        b"1" * 17 + b"\r\n",
        b"2\r\nabc\r\n",
        b"2\r\nab\rX",
        b"5;" + b"x" * 300,
        b"0;\x00\r\n",
    ],
)
def test_bad_chunks_are_refused(body):
    data = post(b"Transfer-Encoding: chunked", body=body)
    assert refusal(data) == (400, "bad-chunk")
    assert refusal(b"".join(data[i : i + 1] for i in range(len(data)))) == (400, "bad-chunk")


def test_chunk_lines_end_with_cr_lf_and_trailers_are_headers():
    chunked = post(b"Transfer-Encoding: chunked")
    assert refusal(chunked + b"1\na\n0\n\n") == (400, "bad-line-end")
    assert refusal(chunked + b"0\r\nnot a trailer\r\n\r\n") == (400, "bad-header")
    assert refusal(chunked + b"0\r\n" + b"a: b\r\n" * 3000) == (431, "head-too-large")


def test_limits_are_reached_and_not_passed():
    limits = replace(LIMITS, max_body_bytes=10, max_headers=2, max_request_line_bytes=20, max_head_bytes=60)
    sized = [post(b"Content-Length: %d" % size, body=b"x" * size) for size in (10, 11)]
    assert events([sized[0]], limits)[1] == b"x" * 10
    assert refusal(sized[1], limits) == (413, "body-too-large")
    chunked = post(b"Transfer-Encoding: chunked", body=b"6\r\n012345\r\n")
    assert events([chunked + b"4\r\n6789\r\n0\r\n\r\n"], limits)[1] == b"0123456789"
    assert refusal(chunked + b"5\r\n", limits) == (413, "body-too-large")
    assert refusal(post(b"A: 1", b"B: 2"), limits) == (431, "too-many-headers")
    line = b"GET /1234 HTTP/1.1\r\n"  # 20 bytes
    assert isinstance(events([line + b"Host: g\r\n\r\n"], limits)[0], Request)
    assert refusal(line.replace(b"/", b"//"), limits) == (414, "request-line-too-long")
    exact = b"GET / HTTP/1.1\r\nHost: g\r\nA: " + b"x" * 28 + b"\r\n\r\n"  # 16 + 9 + 33 + 2 = 60 bytes
    assert isinstance(events([exact], limits)[0], Request)
    assert refusal(exact.replace(b"A: ", b"A:  "), limits) == (431, "head-too-large")


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nHost: g\r\nX: "])
def test_an_endless_line_is_refused_after_the_bytes_allowed_whatever_its_pieces(start):
    for size in (1, 1000, 10 << 20):
        parser = Parser(LIMITS)
        parser.receive(start)
        assert parser.next_event() is NEED_DATA
        fed = len(start)
        with pytest.raises(ProtocolError) as refused:  # noqa: PT012
            while fed < 10 << 20:
                fed += size
                parser.receive(b"x" * size)
                parser.next_event()
        assert refused.value.fault.status == (414 if start == b"GET /" else 431)
        assert fed <= LIMITS.max_head_bytes + size


def test_a_dribbled_line_is_not_searched_again_for_each_byte():
    limits = replace(LIMITS, max_request_line_bytes=400_000, max_head_bytes=400_000)

    def seconds(length):
        parser, start = Parser(limits), time.perf_counter()
        for _ in range(length):
            parser.receive(b"x")
            parser.next_event()
        return time.perf_counter() - start

    short, long = min(seconds(30_000) for _ in range(3)), seconds(300_000)
    assert long < 30 * short  # ten times the bytes: 10 if linear, 100 if every byte meant a new search


fragments = [
    *(b"GET / HTTP/1.1\r\n", b"POST /x?y=1 HTTP/1.1\r\n", b"Host: g\r\n", b"Content-Length: 5\r\n", b"x" * 70, b":"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"hello", b"\x16"),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b"\r\n", b"\n", b"\r", b"\x03", b" "),
]
chunked = [b"POST / HTTP/1.1\r\n", b"Host: g\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n"]
requests = st.sampled_from([[], [b"GET / HTTP/1.1\r\n", b"Host: g\r\n"], chunked])  # a start that gets far
pieces = st.lists(st.one_of(st.binary(max_size=20), st.sampled_from(fragments)), max_size=12)


@settings(max_examples=300, deadline=None)
@given(requests, pieces)
@example([], [b"\x16", b"\x03"])
@example(chunked, [b"5\r\nhello\r\n", b"\r", b"\n"])
@example(chunked, [b"5\r\nhello", b"\r", b"\n0\r\n", b"\r\n", b"GET / HTTP/1.1\r\n"])
def test_any_bytes_are_requests_or_one_kind_of_error_however_they_are_cut(start, more):
    limits = replace(LIMITS, max_request_line_bytes=60, max_head_bytes=120, max_headers=4, max_body_bytes=30)
    parts = [*start, *more]
    data = b"".join(parts)
    whole = events([data], limits)  # anything but ProtocolError comes out of here
    assert events(parts, limits) == whole
    assert events([data[i : i + 1] for i in range(len(data))], limits) == whole


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SESSION) - 1), st.binary(min_size=1, max_size=3))
def test_a_damaged_session_is_read_or_refused(at, damage):
    events([SESSION[:at] + damage + SESSION[at + len(damage) :]])


def test_an_answer_head_is_encoded_and_cannot_be_split():
    head = encode_head(503, {"Retry-After": "5", "Content-Length": "0"})
    assert head == b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
    for name, value in [("X", "1\r\nSet-Cookie: a"), ("X\r\nY", "1"), ("X", "\x00"), ("", "1"), ("X", "1\n")]:
        with pytest.raises(ValueError, match="cannot be sent"):
            encode_head(200, {name: value})
