"""What the gateway says of the run when a device joins."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgemeta.config import DataConfig
from edgemeta.errors import ConfigError, InputError
from edgemeta.nn import Model
from edgemeta.nn.files import model_from
from edgemeta.records import record_from


@dataclass(frozen=True)
class Joined:
    """The run as a device sees it. last_round: None when the run is endless."""

    participant: int
    session: str
    data: DataConfig
    seed: int
    network: Model
    classes: tuple[str, ...]
    last_round: int | None


def read_joined(answer: Mapping[str, Any], threads: int = 1) -> Joined:
    """Return the answer to a join, checked, its network with so many threads.

    Raises ConfigError when this device cannot take part in such a run.
    """
    try:
        data, model = dict(answer["data"]), answer["model"]
        participant, session, seed, last = answer["participant"], answer["session"], data.pop("seed"), None
        last = answer.get("last_round")
        numbers = [participant, seed, *([] if last is None else [last])]
        if not all(type(number) is int and number >= 0 for number in numbers) or not isinstance(session, str):
            raise ValueError("participant, seed and last_round must be numbers, and session a string")
        classes = model["classes"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("classes must be a list of names")
        network = _network(model, len(classes))
        network.threads = threads
        if network.layout.fingerprint != model["layout"]:
            raise ValueError(f"its layout is {model['layout']}, and here it would be {network.layout.fingerprint}")
        return Joined(participant, session, record_from(DataConfig, data), seed, network, tuple(classes), last)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InputError) as error:
        raise ConfigError(
            f"this device cannot take part in the gateway's run ({error!r}): "
            "install the same version of edgemeta on both"
        ) from None


def _network(model: Mapping[str, Any], outputs: int) -> Model:
    """Return the network: described as in a model file's metadata, but with plain JSON values."""
    described = {
        "model": model["name"],
        "input_shape": ",".join(map(str, model["input_shape"])),
        "normalization": json.dumps(model["normalization"]),
        "loss": model["loss"],
    }
    return model_from(described | ({"layers": json.dumps(model["layers"])} if "layers" in model else {}), outputs)
