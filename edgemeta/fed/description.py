"""A run as those who take part in it hear of it: the gateway says it, device and doctor read it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgemeta.config import OWN, DataConfig
from edgemeta.errors import ConfigError, InputError
from edgemeta.fed.messages import told
from edgemeta.nn import Model
from edgemeta.nn.files import model_from, model_metadata
from edgemeta.nn.heads import give_head
from edgemeta.records import record_from

MOST_CLASSES = 10_000  # that a run may give a head for


@dataclass(frozen=True)
class Description:
    """data: how an experiment's data is cut (its source is a device's own); last_round: None where there is no last.

    classes: the names; none where every participant has its own. Where as many as join take part, it is not said how
    many do: older devices know no number for that.
    """

    data: DataConfig
    seed: int
    network: Model
    classes: tuple[str, ...]
    last_round: int | None

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads back, ready for JSON; a network without a name is described by its layers."""
        model = model_metadata(self.network, self.classes, 0)
        left_out = ("source", "participants") if not self.data.participants else ("source",)
        return {
            "last_round": self.last_round,
            "data": {key: value for key, value in told(self.data).items() if key not in left_out} | {"seed": self.seed},
            "model": {
                "name": model["model"],
                "input_shape": list(self.network.input_shape),
                "classes": OWN if self.network.embeds else list(self.classes),
                "normalization": json.loads(model["normalization"]),
                "layout": model["layout"],
                "loss": model["loss"],
                **({"most_classes": self.network.headed.outputs} if self.network.headed else {}),
                **({"layers": json.loads(model["layers"])} if "layers" in model else {}),
            },
        }

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> "Description":
        """Return what a gateway said, checked; raises ConfigError when nobody here can take part in such a run.

        Nothing of the network's size is allocated: whether there is memory for it can be looked at before.
        """
        try:
            data, model, last = {"participants": 0, **said["data"]}, said["model"], said.get("last_round")
            seed = data.pop("seed")
            if not all(type(number) is int and number >= 0 for number in (seed, 0 if last is None else last)):
                raise ValueError("seed and last_round must be whole numbers from 0")
            own = model["classes"] == OWN
            classes = [] if own else model["classes"]
            if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
                raise ValueError("classes must be a list of names")
            network = _network(model, len(classes))
            if network.embeds != own:
                raise ValueError(f"classes are {model['classes']!r}, and the network's loss is {network.loss!r}")
            if network.layout.fingerprint != model["layout"]:
                raise ValueError(f"its layout is {model['layout']}, and here it would be {network.layout.fingerprint}")
            if own and (most := model.get("most_classes")) is not None:
                if type(most) is not int or not 1 <= most <= MOST_CLASSES:
                    raise ValueError(f"most_classes is {most!r}")
                give_head(network, most)
            return Description(record_from(DataConfig, data), seed, network, tuple(classes), last)
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
