"""Model files of an earlier commit: they load, say what they said, and are written again as the same bytes."""

import unicodedata

import numpy as np
import pytest
from kept import tensors_in, unpack, vector_in

import edgemeta

NAMES = {
    "named": ("disc", "ring", "square"),
    "own-layers": ("kühl", "日本", "\u05e9\u05dc\u05d5\u05dd"),
    "regression": (),
}


@pytest.fixture
def files(tmp_path):
    return unpack("models", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_read_and_written_as_it_was(files, name):
    path = files / f"{name}.safetensors"
    model, kept = edgemeta.load_model(path), path.read_bytes()
    assert model.theta.tobytes() == vector_in(kept).tobytes()
    assert model.classes == NAMES[name]
    assert model.round == int(tensors_in(kept)[0]["round"])
    model.save(files / "again.safetensors")
    assert (files / "again.safetensors").read_bytes() == kept


def test_ones_own_layers_compute_what_they_did(files):
    """Beside the plainest way to do it, in double precision: 3x3 convolution, ReLU, the largest of 2x2, dense."""
    model, kept = edgemeta.load_model(files / "own-layers.safetensors"), (files / "own-layers.safetensors").read_bytes()
    weights = {name: tensor.astype(float) for name, tensor in tensors_in(kept)[1].items()}
    picture = np.arange(16, dtype=np.float32).reshape(4, 4, 1) / 16
    padded, seen = np.zeros((6, 6, 1)), np.zeros((4, 4, 4))
    padded[1:5, 1:5] = picture
    for i in range(4):
        for j in range(4):
            patch = padded[i : i + 3, j : j + 3, :, np.newaxis]
            seen[i, j] = np.maximum((patch * weights["conv1.weight"]).sum(axis=(0, 1, 2)) + weights["conv1.bias"], 0)
    pooled = seen.reshape(2, 2, 2, 2, 4).max(axis=(1, 3)).ravel()
    powers = np.exp(pooled @ weights["dense1.weight"] + weights["dense1.bias"])
    assert powers.max() < 0.99 * powers.sum()
    assert np.allclose(model.predict(picture), powers / powers.sum(), atol=1e-5)


def test_a_regression_computes_what_it_did(files):
    """Its 17 parameters are -8, -7, ... 8: weights (2, 4), biases, weights (4, 1), bias.

    (1, 1) comes to -12, -9, -6, -3 below the ReLU, so that the last bias is left; (-1, 0) to 8, 8, 8, 8.
    """
    model = edgemeta.load_model(files / "regression.safetensors")
    outputs = model.predict(np.float32([[1, 1], [-1, 0]]))
    assert outputs.tolist() == [[8.0], [8 * (4 + 5 + 6 + 7) + 8.0]]


def test_names_in_a_decomposed_form_still_load(files):
    """They name what they named, in whichever form they are given and kept."""
    model = edgemeta.load_model(files / "decomposed-names.safetensors")
    assert [unicodedata.normalize("NFC", name) for name in model.classes] == ["café", "über"]
    (first, second) = model.predict(np.float32([np.log(3), 0]))[0]
    assert (first, second) == (pytest.approx(0.75), pytest.approx(0.25))  # its weights are the identity
    x = np.float32([[0, 1]] * 3)
    adapted = model.adapt(x, [model.classes[1]] * 3, steps=1)
    assert adapted.predict(x[0])[0, 1] > model.predict(x[0])[0, 1]
