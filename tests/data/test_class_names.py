"""What classes may be called, the same for every way in: Unicode's two forms, marks, bytes, encodings, characters."""

from unicodedata import normalize

import numpy as np
import pytest
from rawfiles import cifar, pictures

from edgemeta.config import ModelConfig, config_from, to_dict
from edgemeta.data import from_arrays, open_data, with_classes
from edgemeta.errors import DataError
from edgemeta.meta import load_model
from edgemeta.names import canonical, class_name, shown
from edgemeta.nn import build
from edgemeta.nn.files import save_model

COMPOSED, TWO_MARKS = "café", "cafe\u0301"
X, Y = np.arange(120, dtype=np.uint8).reshape(60, 2, 1, 1), np.arange(60) % 2


def from_folder(tmp_path, names):
    for number, name in enumerate(names):
        pictures(tmp_path / name, 30, 100 * number)
    return open_data(str(tmp_path)).train.classes


def from_npz(tmp_path, names):
    np.savez(tmp_path / "a.npz", x=X, y=Y, classes=np.array(names))
    return open_data(str(tmp_path / "a.npz")).train.classes


def from_cifar(tmp_path, names):
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(cifar([0, 1]))
    lines = [*names, *(f"other {i}" for i in range(8))]
    (tmp_path / "batches.meta.txt").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return open_data(str(tmp_path)).train.classes[:2]


def from_lists(tmp_path, names):
    return from_arrays(X, Y, names).classes


READERS = [from_folder, from_npz, from_cifar, from_lists]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "name",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a zero-width non-joiner
        "\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala, with a zero-width joiner
        "\u8d64\u3000\u3044",  # Japanese, with a space of its own
        "\U0001f469\u200d\U0001f33e",  # a farmer: a woman, a joiner and a sheaf of rice
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland's flag, in tags
        "\u05d9\u05dc\u05d3\u200f (1)",  # Hebrew, with a right-to-left mark
        "\U0001fae9",  # a face of Unicode 16, which this Python need not know
        "x, y 'z' \"w\"",
    ],
)
def test_names_of_any_script_are_taken_as_they_are(tmp_path, reader, name):
    assert name in reader(tmp_path, [name, "dog"])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "letter", ["\x07", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\ufeff", "\udcff"]
)
def test_letters_that_cannot_be_shown_are_refused(tmp_path, reader, letter):
    with pytest.raises(DataError, match="UTF-8") as refusal:
        reader(tmp_path, [f"cat{letter}s", "dog"])
    assert letter not in str(refusal.value)


@pytest.mark.parametrize("reader", READERS)
def test_a_name_is_returned_in_form_c(tmp_path, reader):
    assert COMPOSED in reader(tmp_path, [TWO_MARKS, "dog"])


@pytest.mark.parametrize("reader", READERS[1:])
@pytest.mark.parametrize("names", [[COMPOSED, TWO_MARKS], ["cat", "\ufeffcat"], ["cat", "cat\r"], ["cat", "cat "]])
def test_two_names_that_are_one_are_refused(tmp_path, reader, names):
    with pytest.raises(DataError, match=f"must differ, and '{canonical(names[0])}' is there twice"):
        reader(tmp_path, names)


@pytest.mark.parametrize("reader", READERS[1:])
@pytest.mark.parametrize("name", ["\ufeffcat", "cat\r", " cat\t"])
def test_what_stands_around_a_name_is_none_of_it(tmp_path, reader, name):
    assert reader(tmp_path, [name, "dog"]) == ("cat", "dog")


def test_folders_whose_names_are_one_are_one_class(tmp_path):
    pictures(tmp_path / "train" / COMPOSED, 2)
    pictures(tmp_path / "train" / TWO_MARKS, 3, 100)
    pictures(tmp_path / "train" / "dog", 1, 200)
    pictures(tmp_path / "test" / TWO_MARKS, 1, 210)
    pictures(tmp_path / "test" / "dog", 1, 220)
    split = open_data(str(tmp_path), shape=(1, 1, 1))
    assert split.train.classes == split.test.classes == (COMPOSED, "dog")
    x, y = split.train.load()
    assert sorted(x[y == 0].ravel().tolist()) == [0, 1, 100, 101, 102]
    assert split.test.labels.tolist() == [0, 1]


