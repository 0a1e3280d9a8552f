"""The gateway's ear: it takes in peers, hands their requests to one handler and streams its answers.

    listener = await serve(handler, "127.0.0.1", 0, Limits())
    ...
    await listener.close()

One task a connection, from its first byte to its end (see connection.py), and a bound on their number (budget.py). What
a connection holds is bounded in the kernel too, by the socket buffers that are set: sixty-four slow readers are not
sixty-four copies there either.
"""

import asyncio
import logging
import resource
import socket
import ssl as tls
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial

from edgemeta.errors import InputError
from edgemeta.http import budget, door
from edgemeta.http.budget import Budget, Place
from edgemeta.http.connection import Connection, Handler, Protocol, Service
from edgemeta.http.head import Fault
from edgemeta.http.http1 import Limits, ProtocolError
from edgemeta.logs import Failures

log = logging.getLogger("edgemeta")

BACKLOG = 1024  # connections the kernel holds until they are accepted: devices come back all at once
AT_ONCE = 4  # connections accepted between two turns of those that are there: a flood leaves them time for their answer
LEAVING = 32  # connections that have been cut and are not gone yet
FULL_S = 0.01  # without accepting, when the reserve is full of who has just come
PAUSE_S = 0.25  # without accepting, when the system has no descriptor or memory for it
# Bytes in the kernel for each connection, which may double them: enough for 1 MB/s up and 2.5 MB/s down over a line
# of 50 ms, and far more nearby. Left to itself the kernel gives a slow reader 2.5 MB and more.
RECEIVE_BUFFER, SEND_BUFFER = 1 << 16, 1 << 17
TLS_ONLY = ProtocolError(Fault.PLAIN_TO_TLS_PORT, "this port speaks TLS: use https:// in the address, or a join file")


class Listener:
    """A server that listens. port: the one it got; addresses: those it has.

    refusals: reason -> how many requests this module refused for it. ssl: what new connections speak TLS with; it may
    be replaced.
    """

    def __init__(self, service: Service, sockets: list[socket.socket], ssl: tls.SSLContext | None) -> None:
        self._service, self._sockets, self.ssl = service, sockets, ssl
        self.refusals: Counter[str] = self._service.refusals
        self.port: int = sockets[0].getsockname()[1]
        self.addresses: frozenset[str] = frozenset(listening.getsockname()[0] for listening in sockets)
        self._served: dict[asyncio.Task[None], Place] = {}
        self._connections: dict[Place, Connection] = {}  # of those that have said something
        self._loop = asyncio.get_running_loop()
        for listening in sockets:
            self._listen(listening)

    @property
    def roomy(self) -> bool:
        """Whether a request may wait here for its answer: else its connection is wanted by others."""
        return self._service.budget.roomy

    @property
    def connections(self) -> dict[str, int]:
        """How many there are, and how many there may be at most."""
        return {"now": self._service.budget.taken, "most": self._service.limits.max_connections}

    async def close(self) -> None:
        """Stop listening, let answers under way finish for limits.close_grace_s, then cut what is left."""
        self._service.closing = True
        while self._sockets:
            listening = self._sockets.pop()
            self._loop.remove_reader(listening)
            listening.close()
        tasks = list(self._served)
        for task, place in self._served.items():
            if place not in self._connections or not self._connections[place].busy:
                task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._service.limits.close_grace_s)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)

    def _listen(self, listening: socket.socket) -> None:
        if not self._service.closing:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Take in who calls. What cannot be accepted now is left in the kernel for a while: it is still there then."""
        for _ in range(AT_ONCE):
            if self._service.budget.is_full(self._loop.time()):
                self._loop.remove_reader(listening)
                self._loop.call_later(FULL_S, self._listen, listening)
                return
            try:
                peer, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                self._loop.remove_reader(listening)
                self._loop.call_later(PAUSE_S, self._listen, listening)
                if self._service.logged.due("accept", self._loop.time()):
                    log.error("no connection can be taken in now: %s; trying again", error.strerror)
                return
            if len(self._served) < self._service.limits.max_connections + LEAVING:
                self._take_in(peer, address[0])
            else:
                peer.close()

    def _take_in(self, peer: socket.socket, address: str) -> None:
        place = Place(budget.neighbours(address))
        task = self._loop.create_task(self._serve(peer, place))
        place.cut = partial(self._cut, task)
        self._served[task] = place
        task.add_done_callback(partial(self._gone, peer))
        self._service.budget.enter(place, self._loop.time())

    def _cut(self, task: asyncio.Task[None]) -> None:
        """End a connection for another one's sake."""
        task.cancel()
        self.refusals[Fault.TOO_MANY_CONNECTIONS] += 1
        if self._service.logged.due("cut", self._loop.time()):
            most = self._service.limits.max_connections
            log.warning("more connections than there is room for (%d in all), or of one peer: the oldest are cut", most)

    def _gone(self, peer: socket.socket, task: asyncio.Task[None]) -> None:
        """Clear up after a connection, also after one that was cut before its task had begun."""
        place = self._served.pop(task)
        self._connections.pop(place, None)
        self._service.budget.leave(place)
        peer.close()
        if not task.cancelled() and (error := task.exception()):
            self._service.failures.note("connection", error)

    async def _serve(self, peer: socket.socket, place: Place) -> None:
        """Live through one connection, from its first byte to its end."""
        peer.setblocking(False)
        try:
            async with asyncio.timeout(self._service.limits.idle_s):
                first = await door.first_byte(peer)
                if not first:
                    return
                self._service.budget.began(place, self._loop.time())
                encrypted = self.ssl if first == door.HANDSHAKE else None
                protocol = await self._met(peer, encrypted)
        except OSError as error:  # ssl.SSLError and TimeoutError too
            self._not_met(place.address, error)
            error.__traceback__ = None  # it would keep the memory of the handshake until Python looks for circles
            return
        connection = self._connections[place] = Connection(self._service, protocol, place)
        try:
            await (connection.turn_away(TLS_ONLY) if self.ssl and not encrypted else connection.serve())
        finally:
            await connection.abort()  # nothing is left to cut after an orderly end

    async def _met(self, peer: socket.socket, ssl: tls.SSLContext | None) -> Protocol:
        """Return what speaks with a peer, after the handshake where there is one."""
        protocol, how = Protocol(), {"ssl_handshake_timeout": self._service.limits.idle_s} if ssl else {}
        transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, peer, ssl=ssl, **how)
        # Not in asyncio's documents, so only where it is: 64 uploads at once then take 44 MiB, and 72 without.
        if ssl and hasattr(transport, "set_read_buffer_limits"):
            transport.set_read_buffer_limits(door.UNREAD)
        return protocol

    def _not_met(self, address: str, error: OSError) -> None:
        word, text = door.advice(error) or ("", "")
        if word and self._service.logged.due(word, self._loop.time()):
            log.warning("no TLS with %(peer)s: %(detail)s", {"peer": address, "detail": text})


