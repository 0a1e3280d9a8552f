"""What a device says of what its camera gives, in any form."""

import numpy as np
import pytest

from edgemeta import Device
from edgemeta.errors import DataError
from edgemeta.meta import TrainedModel
from edgemeta.nn import PICTURES, build

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(params=[(8, 8, 3), (8, 6, 1)], ids=["colour", "grey"])
def model(request, tmp_path):
    """A device's own model; the device is in `tmp_path`."""
    network = build("mlp", request.param, 2, normalization=PICTURES)
    trained = TrainedModel(network, network.init(0), ("cat", "dog"))
    trained.save(tmp_path / "personal.safetensors")
    return trained


def test_one_picture_and_several(model, tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, *model.network.input_shape), np.uint8)
    expected = model.predict(pictures)
    forms = [pictures, pictures.astype(np.int64), pictures.tolist()]
    if pictures.shape[-1] == 1:
        forms += [pictures[..., 0], pictures[..., 0].astype(np.uint16), pictures[..., 0].tolist()]
    with Device(NOWHERE, state=tmp_path) as device:
        for given in forms:
            assert device.predict(given).tobytes() == expected.tobytes()
            assert device.predict(given[1]).shape == (2,)
            np.testing.assert_allclose(device.predict(given[1]), expected[1], rtol=1e-5)
        with pytest.raises(DataError, match="pictures of floats"):
            device.predict(pictures.astype(np.float32))
        with pytest.raises(DataError, match=r"'frame\.jpg' is no array"):
            device.predict("frame.jpg")
