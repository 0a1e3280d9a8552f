"""Federated meta-learning for devices that cannot carry PyTorch.

The names below are loaded when first used, so that `import edgemeta` and `edgemeta --help` stay fast and a
board that only predicts never loads the coordinator.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgemeta import nn as nn
    from edgemeta.api import simulate as simulate
    from edgemeta.config import RunConfig as RunConfig
    from edgemeta.device.device import Device as Device
    from edgemeta.fed.simulation import RunResult as RunResult
    from edgemeta.meta.trained import TrainedModel as TrainedModel
    from edgemeta.meta.trained import load_model as load_model

_HOMES = {
    "Device": "edgemeta.device.device",
    "RunConfig": "edgemeta.config",
    "RunResult": "edgemeta.fed.simulation",
    "TrainedModel": "edgemeta.meta.trained",
    "load_model": "edgemeta.meta.trained",
    "simulate": "edgemeta.api",
}
__all__ = ["Device", "RunConfig", "RunResult", "TrainedModel", "load_model", "nn", "simulate"]


def __getattr__(name: str) -> Any:
    if name in ("data", "fed", "meta", "nn"):
        return import_module(f"edgemeta.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'edgemeta' has no attribute '{name}'")
