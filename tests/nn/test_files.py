"""Model files: the promised content, the same bytes, and hostile ones."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemeta.errors import InputError, ModelFileError, StorageError
from edgemeta.meta import load_model
from edgemeta.nn import PICTURES, Conv2d, Dense, Flatten, MaxPool2d, Model, ReLU, build
from edgemeta.nn.files import encode_tensors, load_parameters, model_metadata, opened, read_tensors, save_model

MODEL = build("cnn-small", (8, 6, 3), 4, normalization=PICTURES)
CLASSES = ("cat", "dog", "Käfer", "x,y")
THETA = MODEL.init(seed=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, MODEL, THETA, CLASSES, 7)
    return path


def rebuilt(path: Path, metadata: dict[str, str | None]) -> Path:
    """Write MODEL's file anew with some metadata changed, or taken away where None."""
    mixed: dict[str, str | None] = {**model_metadata(MODEL, CLASSES, 7), **metadata}
    kept = {key: value for key, value in mixed.items() if value is not None}
    path.write_bytes(b"".join(encode_tensors(MODEL.layout.views(THETA), kept)))
    return path


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    """Write a file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_what_is_saved_is_loaded(path: Path) -> None:
    model, theta, classes, round_number = load_parameters(path)[:4]
    assert theta.tobytes() == THETA.tobytes()
    assert theta.dtype == np.float32
    assert (model.layers, model.input_shape, model.name) == (MODEL.layers, (8, 6, 3), "cnn-small")
    assert (model.loss, model.normalization, classes, round_number) == ("cross-entropy", PICTURES, CLASSES, 7)
    theta += 1  # memory of its own, not the file's


def test_the_safetensors_library_reads_it(path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata, shapes = file.metadata(), {name: file.get_tensor(name).shape for name in file.keys()}  # noqa: SIM118
        weight = file.get_tensor("dense1.weight")
    assert shapes == {
        "conv1.weight": (3, 3, 3, 16),
        "conv1.bias": (16,),
        "conv2.weight": (3, 3, 16, 32),
        "conv2.bias": (32,),
        "dense1.weight": (2 * 1 * 32, 128),
        "dense1.bias": (128,),
        "dense2.weight": (128, 4),
        "dense2.bias": (4,),
    }
    assert weight.dtype == np.float32
    assert weight.tobytes() == MODEL.layout.views(THETA)["dense1.weight"].tobytes()
    assert metadata["format"] == "edgemeta/1"
    assert metadata["model"] == "cnn-small"
    assert metadata["input_shape"] == "8,6,3"
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert json.loads(metadata["normalization"]) == {"mean": 0.5, "std": 0.25}
    assert metadata["layout"] == MODEL.layout.fingerprint
    assert metadata["round"] == "7"
    assert "layers" not in metadata


def test_the_safetensors_librarys_own_files_are_read(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(3, dtype=np.int64),
        "c": np.zeros((0, 4), np.float32),
        "d": np.arange(5, dtype=np.uint8),
        "e": np.linspace(0, 1, 3),
    }
    numpy.save_file(tensors, tmp_path / "theirs", {"key": "value"})
    read, metadata = read_tensors(tmp_path / "theirs")
    assert metadata == {"key": "value"}
    assert {name: (a.dtype, a.tolist()) for name, a in read.items()} == {
        name: (a.dtype, a.tolist()) for name, a in tensors.items()
    }


def test_equal_arguments_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for theta in (THETA, THETA.astype(np.float64)):  # whatever the checks work in, files are float32
        save_model(other, build("cnn-small", (8, 6, 3), 4, normalization=PICTURES), theta, list(CLASSES), 7)
        assert other.read_bytes() == path.read_bytes()
    save_model(other, MODEL, THETA, CLASSES, 8)
    assert other.read_bytes() != path.read_bytes()


def test_the_data_starts_aligned_and_what_is_read_is_the_readers_own(path: Path) -> None:
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    tensors, _ = read_tensors(path)
    before = hashlib.sha256(path.read_bytes()).digest()
    tensors["conv1.bias"][0] = 1
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_a_part_of_a_vector_is_read_from_its_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"".join(encode_tensors({"a": np.arange(3, dtype=np.int64), "b": THETA[:1000]}, {})))
    with opened(path) as (tensors, _):
        assert tensors["a"][1:9].tolist() == [1, 2]
        assert tensors["b"][:0].size == tensors["b"][900:800].size == 0
        assert tensors["b"][10:17].tobytes() == THETA[10:17].tobytes()
        assert tensors["b"][:].tobytes() == THETA[:1000].tobytes()
        os.truncate(path, 2000)  # a card that loses what it had: no signal ends the process
        with pytest.raises(ModelFileError, match="cut short while it was read"):
            tensors["b"][900:]


@pytest.mark.parametrize(
    ("model", "classes"),
    [
        (
            Model([Conv2d(16, 3), ReLU(), MaxPool2d(2), Flatten(), Dense(10)], (32, 32, 3), normalization=PICTURES),
            list("0123456789"),
        ),
        (Model([Dense(40), ReLU(), Dense(1)], (1,), "mse"), []),
        (build("mlp", (3,), 2, loss="mse"), []),  # the classes do not say how many outputs there are
        (Model([Flatten(), Dense(2)], (2, 2), name="cnn"), ["a", "b"]),  # not the cnn that the name means
    ],
    ids=["pictures", "regression", "mlp-mse", "misnamed"],
)
def test_a_users_own_network_needs_no_code_to_be_loaded(model: Model, classes: list[str], tmp_path: Path) -> None:
    theta, path = model.init(seed=5), tmp_path / "own"
    save_model(path, model, theta, classes, 0)
    loaded = load_model(path)
    assert (loaded.network.layers, loaded.network.loss) == (model.layers, model.loss)
    assert loaded.theta.tobytes() == theta.tobytes()
    x = np.random.default_rng(0).standard_normal((3, *model.input_shape)).astype(np.float32)
    assert loaded.network.forward(theta, x).tobytes() == model.forward(theta, x).tobytes()


def test_a_classifier_needs_a_name_for_each_output(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 class names for 4 outputs"):
        save_model(tmp_path / "model", MODEL, THETA, CLASSES[:3], 0)
    assert not list(tmp_path.iterdir())


def test_every_truncation_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    for length in [*range(0, 40), head - 1, head, head + 1, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=r"model\.safetensors"):
            load_model(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ModelFileError, match="added to"):
        load_model(path)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**63 - 1, 2**40, 1 << 21, 5000])
def test_a_header_length_is_not_trusted(length: int, path: Path) -> None:
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:4000])
    with pytest.raises(ModelFileError, match=f"said to take {length} bytes"):
        load_model(path)


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, 12),  # overlap
        ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, 16),  # overlap, and as long as the two together
        ({"a": F32, "b": F32}, 8),  # the same bytes twice
        ({"a": F32, "b": F32}, 16),
        ({"a": F32, "b": {**F32, "data_offsets": [12, 20]}}, 20),  # gap
        ({"a": {**F32, "data_offsets": [4, 12]}}, 12),  # gap at the start
        ({"a": F32}, 7),
        ({"a": F32}, 9),
        ({"a": {**F32, "data_offsets": [0, 12]}}, 12),
        ({"a": {**F32, "data_offsets": [8, 0]}}, 8),
        ({"a": {**F32, "data_offsets": [-8, 0]}}, 8),
        ({"a": {**F32, "data_offsets": [0, 8, 16]}}, 8),
        ({"a": {**F32, "data_offsets": None}}, 8),
        ({"a": {**F32, "data_offsets": [0, 8.0]}}, 8),
        ({"a": {**F32, "shape": [-2]}}, 8),
        ({"a": {**F32, "shape": [-1, -2]}}, 8),
        ({"a": {**F32, "shape": [2.0]}}, 8),
        ({"a": {**F32, "shape": [math.nan]}}, 8),
        ({"a": {**F32, "shape": [math.inf, 0]}}, 8),
        ({"a": {**F32, "shape": [True, 2]}}, 8),
        ({"a": {**F32, "shape": "2"}}, 8),
        ({"a": {**F32, "shape": 2}}, 8),
        ({"a": {**F32, "shape": [1] * 40 + [2]}}, 8),
        ({"a": {**F32, "shape": [2**62, 4], "data_offsets": [0, 2**66]}}, 8),
        ({"a": {**F32, "shape": [0, 2**47, 2**47], "data_offsets": [0, 0]}}, 0),  # no bytes, but no array either
        ({"a": {**F32, "dtype": "F16"}}, 8),
        ({"a": {**F32, "dtype": ["F32"]}}, 8),
        ({"a": {"shape": [2], "data_offsets": [0, 8]}}, 8),
        ({"a": [1, 2]}, 8),
        ({"a": None}, 8),
        ({"a": F32, "__metadata__": {"round": 7}}, 8),
        ({"a": F32, "__metadata__": ["round"]}, 8),
        ({"a": F32, "__metadata__": None}, 8),
        ([1, 2], 8),
        ("text", 8),
        (7, 8),
        (b"", 0),
        (b"{", 0),
        (b"\xff\xfe\xfd", 0),
        (b"[" * 100_000, 0),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 0),
        (b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 8]}}', 8),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_unsound_header_is_refused(header: Any, size: int, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot use .*hostile: "):
        read_tensors(raw(tmp_path / "hostile", header, bytes(size)))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": None}, "expected 'edgemeta/1'"),
        ({"format": "edgemeta/2"}, "expected 'edgemeta/1'"),
        ({"layout": "0123456789abcdef"}, "its layout is 0123456789abcdef"),
        ({"layout": None}, "lack 'layout'"),
        ({"model": "mlp"}, "its layout is"),
        ({"model": "resnet"}, "unknown model 'resnet'"),
        ({"classes": '["a", "b", "c"]'}, "its layout is"),
        ({"classes": '"abcd"'}, "not a list of names"),
        ({"classes": "[1, 2, 3, 4]"}, "not a list of names"),
        ({"classes": "[" * 100_000}, "recursion"),
        ({"classes": "cat, dog"}, "Expecting value"),
        ({"input_shape": "16,6,3"}, "its layout is"),
        ({"input_shape": "-8,-6,3"}, "input shape"),
        ({"input_shape": "8,nan,3"}, "invalid literal"),
        ({"input_shape": "9" * 4000 + ",6,3"}, ""),
        ({"input_shape": ""}, "invalid literal"),
        ({"normalization": '{"mean": NaN, "std": 1}'}, "expected finite numbers"),
        ({"normalization": '{"mean": 0, "std": 0}'}, "above 0"),
        ({"normalization": '{"mean": 1' + "0" * 400 + "}"}, "too large"),
        ({"normalization": '{"median": 0}'}, "median"),
        ({"normalization": "[0, 1]"}, "no attribute 'items'"),
        ({"loss": "hinge"}, "unknown loss"),
        ({"round": "seven"}, "invalid literal"),
        ({"round": "-7"}, "its round is -7"),
        ({"layers": '[{"layer": "Dense", "units": 4}]'}, "Flatten"),
        ({"layers": '[{"layer": "Flatten"}, {"layer": "Dense", "units": 4}]'}, "its layout is"),
        ({"layers": '[{"layer": "Flatten"}, {"layer": "Dense", "units": 5}]'}, "4 class names for 5 outputs"),
        ({"layers": '[{"layer": "Pickle"}]'}, "not a list of layers"),
        ({"layers": '[{"layer": "Flatten"}, {"layer": "Dense", "units": 1' + "0" * 4000 + "}]"}, "below 2"),
        ({"layers": "[" * 100_000}, "recursion"),
        ({"layers": "{}"}, "have weights"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_unsound_metadata_are_refused(metadata: dict[str, str | None], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=f"(?s)hostile.*{message}"):
        load_model(rebuilt(tmp_path / "hostile", metadata))


def test_tensors_must_be_the_layouts(tmp_path: Path) -> None:
    views, metadata = MODEL.layout.views(THETA), model_metadata(MODEL, CLASSES, 7)
    for tensors, message in [
        ({name: view for name, view in views.items() if name != "conv2.bias"}, "conv2.bias missing"),
        ({**views, "extra": np.zeros(1, np.float32)}, "extra missing, unknown"),
        ({**views, "dense2.bias": np.zeros(5, np.float32)}, "dense2.bias missing, unknown or of another shape"),
        ({**views, "dense2.bias": np.zeros(4, np.float64)}, "not all float32"),
        ({**views, "dense2.bias": np.zeros(4, np.int64)}, "not all float32"),
        ({**views, "dense2.bias": np.array([0, 1, np.nan, 3], np.float32)}, "not all finite"),
        ({**views, "dense2.bias": np.array([0, 1, -np.inf, 3], np.float32)}, "not all finite"),
    ]:
        (tmp_path / "hostile").write_bytes(b"".join(encode_tensors(tensors, metadata)))
        with pytest.raises(ModelFileError, match=message):
            load_model(tmp_path / "hostile")


def test_the_order_of_the_tensors_is_no_matter(path: Path) -> None:
    tensors = dict(reversed(MODEL.layout.views(THETA).items()))
    path.write_bytes(b"".join(encode_tensors(tensors, model_metadata(MODEL, CLASSES, 7))))
    assert load_model(path).theta.tobytes() == THETA.tobytes()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ModelFileError, match="cannot read"):
            load_model(path)
    with pytest.raises(ModelFileError):
        load_model("\0")
    with pytest.raises(StorageError):
        save_model(tmp_path / "missing" / "model", MODEL, THETA, CLASSES, 0)


SMALL = Model([Flatten(), Dense(2)], (2, 2), normalization=PICTURES)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "small"
    save_model(path, SMALL, SMALL.init(0), ("a", "b"), 1)
    return path


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_mutated_files_load_or_are_refused(small: Path, data: st.DataObject) -> None:
    content = bytearray(small.read_bytes())
    pieces = st.sampled_from([b"", b"0", b"9", b"-", b'"', b"[", b"}", b"\0", b"\xff", b"e9"])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.integers(0, 3))
        content[at : at + cut] = data.draw(pieces)
    mutated = small.with_name("mutated")
    mutated.write_bytes(content)
    try:
        model = load_model(mutated)
    except ModelFileError:
        return
    with np.errstate(all="ignore"):  # a weight of 1e38 is a number
        model.predict(np.zeros((1, *model.network.input_shape), np.uint8))