async def serve(
    handler: Handler,
    host: str,
    port: int,
    limits: Limits,
    ssl: tls.SSLContext | None = None,
    failures: Failures | None = None,
    bound: list[socket.socket] | None = None,
) -> Listener:
    """Start to answer requests on host and port (0: any free one; the listener's `port` says which).

    handler: (Request, Body) -> Response, one call at a time for each connection; cancelled when its peer goes away.
    failures: where its unexpected errors are counted. bound: what `bind` returned, if it was asked before. Raises
    InputError when the address cannot be had, or this process may open too few files.
    """
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        descriptors = sys.maxsize
    most = budget.places(descriptors, limits.max_connections, limits.files_per_answer)
    if most < 1:
        raise InputError(
            f"this process may open {descriptors} files at a time, of which the run takes {budget.FOR_THE_RUN}: "
            "allow it more ('ulimit -n', or LimitNOFILE= of its unit)"
        )
    sockets = bound or await bind(host, port)
    log.info("at most %d connections at a time, as this process may open %d files", most, descriptors)
    room = Budget(most, limits.max_session_connections, limits.overdue_s)
    service = Service(handler, replace(limits, max_connections=most), room, failures or Failures(time.monotonic))
    return Listener(service, sockets, ssl)


async def bind(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on all addresses of a host; raises InputError when they cannot be had."""
    try:
        return await _bound(host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error}; "
            "expected an address of this machine and a free port: stop the other program or choose another port"
        ) from error


async def _bound(host: str, port: int) -> list[socket.socket]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)  # without the protocol asyncio sets no TCP_NODELAY
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option, size in ((socket.SO_SNDBUF, SEND_BUFFER), (socket.SO_RCVBUF, RECEIVE_BUFFER)):
                listening.setsockopt(socket.SOL_SOCKET, option, size)  # accepted sockets inherit these
            listening.bind((address[0], port, *address[2:]))
            listening.listen(BACKLOG)
            listening.setblocking(False)
    except BaseException:
        for listening in sockets:
            listening.close()
        raise
    return sockets
