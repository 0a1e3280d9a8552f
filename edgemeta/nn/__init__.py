"""The network: layers with manual backward passes over one flat parameter vector, and model files."""

from edgemeta.nn.kernels.update import subtract_scaled
from edgemeta.nn.kernels.workspace import Workspace
from edgemeta.nn.layers import Conv2d, Dense, Flatten, Layer, MaxPool2d, ReLU
from edgemeta.nn.layout import Layout, Vector
from edgemeta.nn.losses import LOSSES, Loss, softmax
from edgemeta.nn.model import PICTURES, RAW, Model, Normalization
from edgemeta.nn.models import MODELS, build

__all__ = [
    "LOSSES",
    "MODELS",
    "PICTURES",
    "RAW",
    "Conv2d",
    "Dense",
    "Flatten",
    "Layer",
    "Layout",
    "Loss",
    "MaxPool2d",
    "Model",
    "Normalization",
    "ReLU",
    "Vector",
    "Workspace",
    "build",
    "softmax",
    "subtract_scaled",
]