def test_bytes_are_text_in_utf_8(tmp_path):
    assert from_npz(tmp_path, [b"cat", COMPOSED.encode()]) == ("cat", COMPOSED)
    assert from_lists(tmp_path, [b"cat", np.bytes_(b"dog")]) == ("cat", "dog")
    for name in (COMPOSED.encode("latin-1"), "cat".encode("utf-16"), "cat".encode("utf-16-le")):
        with pytest.raises(DataError, match="UTF-8"):
            from_npz(tmp_path, [name, b"dog"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["cat", ""], "is empty"),
        (["cat", " \r"], "is empty"),
        (["cat", "\u200d"], "looks so"),
        (["cat", None], "NoneType: expected text"),
        (["cat", float("nan")], "float: expected text"),
        ([["cat"], ["dog"]], "list: expected text"),
        ("ab", "expected a list of names"),
        (2, "expected a list of names"),
    ],
)
def test_what_is_no_name_is_refused(names, said):
    with pytest.raises(DataError, match=said):
        from_arrays(X, Y, names)


def test_numbers_are_names():
    assert from_arrays(X, Y, np.array([3, 7])).classes == ("3", "7")
    assert from_arrays(X, Y, (0.5, 1.5)).classes == ("0.5", "1.5")


NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_of_names_from_any_editor(tmp_path, ends, mark):
    from_cifar(tmp_path, ["a", "b"])
    (tmp_path / "batches.meta.txt").write_bytes(mark + ends.join([*NAMES, "", ""]).encode())
    assert open_data(str(tmp_path)).train.classes == tuple(NAMES)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"])
def test_a_file_of_names_in_another_encoding_is_refused(tmp_path, encoding):
    from_cifar(tmp_path, ["a", "b"])
    (tmp_path / "batches.meta.txt").write_bytes("\n".join([COMPOSED, *NAMES[1:]]).encode(encoding))
    with pytest.raises(DataError, match=r"batches\.meta\.txt.* (in|as) UTF-8"):
        open_data(str(tmp_path))


def test_a_model_of_before_with_names_in_another_form_still_matches(tmp_path):
    model = build("mlp", (2, 1, 1), 3)
    path = tmp_path / "old.safetensors"
    save_model(path, model, model.init(0), (TWO_MARKS, "\ufeffcat", "dog"), 1)  # as given: so old files are
    assert TWO_MARKS.encode() in path.read_bytes()
    assert load_model(path).classes == (COMPOSED, "cat", "dog")
    load_model(path).save(path)
    assert normalize("NFC", TWO_MARKS).encode() in path.read_bytes()


def test_samples_are_labelled_by_name_in_any_form():
    data = from_arrays(X, Y, ["dog", TWO_MARKS])
    labels = with_classes(data, ("wolf", COMPOSED, "dog")).labels
    assert labels.tolist() == [2, 1] * 30
    known = with_classes(data, ("wolf", TWO_MARKS, "\ufeffdog"))  # a run of before
    assert known.labels.tolist() == [2, 1] * 30
    assert known.classes == ("wolf", TWO_MARKS, "\ufeffdog")  # it goes on under the names that it has
    assert with_classes(data, (COMPOSED, TWO_MARKS, "dog")).labels.tolist() == [2, 0] * 30
    with pytest.raises(DataError, match=f"does not know {COMPOSED}"):
        with_classes(data, ("cafe", "dog"))


def test_a_configuration_s_names_are_in_form_c():
    config = config_from({"model": {"classes": [TWO_MARKS, "dog"]}})
    assert config.model.classes == (COMPOSED, "dog")
    assert config_from(to_dict(config)) == config
    assert ModelConfig(classes=(TWO_MARKS,)) == ModelConfig(classes=(COMPOSED,))


def test_a_name_keeps_its_form_when_it_is_read_again():
    for name in ("\u212b", "\u1e9b\u0323", "\uac00", "a\u0323\u0307"):  # Angstrom's sign becomes a letter, and so on
        assert class_name(class_name(name)) == class_name(name) == normalize("NFC", name)


def test_names_of_files_are_shown_without_control_characters():
    assert shown("a\x1b[31m\n\udcff\u202eb\u200d.png") == "a\\x1b[31m\\n\\udcff\\u202eb\u200d.png"
