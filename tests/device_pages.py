"""A device and its page, spoken to over HTTP, and pictures to teach it."""

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image

import edgemeta
from edgemeta.config import DataConfig
from edgemeta.device.state import FORMAT
from edgemeta.fed.description import Description
from edgemeta.meta import TrainedModel
from edgemeta.nn import Model, build
from edgemeta.teach.server import page_of

AWAY, NAME = "http://127.0.0.1:9", "<b>board</b>"
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def picture(colour: str, seed: int = 0, size: int = 40, kind: str = "PNG") -> bytes:
    """Return a picture's file: noise about a colour."""
    noise = np.random.default_rng(seed).integers(-30, 30, (size, size, 3))
    file = BytesIO()
    Image.fromarray((np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)).save(file, kind)
    return file.getvalue()


class Page:
    """Who asks a page at a port of this machine; headers go with every request."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port, self._tls, self.headers = port, tls, dict[str, str]()

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
        """Return (status, headers, the body: what JSON says, else bytes). Header names are written with _ for -."""
        how = {"timeout": 20.0}
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection("127.0.0.1", self.port, context=self._tls, **how)
            if self._tls
            else http.client.HTTPConnection("127.0.0.1", self.port, **how)
        )
        try:
            sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        is_json = answer.headers["Content-Type"] == "application/json"
        return answer.status, answer.headers, json.loads(content) if is_json and content else content

    def state(self) -> Any:
        """Return what the page shows."""
        status, _, said = self.call("GET", "/state.json")
        assert status == 200, said
        return said

    def learn(self, content: bytes, label: str) -> tuple[int, Any]:
        """Teach; return (status, answer)."""
        return self.call("POST", f"/learn?{urlencode({'label': label})}", content)[::2]

    def see(self, content: bytes) -> tuple[int, Any]:
        """Try a picture; return (status, answer)."""
        return self.call("POST", "/try", content)[::2]


def write_device(state: Path, network: Model, classes: tuple[str, ...] = (), *, embedding: bool = True) -> None:
    """Write the state of a device that has joined a run; embedding: that the run's model has come to it."""
    run = Description(DataConfig(participants=1), 0, network, classes, None)
    state.mkdir()
    kept = {"server": AWAY, "name": NAME, "session": "s", "folder": "", "joined": {"participant": 0, **run.to_json()}}
    (state / "device.json").write_text(json.dumps({"format": FORMAT, **kept}))
    if embedding:
        TrainedModel(network, network.init(seed=0), classes, 1).save(state / "model.safetensors")


def own_network() -> Model:
    """Return a small network for own classes, of pictures of 8 x 8."""
    return build("mlp", (8, 8, 3), 0, "prototypes")


@contextmanager
def page(
    state: Path, data: Any = None, camera: Callable[[], Any] | None = None, **facts: Any
) -> Iterator[tuple[edgemeta.Device, Page]]:
    """Give the device of a state directory, whose gateway is away, and its page."""
    with edgemeta.Device(AWAY, data, state, NAME, **facts) as device, page_of(device, camera=camera) as port:
        yield device, Page(port)
