"""What the page asks of its device, and who may ask.

GET  /                      the page
POST /pair                  the pairing code as the body: a cookie that opens what follows
GET  /state.json            the classes, the pictures, what is in the way
GET  /picture?file=         a small picture of one that is held
POST /learn?label=          a picture as the body: it counts at once
POST /try                   a picture as the body: what the device sees in it
POST /rename?label=&name=   what was taught under a label, under another name
POST /forget?label=         what was taught under a label
GET  /frame                 what the board's own camera sees, where it has one
"""

import asyncio
import hmac
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgemeta.data.pictures import as_png, pixels_of, read_picture, read_sent_picture, stretched
from edgemeta.device.device import Device
from edgemeta.device.looking import name_of, not_teachable, picture, pictures, see
from edgemeta.errors import DataError, EdgemetaError, StorageError
from edgemeta.http.exchange import Body, Response, json_answer, off_loop
from edgemeta.http.hosts import asked_of, is_known, is_own_origin
from edgemeta.http.http1 import Request
from edgemeta.names import shown
from edgemeta.teach.document import HEADERS, page

MOST_BYTES = 8 << 20  # of a picture that is sent; the page makes larger ones smaller, where the browser can read them
MOST_PIXELS = 1 << 24  # of one that is decoded: 50 MB
SIDE = 256  # pixels of the longer side that are kept of one: 10,000 of them are 1 GB at most
SMALL = (96, 96, 3)  # of a picture on the page
LISTED = 12  # pictures of a class on the page; the others are counted
NEAREST = 4
ANSWERS = 5  # classes with their confidence
CODE_LETTERS, CODE_LENGTH = "23456789ABCDEFGHJKMNPQRSTVWXYZ", 8  # 39 bits, without letters that look like others
WRONG_S = 1.0  # for which a wrong code is thought about
COOKIE = "__Host-edgemeta"
FROM_HERE = (None, "none", "same-origin")  # Sec-Fetch-Site of what no other site has sent


class Refused(EdgemetaError):
    """A request that is not answered. word: why, for programs."""

    def __init__(self, status: int, word: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.word = status, word


def new_code() -> str:
    """Return a new pairing code."""
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))


@dataclass
class Served:
    """A device and its page. names: of this machine, in lower case. code: that opens it, "" where it is open.

    camera: of the board, which returns what it sees now, as `Device.learn` takes it.
    """

    device: Device
    names: Collection[str]
    code: str = ""
    camera: Callable[[], Any] | None = None
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # one picture is decoded at a time, on a board


async def answer(served: Served, request: Request, body: Body) -> Response:
    """Answer one request."""
    try:
        check(served, request)
        body.claim(None)
        response = await _answered(served, request, body)
    except Refused as refused:
        response = json_answer(refused.status, {"error": refused.word, "detail": str(refused)})
    except DataError as error:
        response = json_answer(422, {"error": "refused", "detail": shown(str(error))})
    except StorageError as error:
        response = json_answer(507, {"error": "storage", "detail": shown(str(error))})
    return Response(response.status, {**HEADERS, **response.headers}, response.body)


def check(served: Served, request: Request) -> None:
    """Refuse what another site's page sends, or sends by a name of its own, and who has not paired."""
    for authority in asked_of(request):
        if not is_known(authority, served.names):
            raise Refused(403, "unknown-host", f"{authority} is no name of this device: use its address")
    page_itself = request.path == "/" and request.method in ("GET", "HEAD")
    from_here = request.headers.get("sec-fetch-site") in FROM_HERE or page_itself
    if not from_here or not is_own_origin(request, served.names):
        raise Refused(403, "foreign-origin", "a page of another site cannot speak for who has opened it")
    if served.code and request.path not in ("/", "/pair") and not _paired(served, request.headers.get("cookie", "")):
        raise Refused(401, "not-paired", "give the pairing code that this device shows on its console")


def _paired(served: Served, cookies: str) -> bool:
    given = (part.strip().partition("=") for part in cookies.split(";"))
    return any(
        name == COOKIE and hmac.compare_digest(value.encode(), served.cookie.encode()) for name, _, value in given
    )


