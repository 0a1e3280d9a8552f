"""The gateway's requests and answers (the protocol page defines them): from HTTP to the run, and back."""

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from edgemeta import __version__
from edgemeta.errors import StorageError
from edgemeta.fed.description import Description
from edgemeta.fed.messages import told
from edgemeta.fed.refusal import Reason, Refused
from edgemeta.gateway.gateway import Gateway
from edgemeta.gateway.hosts import check_host, check_origin
from edgemeta.gateway.metrics import CONTENT_TYPE, metrics_of
from edgemeta.gateway.status import status_of
from edgemeta.gateway.waiting import RETRY_S, again_s
from edgemeta.http.exchange import Body, FilePart, Response, json_answer
from edgemeta.http.http1 import Request
from edgemeta.link.address import is_loopback
from edgemeta.link.protocol import NUMBER, PROTOCOL, SECONDS_LEFT
from edgemeta.page.gateway import gateway_page
from edgemeta.reading import Reader

log = logging.getLogger("edgemeta")

MAX_JOIN_BYTES = 1 << 14
MAX_EVALUATION_BYTES = 1 << 16  # a score of each grid cell takes some 90
MAX_WAIT_S = 60.0
MAX_WAKE_S = 86_400.0  # a round waits no longer than that for a board that sleeps
TENSORS = {"Content-Type": "application/octet-stream"}
STATUS = {  # of a refusal, by its reason; every other one is 422
    Reason.BAD_JSON: 400,
    Reason.UNKNOWN_SESSION: 401,
    Reason.TOKEN_REQUIRED: 401,
    Reason.BAD_TOKEN: 401,
    Reason.REVOKED: 401,
    Reason.WRONG_DEVICE: 403,
    Reason.OPERATOR_ONLY: 403,
    Reason.UNKNOWN_HOST: 403,
    Reason.FOREIGN_ORIGIN: 403,
    Reason.NOT_FOUND: 404,
    Reason.WRONG_METHOD: 405,
    Reason.NAME_IN_USE: 409,
    Reason.OTHER_PARTITION: 409,
    Reason.PARTITION_TAKEN: 409,
    Reason.RUN_FULL: 409,
    Reason.WRONG_ROUND: 409,
    Reason.NOT_IN_COHORT: 409,
    Reason.RUN_OVER: 410,
    Reason.PROTOCOL_TOO_OLD: 426,
    Reason.PROTOCOL_TOO_NEW: 426,
    Reason.STOPPING: 503,
    Reason.TOO_OFTEN: 503,
    Reason.STORAGE: 507,
}
Route = Callable[..., Awaitable[Response]]


async def answer(gateway: Gateway, request: Request, body: Body) -> Response:
    """Answer one request, or say with a stable reason why not.

    Raises ProtocolError for a body that is none, and where there is no room for whoever asks.
    """
    try:
        check_origin(request, gateway.hosts)
        route, parameters = _route(request)
        if route not in ALWAYS:
            caller = _caller(gateway, request)
            body.claim(_joining(gateway, request) if caller is None else caller)
            if caller is not None:
                gateway.heard_from(caller, request.headers.get(NUMBER.lower(), ""))
        return await route(gateway, request, body, **parameters)
    except Refused as error:
        refused = error
    except (StorageError, OSError) as error:
        gateway.storage_failed(error)
        refused = Refused(Reason.STORAGE, "the gateway's disk is full or failing: try again later")
    gateway.refused(refused, _caller(gateway, request), body.peer)
    facts: dict[str, Any] = {"error": refused.reason, "detail": str(refused)}
    if refused.reason in (Reason.WRONG_ROUND, Reason.NOT_IN_COHORT):
        facts["round"] = gateway.coordinator.progress.round
    return json_answer(STATUS.get(refused.reason, 422), facts, _headers(refused.reason))


def _headers(reason: Reason) -> Mapping[str, str]:
    match STATUS.get(reason):
        case 401:
            return {"WWW-Authenticate": "Bearer"}
        case 426:
            return {"Upgrade": f"edgemeta/{PROTOCOL}"}
        case 503 | 507:
            return {"Retry-After": str(RETRY_S)}
    return {}


