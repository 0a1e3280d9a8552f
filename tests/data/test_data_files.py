"""CIFAR-10, IDX and npz files, written byte by byte here, and what is refused of them."""

import gzip
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from edgemeta.config import DataConfig
from edgemeta.data import describe, from_arrays, open_data
from edgemeta.data.fingerprint import fingerprint
from edgemeta.errors import DataError
from edgemeta.fed.participants import divide, left_over

pytestmark = pytest.mark.board

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar_record(label, pixels):
    """pixels: (32, 32, 3). A record is the label, then all of red, green and blue, row by row."""
    planes = b"".join(
        bytes(int(pixels[row, column, colour]) for row in range(32) for column in range(32)) for colour in range(3)
    )
    return bytes([label]) + planes


@pytest.fixture
def cifar(tmp_path):
    """Two batches of 3 and 2 records and a test batch of 2, and the pictures in them."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (7, 32, 32, 3))
    labels = [3, 0, 9, 1, 1, 5, 2]
    records = [cifar_record(label, picture) for label, picture in zip(labels, pictures, strict=True)]
    (tmp_path / "data_batch_1.bin").write_bytes(b"".join(records[:3]))
    (tmp_path / "data_batch_2.bin").write_bytes(b"".join(records[3:5]))
    (tmp_path / "test_batch.bin").write_bytes(b"".join(records[5:]))
    (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return tmp_path, pictures, labels


def test_cifar(cifar):
    folder, pictures, labels = cifar
    split = open_data(str(folder))
    assert split.train.classes == tuple(NAMES)
    assert split.train.labels.tolist() == labels[:5]
    x, y = split.train.load()
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)
    assert (x == pictures[:5]).all()
    assert (split.test.load()[0] == pictures[5:]).all()
    x, y = split.train.take([4, 0, 3]).take([2, 0, 1, 1]).load()  # across files, in any order, more than once
    assert (x == pictures[[3, 4, 0, 0]]).all()
    assert y.tolist() == [1, 1, 3, 3]
    assert describe(split)["kind"] == "CIFAR-10 binary"
    assert split.train.for_participant(3) is split.train


def test_cifar_names_come_from_the_file(cifar):
    folder, _, _ = cifar
    (folder / "batches.meta.txt").write_text("".join(f"kind {i}\n" for i in range(10)))
    assert open_data(str(folder)).test.classes[9] == "kind 9"
    (folder / "batches.meta.txt").unlink()
    assert open_data(str(folder)).test.classes == tuple(NAMES)


def test_pixels_are_read_when_they_are_used(cifar):
    folder, pictures, _ = cifar
    split = open_data(str(folder))
    path = folder / "data_batch_1.bin"
    data = bytearray(path.read_bytes())
    data[1] ^= 255
    path.write_bytes(data)
    assert split.train.take([0]).load()[0][0, 0, 0, 0] == pictures[0, 0, 0, 0] ^ 255


def damage(name, change):
    def apply(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damage("data_batch_2.bin", lambda data: data[:-1]), r"data_batch_2\.bin has 6145 bytes: .* 3073"),
        (damage("test_batch.bin", lambda data: data + b"x"), r"test_batch\.bin has 6147 bytes"),
        (damage("test_batch.bin", lambda _: b""), "has 0 bytes"),
        (damage("data_batch_1.bin", lambda data: data[:3073] + b"\x0a" + data[3074:]), "record 1 has label 10"),
        (damage("batches.meta.txt", lambda _: b"cat\ndog\n"), "has 2 names"),
        (damage("batches.meta.txt", lambda _: b"cat\n" * 10), "must differ"),
        (lambda folder: (folder / "test_batch.bin").unlink(), r"no test_batch\.bin"),
        (lambda folder: [path.unlink() for path in folder.glob("data*")], r"no data_batch_1\.bin"),
    ],
)
def test_damaged_cifar_files_are_refused(cifar, spoil, said):
    folder, _, _ = cifar
    spoil(folder)
    with pytest.raises(DataError, match=said):
        open_data(str(folder))


def test_a_cifar_file_that_shrinks_in_use_is_refused(cifar):
    folder, _, _ = cifar
    split = open_data(str(folder))
    damage("data_batch_2.bin", lambda data: data[:4000])(folder)
    with pytest.raises(DataError, match="shorter"):
        split.train.load()
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(DataError, match="cannot read"):
        split.train.load()


def test_the_python_version_of_cifar_is_refused_unopened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    for folder in (tmp_path, tmp_path / "cifar-10-batches-py"):
        with pytest.raises(DataError, match="binary version"):
            open_data(str(folder))


def idx_images(pictures):
    return struct.pack(">4I", 0x803, *pictures.shape) + pictures.tobytes()


def idx_labels(labels):
    return struct.pack(">2I", 0x801, len(labels)) + bytes(labels)


PICTURES = np.arange(7 * 5 * 4, dtype=np.uint8).reshape(7, 5, 4)


def write_idx(folder, ending, pack):
    folder.mkdir(exist_ok=True)
    for part, pictures, labels in (("train", PICTURES[:4], [2, 0, 1, 2]), ("t10k", PICTURES[4:], [1, 0, 0])):
        (folder / f"{part}-images{ending[0]}").write_bytes(pack(idx_images(pictures)))
        (folder / f"{part}-labels{ending[1]}").write_bytes(pack(idx_labels(labels)))
    return folder


@pytest.mark.parametrize("ending", [("-idx3-ubyte", "-idx1-ubyte"), (".idx3-ubyte", ".idx1-ubyte")])
@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path, ending, packed):
    if packed:
        ending = tuple(f"{name}.gz" for name in ending)
    split = open_data(str(write_idx(tmp_path, ending, gzip.compress if packed else bytes)))
    assert split.train.shape == split.test.shape == (5, 4, 1)
    assert split.train.classes == ("0", "1", "2")
    x, y = split.train.load()
    assert (x.dtype, y.dtype, y.tolist()) == (np.uint8, np.int64, [2, 0, 1, 2])
    assert (x[..., 0] == PICTURES[:4]).all()
    assert (split.test.take([2, 0]).load()[0][..., 0] == PICTURES[[6, 4]]).all()


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damage(IMAGES, lambda data: b"\x00\x00\x08\x01" + data[4:]), "starts with 00000801: expected 00000803"),
        (damage(LABELS, lambda data: b"\x00\x00\x08\x03" + data[4:]), "expected 00000801"),
        (damage(IMAGES, lambda _: b""), "starts with nothing"),
        (damage(IMAGES, lambda data: data[:10]), "and the sizes"),
        (damage(IMAGES, lambda data: data[:-1]), "should hold 80 bytes .* has 79"),
        (damage(IMAGES, lambda data: data + b"x"), "has more"),
        (damage(IMAGES, lambda data: data[:4] + b"\xff" * 12 + data[16:]), "damaged"),
        (
            damage(IMAGES, lambda data: data[:4] + b"\x00\x00\x00\x08\x00\x00\x00\x05\x00\x00\x00\x02" + data[16:]),
            "8 pict",
        ),
        (damage(IMAGES, lambda data: data[:4] + bytes(12)), "should hold 0"),
        (damage(LABELS, lambda data: data[:-1]), "should hold 4 bytes .* has 3"),
        (damage(IMAGES, lambda data: data[:8] + struct.pack(">2I", 4, 5) + data[16:]), r"\(4, 5\) and test pictures"),
        (lambda folder: (folder / LABELS).unlink(), "no train-labels"),
        (lambda folder: [path.unlink() for path in folder.glob("t10k*")], "no t10k-images"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, spoil, said):
    write_idx(tmp_path, ("-idx3-ubyte", "-idx1-ubyte"), bytes)
    spoil(tmp_path)
    with pytest.raises(DataError, match=said):
        open_data(str(tmp_path))


@pytest.mark.parametrize(
    "change", [lambda data: data[:-4], lambda data: data[:30], lambda _: b"no gzip", lambda data: data[:-8] + bytes(8)]
)
def test_damaged_gzip_files_are_refused(tmp_path, change):
    write_idx(tmp_path, ("-idx3-ubyte.gz", "-idx1-ubyte.gz"), gzip.compress)
    damage(f"{IMAGES}.gz", change)(tmp_path)
    with pytest.raises(DataError, match=r"train-images.*\.gz"):
        open_data(str(tmp_path))


X = np.random.default_rng(0).integers(0, 256, (60, 4, 5, 3), np.uint8)
Y = np.arange(60) % 3


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_test_arrays(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, x=X, y=Y, x_test=X[:6], y_test=Y[:6].astype(np.uint8), classes=np.array(["ant", "bee", "cow"]))
    split = open_data(str(path), shape=(4, 5, 3))
    assert split.train.classes == split.test.classes == ("ant", "bee", "cow")
    x, y = split.train.take([5, 2]).load()
    assert (x == X[[5, 2]]).all()
    assert (x.dtype, y.dtype, y.tolist()) == (np.uint8, np.int64, [2, 2])
    assert len(split.test) == 6


def test_npz_without_test_arrays_is_split_by_content_and_may_grow(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=X[:40], y=Y[:40])
    before = open_data(str(path))
    np.savez(path, x=X[::-1], y=Y[::-1])
    after = open_data(str(path))
    assert before.train.classes == ("0", "1", "2")
    assert (len(before.train) + len(before.test), len(after.train) + len(after.test)) == (40, 60)

    def samples(data):
        return {sample.tobytes() for sample in data.load()[0]}

    assert samples(before.train) < samples(after.train)
    assert samples(before.test) <= samples(after.test)
    assert not samples(after.train) & samples(after.test)


@pytest.mark.parametrize("x", [X, X.astype(np.int64), X.astype(np.uint16)])
@pytest.mark.parametrize("form", ["names", "one-hot", "column", "floats"])
def test_npz_samples_and_labels_in_any_form(tmp_path, x, form):
    forms = {"names": np.array(["ant", "bee", "cow"])[Y], "one-hot": np.eye(3)[Y], "column": Y[:, np.newaxis]}
    y = (forms | {"floats": Y.astype(np.float32)})[form]
    np.savez(tmp_path / "a.npz", x=x, y=y, x_test=x[:6], y_test=y[:6])
    split = open_data(str(tmp_path / "a.npz"))
    assert split.train.classes == (("ant", "bee", "cow") if form == "names" else ("0", "1", "2"))
    pixels, labels = split.train.load()
    assert (pixels.dtype, labels.tolist()) == (np.uint8, Y.tolist())
    assert (pixels == X).all()
    np.savez(tmp_path / "a.npz", x=x, y=y, x_test=x[:6], y_test=y[:6], classes=["cow", "bee", "ant"])
    split = open_data(str(tmp_path / "a.npz"))  # names by name, anything else by place
    assert split.test.labels.tolist() == ([2, 1, 0] * 2 if form == "names" else [0, 1, 2] * 2)


def test_npz_whole_numbers_are_places_in_its_classes_whatever_these_are_called(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_test=X, y_test=Y, classes=["3", "7", "9"])
    assert open_data(str(tmp_path / "a.npz")).train.labels.tolist() == Y.tolist()


@pytest.mark.parametrize(
    ("x", "said"), [(X.astype(np.float32), "floats from 0 to 255"), (X.astype(np.int16) - 9, "whole numbers from -9")]
)
def test_npz_pictures_that_are_neither_bytes_nor_from_0_to_1_are_refused(tmp_path, x, said):
    np.savez(tmp_path / "a.npz", x=x, y=Y, x_test=x, y_test=Y)
    with pytest.raises(DataError, match=rf"a\.npz: .*{said}"):
        open_data(str(tmp_path / "a.npz")).test.load()


def test_npz_of_floats_and_of_grey_pictures(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=X[:, 0, :, 0] / 7, y=Y)
    split = open_data(str(path))
    assert split.train.shape == (5,)
    assert split.train.load()[0].dtype == np.float32
    np.savez(path, x=X[:, :, :, 0], y=Y)
    split = open_data(str(path))
    assert split.train.shape == (4, 5, 1)
    assert split.train.load()[0].shape[1:] == (4, 5, 1)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X}, "has no y"),
        ({"y": Y}, "has no x"),
        ({"x": X, "y": Y, "x_test": X}, "has no y_test"),
        ({"x": X, "y": Y[:-1]}, "60 samples and y 59 labels"),
        ({"x": X, "y": np.stack([Y, Y], axis=1)}, r"expected \(N,\) whole numbers"),
        ({"x": X, "y": np.int64(3)}, "60 samples and y 0 labels"),
        ({"x": X, "y": Y / 2}, "whole numbers"),
        ({"x": X, "y": Y - 1}, "labels run from -1"),
        ({"x": X, "y": Y * 10**9}, "without a list of classes"),
        ({"x": X, "y": Y, "classes": np.array(["a", "b"])}, "expected 0 to 1 for 2"),
        ({"x": X, "y": Y, "classes": np.array(["a", "b", "a"])}, "must differ"),
        ({"x": X * 1j, "y": Y}, "complex128: expected uint8 pixels or floats"),
        ({"x": X[:, 0, 0, 0], "y": Y}, "expected .*one row"),
        ({"x": X[:, :0], "y": Y}, "expected .*one row"),
        ({"x": X[0, 0, 0, 0], "y": Y}, "expected .*one row"),
        ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, r"\(4, 5, 3\) and x_test of \(2, 5, 3\)"),
        ({"x": X.astype(object), "y": Y}, "plain arrays|expected uint8"),
        ({"x": X, "y": Y.astype(object)}, "plain arrays"),
        ({"x": np.where(X > 100, np.nan, 1.0), "y": Y}, "not finite"),
        ({"x": X[:0], "y": Y[:0]}, "0 samples are too few"),
    ],
)
def test_npz_arrays_that_do_not_fit_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=said):
        open_data(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("whose", [np.array(["ann", "bob", "cem"]), np.array([5, 6, 90_000])], ids=["names", "numbers"])
def test_npz_may_say_whose_each_sample_is(tmp_path, whose):
    path, owner = tmp_path / "a.npz", np.arange(60) // 20  # twenty samples of each, of all three classes

    def opened(names):
        sides = {"x_train": X, "y_train": Y, "x_test": X[:30], "y_test": Y[:30]}
        np.savez(path, **sides, participant_train=names[owner], participant_test=names[owner[::2]])
        return open_data(str(path))

    split = opened(whose)
    assert split.train.owners.names == tuple(map(str, whose))
    assert split.test.take(slice(8, 12)).owners.numbers.tolist() == [0, 0, 1, 1]
    people, _ = divide(split, DataConfig(participants=3, partition="natural"), 0)
    assert sorted(set(person.train_set.owners.numbers.tolist()).pop() for person in people) == [0, 1, 2]
    assert [len(person.train_set) for person in people] == [20] * 3
    two = DataConfig(participants=2, partition="natural")
    (why,) = left_over(split, divide(split, two, 0)[0], two).why
    assert why == "2 of the 3 participants that the data names take part: 20 training and 10 test samples are of others"
    before = fingerprint([split])
    assert fingerprint([opened(whose[[1, 0, 2]])]).unlike(before) == ["other classes or labels"]
    np.savez(path, x=X, y=Y, participant=whose[owner])  # split by content, each with its owner
    split = open_data(str(path))
    for side in (split.train, split.test):
        x, _ = side.load()
        places = [int(np.flatnonzero((one == X).all(axis=(1, 2, 3)))[0]) for one in x]
        assert side.owners.numbers.tolist() == owner[places].tolist()


def test_a_participant_of_an_npz_that_has_no_test_samples_is_named(tmp_path):
    sides = {"x_train": X, "y_train": Y, "x_test": X[:20], "y_test": Y[:20]}
    whose = np.array(["ann", "bob"])[np.arange(60) // 30]
    np.savez(tmp_path / "a.npz", **sides, participant_train=whose, participant_test=whose[:20])
    split = open_data(str(tmp_path / "a.npz"))
    with pytest.raises(DataError, match="'bob' has 30 training and 0 test samples in the data"):
        divide(split, DataConfig(participants=2, partition="natural"), 0)


TESTED = {"x_test": X, "y_test": Y}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"participant": Y[:-1]}, r"a\.npz: participant: 59 rows: expected a name or a number for each of 60 samples"),
        ({"participant": np.eye(3)[Y]}, r"a\.npz: participant: 60 rows: expected a name or a number"),
        ({"participant": np.int64(3)}, r"a\.npz: participant: "),
        ({"participant": Y / 2}, r"a\.npz: participant.*whole numbers"),
        ({"participant": np.array(["", "a", "b"])[Y]}, r"a\.npz: participant: .*name '' is empty"),
        ({"participant": Y.astype(object)}, r"cannot read .*plain arrays"),
        (TESTED | {"participant": Y}, "says in participant whose samples are, on one side: give both"),
        (TESTED | {"participant": Y, "participant_test": Y.astype(str)}, "expected names, or whole numbers, in both"),
    ],
)
def test_npz_owners_that_do_not_fit_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", x=X, y=Y, **arrays)
    with pytest.raises(DataError, match=said):
        open_data(str(tmp_path / "a.npz"))


def test_damaged_npz_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=X, y=Y, x_test=X, y_test=Y)
    data = path.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 10):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"a\.npz"):
            open_data(str(path))
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            split = open_data(str(path))
            split.train.load()
            split.test.load()
        except DataError:
            continue
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 10**15)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("y.npy", header.getvalue())
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(DataError, match=r"a\.npz"):
        open_data(str(path))
    np.save(tmp_path / "b.npy", X)
    (tmp_path / "b.npy").rename(path)
    with pytest.raises(DataError, match=r"a\.npz"):
        open_data(str(path))


def test_from_arrays():
    data = from_arrays(X.astype(np.float64) / 256, Y.tolist(), ["ant", "bee", "cow"])
    assert (len(data), data.shape, data.classes) == (60, (4, 5, 3), ("ant", "bee", "cow"))
    x, y = data.take(Y == 1).load()
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert (x == X[1::3].astype(np.float32) / 256).all()
    assert (y == 1).all()
    assert from_arrays(X, Y).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (X, Y[:5], "60 samples and y 5"),
        (X, ["ant"] * 60, "does not know ant: its classes are a, b, c"),
        (X, Y + 0.5, "whole numbers"),
        (X, Y + 8, "expected 0 to 2"),
        (np.full(X.shape, np.inf), Y, "not finite"),
        (np.full((60, 2), 1e300), Y, "too large"),
        (X.astype(np.int32) - 1, Y, "whole numbers from -1"),
        (X.astype(np.float64), Y, "floats from 0 to 255"),
        ([[1.0], [2.0, 3.0]], [0, 1], "no array"),
        (3.0, 1, "one row"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(x, y, said):
    with pytest.raises(DataError, match=said):
        from_arrays(x, y, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "no data at"),
        ("nowhere", "no data at 'nowhere'.*expected 'synthetic'"),
        ("a\0b", "no data at"),
        ("x" * 5000, "no data at"),
        ("~nobody-of-that-name/x", "no data at"),
        ("synthetic-data", "no data at"),
        (__file__, "is a file"),
        ("synthetic:colour=3", "expected KEY=NUMBER with samples"),
        ("synthetic:samples", "expected KEY=NUMBER"),
        ("synthetic:samples=", "expected KEY=NUMBER"),
        ("synthetic:samples=-5", "expected KEY=NUMBER"),
        ("synthetic:samples=1e3", "expected KEY=NUMBER"),
        ("synthetic:samples=²", "expected KEY=NUMBER"),
        ("synthetic:size=32,", "expected KEY=NUMBER"),
        ("synthetic:size=7", "size=7: expected 8 to 128"),
        ("synthetic:classes=1", "classes=1: expected 2 to"),
        ("synthetic:classes=99", "classes=99: expected 2 to"),
        ("synthetic:samples=" + "9" * 5000, "expected KEY=NUMBER"),
        ("synthetic:samples=30", "expected 50 or more"),
    ],
)
def test_specs_that_name_no_data_are_refused(spec, said):
    with pytest.raises(DataError, match=said):
        open_data(spec)


def test_data_of_another_shape_is_refused(cifar, tmp_path):
    with pytest.raises(DataError, match=r"\(32, 32, 3\), and \(28, 28, 1\) is wanted"):
        open_data(str(cifar[0]), shape=(28, 28, 1))
    with pytest.raises(DataError, match=r"\(5, 4, 1\), and \(32, 32, 3\) is wanted"):
        open_data(str(write_idx(tmp_path / "idx", ("", ""), bytes)), shape=(32, 32, 3))
    with pytest.raises(DataError, match=r"\(32, 32, 3\), and \(16, 16, 3\) is wanted"):
        open_data("synthetic", shape=(16, 16, 3))
    assert open_data(str(cifar[0]), shape=(32, 32, 3)).train.shape == (32, 32, 3)