async def _answered(served: Served, request: Request, body: Body) -> Response:
    device, label = served.device, request.query.get("label", "")
    match "GET" if request.method == "HEAD" else request.method, request.path:
        case "GET", "/":
            content, policy = page()
            return Response(
                200, {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}, content
            )
        case "POST", "/pair":
            return await _pair(served, await body.read(100))
        case "GET", "/state.json":
            return await _shown(served)
        case "GET", "/picture":
            async with served.turn:
                content = await off_loop(small, device, request.query.get("file", ""))
            return Response(200, {"Content-Type": "image/png"}, content)
        case "GET", "/frame" if served.camera:
            async with served.turn:
                content = await off_loop(frame, served.camera)
            return Response(200, {"Content-Type": "image/png"}, content)
        case "POST", "/learn":
            await _taken(served, learnt, body, label)
            return await _shown(served)
        case "POST", "/try":
            return json_answer(200, await _taken(served, tried, body))
        case "POST", "/rename":
            await body.read(0)
            await off_loop(device.rename, label, request.query.get("name", ""))
            return await _shown(served)
        case "POST", "/forget":
            await body.read(0)
            await off_loop(device.forget, label)
            return await _shown(served)
    raise Refused(404, "not-found", f"there is no {request.method} {request.path} here")


async def _shown(served: Served) -> Response:
    return json_answer(200, {**await off_loop(state, served.device), "camera": served.camera is not None})


async def _taken(served: Served, use: Any, body: Body, *how: str) -> Any:
    content = await body.read(MOST_BYTES)
    async with served.turn:
        return await off_loop(use, served.device, content, *how)


async def _pair(served: Served, given: bytes) -> Response:
    code = given.decode("ascii", "replace").upper().replace("-", "").replace(" ", "")
    if not hmac.compare_digest(code.encode(), served.code.encode()):
        await asyncio.sleep(WRONG_S)
        raise Refused(403, "wrong-code", "This is not the pairing code that this device shows on its console")
    cookie = f"{COOKIE}={served.cookie}; Path=/; Secure; HttpOnly; SameSite=Strict"
    return json_answer(200, {"paired": True}, {"Set-Cookie": cookie})


def state(device: Device) -> dict[str, Any]:
    """Return what the page shows of a device."""
    return {
        "name": name_of(device),
        "classes": device.classes,
        "not_teachable": not_teachable(device),
        "held": [
            {
                "label": one.label,
                "count": len(one.files),
                "files": one.files[:LISTED],
                "own": one.own,
            }
            for one in sorted(pictures(device), key=lambda one: not one.own)  # what can be forgotten first
        ],
    }


def small(device: Device, file: str) -> bytes:
    """Return a held picture as a small PNG; made anew, so that a browser gets nothing else that the file may be."""
    if (path := picture(device, file)) is None:
        raise Refused(404, "not-found", "there is no such picture")
    return as_png(read_picture(path, SMALL))


def frame(camera: Callable[[], Any]) -> bytes:
    """Return what a camera sees as a picture of the size that is kept of one; a camera that fails is Refused."""
    try:
        pixels = pixels_of(camera())
    except Exception as error:  # of whatever driver it is
        raise Refused(503, "camera", f"the board's camera does not work: {shown(str(error), 200)}") from error
    scale = min(1.0, SIDE / max(pixels.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return as_png(stretched(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), (height, width, 3)))


def learnt(device: Device, content: bytes, label: str) -> None:
    """Teach a device a picture."""
    device.learn(read_sent_picture(content, SIDE, MOST_PIXELS), label)


def tried(device: Device, content: bytes) -> Mapping[str, Any]:
    """Return what a device sees in a picture."""
    seen = see(device, read_sent_picture(content, SIDE, MOST_PIXELS), NEAREST)
    return {
        "answer": [{"label": label, "chance": chance} for label, chance in seen.answer[:ANSWERS]],
        "unlike": seen.unlike,
        "nearest": [{"label": label, "file": file} for label, file in seen.nearest],
    }