def _route(request: Request) -> tuple[Route, dict[str, int]]:
    """Return who answers, and the numbers in the path, by the names that the routes have for them."""
    for method, path, route in ROUTES:
        if match := re.fullmatch(path.replace("{round}", "(?P<round_number>[0-9]{1,9})"), request.path):
            if request.method != method and (request.method, method) != ("HEAD", "GET"):
                raise Refused(Reason.WRONG_METHOD, f"{request.path} takes {method}, not {request.method}")
            return route, {name: int(digits) for name, digits in match.groupdict().items()}
    raise Refused(Reason.NOT_FOUND, f"there is no {request.path[:100]} here")


async def _join(gateway: Gateway, request: Request, body: Body) -> Response:
    token, owner = _enrolled(gateway, request)
    asked = _object(await body.read(MAX_JOIN_BYTES))
    _check_version(asked.get("version"))
    name, key = asked.get("name"), asked.get("key")
    wanted, layout = asked.get("partition_id"), asked.get("layout")
    if not (isinstance(name, str) and 1 <= len(name) <= 64 and name.isprintable()):
        raise Refused(Reason.BAD_FIELD, "name: expected 1 to 64 printable characters")
    if owner not in (None, name):
        raise Refused(
            Reason.WRONG_DEVICE, f"this token is not the one of '{name}': one token cannot speak for another device"
        )
    if not (isinstance(key, str) and 16 <= len(key) <= 256 and key.isascii() and key.isprintable()):
        raise Refused(Reason.BAD_FIELD, "key: expected 16 to 256 ASCII characters, random ones, that the device keeps")
    if wanted is not None and type(wanted) is not int:
        raise Refused(Reason.BAD_FIELD, "partition_id: expected a whole number, or nothing")
    fingerprint = gateway.coordinator.model.layout.fingerprint
    if layout not in (None, fingerprint):
        raise Refused(Reason.WRONG_LAYOUT, f"layout {layout!r}: this run has {fingerprint}")
    participant, session = await gateway.join(name, key, wanted, token)
    body.claim(participant)
    joined = {"protocol": PROTOCOL, "participant": participant, "session": session}
    return json_answer(200, joined | _described(gateway))


async def _run(gateway: Gateway, request: Request, _: Body) -> Response:
    """Answer what a device wants to know before it joins: it costs no place in the run."""
    owner = _enrolled(gateway, request)[1]
    plan, progress, roster = gateway.coordinator.plan, gateway.coordinator.progress, gateway.roster
    number = progress.round
    facts = {
        "protocol": PROTOCOL,
        "time": round(time.time()),
        "name": owner,
        "participant": None if owner is None else roster.number(owner),
        "free": roster.free,
        "stage": progress.stage,
        "round": number,
        "recipe": told(plan.recipe(max(number, 1))),
        "round_deadline_s": plan.config.server.round_deadline_s,
    }
    return json_answer(200, facts | _described(gateway))


def _described(gateway: Gateway) -> dict[str, Any]:
    """Return what a device needs to know of the run."""
    plan, model = gateway.coordinator.plan, gateway.coordinator.model
    return Description(plan.config.data, plan.config.seed, model, plan.config.model.names, plan.last_round).to_json()


def _enrolled(gateway: Gateway, request: Request) -> tuple[str | None, str | None]:
    """Return the device token of a request and whose it is, (None, None) where the run takes none."""
    if not gateway.tokens.required:
        check_host(request, gateway.hosts)
        return None, None
    token = _bearer(request)
    return token, gateway.tokens.owner(token)


def _check_version(version: Any) -> None:
    if type(version) is not int:
        raise Refused(Reason.BAD_FIELD, f"version: expected the number of a protocol version, here {PROTOCOL}")
    if version != PROTOCOL:
        raise Refused(
            Reason.PROTOCOL_TOO_OLD if version < PROTOCOL else Reason.PROTOCOL_TOO_NEW,
            f"protocol version {version}: this gateway speaks version {PROTOCOL} and no other",
        )


async def _work(gateway: Gateway, request: Request, _: Body) -> Response:
    gateway.participant(_bearer(request))
    wait_s, wake_s = _seconds(request, "wait", MAX_WAIT_S), _seconds(request, "wake", MAX_WAKE_S)
    task = await gateway.work(_bearer(request), wait_s, wake_s)
    if task is None and gateway.stopping:
        raise Refused(Reason.STOPPING, "the gateway is being stopped: try again later")
    if task is None:
        again = again_s(gateway.listener, len(gateway.roster.names), waited=wait_s >= 1)
        return Response(204, {"Retry-After": str(again)})
    asyncio.get_running_loop().call_soon(task.files.close)  # the listener has its own descriptors by then
    left_s = max(gateway.coordinator.seconds_left(time.monotonic()), 0.0)
    headers = TENSORS | ({} if wake_s else {SECONDS_LEFT: f"{left_s:.0f}"})  # what a sleeper sends may come later
    return Response(200, headers, [task.header, *task.vectors])


