"""Layout: names for the parts of one vector."""

import numpy as np
import pytest

from edgemeta.errors import InputError
from edgemeta.nn import Layout

pytestmark = pytest.mark.board

LAYOUT = Layout((("a.weight", (2, 3)), ("a.bias", (3,)), ("b.scale", ())))


def test_tensors_lie_one_after_the_other() -> None:
    assert LAYOUT.size == 10  # 6 + 3 + 1
    assert LAYOUT.slices == {"a.weight": slice(0, 6), "a.bias": slice(6, 9), "b.scale": slice(9, 10)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_views_share_the_vectors_memory(dtype: type) -> None:
    vector = np.arange(10, dtype=dtype)
    views = LAYOUT.views(vector)
    assert views["a.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    views["a.weight"][1, 2] = 50
    views["b.scale"][...] = 90
    assert vector.tolist() == [0, 1, 2, 3, 4, 50, 6, 7, 8, 90]
    assert views["a.bias"].dtype == dtype


def test_flatten_undoes_views_in_new_memory() -> None:
    vector = np.arange(10, dtype=np.float32)
    copy = LAYOUT.flatten(LAYOUT.views(vector))
    assert copy.dtype == np.float32
    assert copy.tolist() == vector.tolist()
    assert not np.shares_memory(copy, vector)


@pytest.mark.parametrize("shape", [(9,), (11,), (1, 10), ()])
def test_a_vector_of_another_length_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(10,\)"):
        LAYOUT.views(np.zeros(shape, np.float32))


def test_tensors_that_do_not_fit_are_named() -> None:
    good = LAYOUT.views(np.zeros(10, np.float32))
    for wrong, culprit in [
        ({**good, "c": np.zeros(1, np.float32)}, "c missing, unknown"),
        ({name: good[name] for name in ("a.weight", "b.scale")}, "a.bias missing"),
        ({**good, "a.weight": np.zeros((3, 2), np.float32)}, "a.weight missing, unknown or of another shape"),
    ]:
        with pytest.raises(InputError, match=culprit):
            LAYOUT.flatten(wrong)


def test_the_fingerprint_tells_names_shapes_and_order_apart() -> None:
    same = Layout((("a.weight", (2, 3)), ("a.bias", (3,)), ("b.scale", ())))
    others = [
        Layout((("a.weight", (3, 2)), ("a.bias", (3,)), ("b.scale", ()))),
        Layout((("a.weight", (2, 3)), ("a.bias", (3,)), ("c.scale", ()))),
        Layout((("a.bias", (3,)), ("a.weight", (2, 3)), ("b.scale", ()))),
        Layout((("a.weight", (2, 3)), ("a.bias", (3,)))),
    ]
    assert same.fingerprint == LAYOUT.fingerprint
    assert len({LAYOUT.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert len(LAYOUT.fingerprint) == 16
    assert LAYOUT.describe() == [["a.weight", [2, 3]], ["a.bias", [3]], ["b.scale", []]]