async def _update(gateway: Gateway, request: Request, body: Body, round_number: int) -> Response:
    await gateway.deliver(_bearer(request), round_number, body)
    return json_answer(200, {"accepted": True})


async def _evaluation(gateway: Gateway, request: Request, body: Body, round_number: int) -> Response:
    await gateway.deliver_evaluation(_bearer(request), round_number, body, MAX_EVALUATION_BYTES)
    return json_answer(200, {"accepted": True})


async def _diverged(gateway: Gateway, request: Request, _: Body, round_number: int) -> Response:
    await gateway.diverged(_bearer(request), round_number)
    return json_answer(200, {"accepted": True})


async def _model(gateway: Gateway, request: Request, body: Body) -> Response:
    if _caller(gateway, request) is None:
        if not is_loopback(body.peer):
            gateway.participant(_bearer(request))
        check_host(request, gateway.hosts)
    file = Reader(gateway.coordinator.model_path)  # of the published one somebody may have disposed
    asyncio.get_running_loop().call_soon(file.close)  # the listener has its own descriptor by then
    return Response(200, TENSORS, [FilePart(file.fileno(), file.status().st_size)])


async def _status(gateway: Gateway, request: Request, body: Body) -> Response:
    _check_operator(gateway, request, body.peer)
    tag, status = gateway.told.at(gateway, time.monotonic())
    headers = {"ETag": tag, "Cache-Control": "no-store"}
    if tag in map(str.strip, request.headers.get("if-none-match", "").split(",")):
        return Response(304, headers)
    return Response(200, {"Content-Type": "application/json", **headers}, status)


async def _metrics(gateway: Gateway, request: Request, body: Body) -> Response:
    _check_operator(gateway, request, body.peer)
    return Response(200, {"Content-Type": CONTENT_TYPE}, metrics_of(status_of(gateway, time.monotonic())).encode())


async def _page(gateway: Gateway, request: Request, _body: Body) -> Response:
    check_host(request, gateway.hosts)
    return Response(200, *gateway_page(__version__))  # it says nothing of the run: that it asks for by /status.json


async def _healthz(gateway: Gateway, request: Request, _body: Body) -> Response:
    check_host(request, gateway.hosts)
    return json_answer(200, {"ok": True})


ROUTES: list[tuple[str, str, Route]] = [
    ("POST", "/v1/join", _join),
    ("GET", "/v1/run", _run),
    ("GET", "/v1/work", _work),
    ("POST", "/v1/rounds/{round}/update", _update),
    ("POST", "/v1/rounds/{round}/evaluation", _evaluation),
    ("POST", "/v1/rounds/{round}/diverged", _diverged),
    ("GET", "/v1/model", _model),
    ("GET", "/status.json", _status),
    ("GET", "/metrics", _metrics),
    ("GET", "/", _page),
    ("GET", "/healthz", _healthz),
]
ALWAYS = (_status, _metrics, _page, _healthz)  # are answered however many others there are


def _check_operator(gateway: Gateway, request: Request, peer: str) -> None:
    """Let the operator pass: whoever is on this machine, or has the operator's token."""
    if gateway.tokens.is_operators(_bearer(request)):
        return
    if not is_loopback(peer):
        raise Refused(Reason.OPERATOR_ONLY, "this is answered on the gateway itself, or with the operator's token")
    check_host(request, gateway.hosts)


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _caller(gateway: Gateway, request: Request) -> int | None:
    session = _bearer(request)
    return None if session is None else gateway.find(session)


def _joining(gateway: Gateway, request: Request) -> str | None:
    """Return whose device token comes with a request: to the listener who is about to join is no stranger."""
    token = _bearer(request)
    if token and gateway.tokens.required:
        with suppress(Refused):
            return gateway.tokens.owner(token)
    return None


def _seconds(request: Request, name: str, most: float) -> float:
    """Return a time that comes with a request, 0 where it does not."""
    text = request.query.get(name, "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise Refused(Reason.BAD_FIELD, f"{name}={text[:20]}: expected seconds, of which {most:g} at most count")
    return min(seconds, most)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(Reason.BAD_JSON, f"expected a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise Refused(Reason.BAD_JSON, "expected a JSON object")
    return value
