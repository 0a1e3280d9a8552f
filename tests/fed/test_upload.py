"""How updates travel: there and back, what they weigh, and what is refused."""

import numpy as np
import pytest

from edgemeta.errors import InputError
from edgemeta.fed.clipping import norm
from edgemeta.fed.upload import HEAD_BYTES, UPLOADS, decode, encode, most_bytes

pytestmark = pytest.mark.board

NUMBERS = np.array([0, -1.5, 1 / 3, 7e4, -1e30, 6e-8, 1e-9], np.float32)


def test_float32_is_what_it_was():
    tensors = encode({"theta": NUMBERS, "count": NUMBERS[:1]}, "float32")
    assert {name: tensor.dtype.str for name, tensor in tensors.items()} == {"theta": "<f4", "count": "<f4"}
    back = decode(tensors, {"theta": 7, "count": 1}, "float32")
    assert back["theta"][:].tobytes() == NUMBERS.tobytes()
    assert back["theta"][2:5].tobytes() == NUMBERS[2:5].tobytes()
    assert back["count"][:].tolist() == [0]


def test_float16_rounds_to_eleven_bits_and_never_to_infinity():
    tensors = encode({"theta": NUMBERS}, "float16")
    assert tensors["theta"].dtype.str == "<f2"
    back = decode(tensors, {"theta": 7}, "float16")["theta"]
    assert back[4:].tolist() == [-65504, 2**-24, 0]
    back = back[:]
    assert back.dtype == np.float32
    # 1/3 = 1.0101010101|0101... b * 2^-2: eleven bits are 1365/4096. The smallest step near zero is 2^-24 = 5.96e-8.
    assert back.tolist() == [0, -1.5, 1365 / 4096, 65504, -65504, 2**-24, 0]


def test_what_is_not_finite_stays_so_for_admission_to_see():
    back = decode(encode({"theta": np.array([np.nan], np.float32)}, "float16"), {"theta": 1}, "float16")
    assert np.isnan(back["theta"][:]).all()


@pytest.mark.parametrize("codec", UPLOADS)
def test_nothing_but_the_expected_tensors_is_decoded(codec):
    good = encode({"theta": NUMBERS}, codec)
    for sizes in ({"theta": 6}, {"theta": 7, "count": 1}, {"count": 7}):
        with pytest.raises(InputError, match=rf"expected the tensors? .*\({codec}\), and no others"):
            decode(good, sizes, codec)
    with pytest.raises(InputError, match="and no others"):
        decode(encode({"theta": NUMBERS}, "float16" if codec == "float32" else "float32"), {"theta": 7}, codec)


@pytest.mark.parametrize("codec", UPLOADS)
def test_what_a_message_weighs_is_known_before(codec):
    sizes = {"theta": 1000, "count": 3}
    tensors = encode({name: np.ones(size, np.float32) for name, size in sizes.items()}, codec)
    assert most_bytes(sizes, codec) == HEAD_BYTES + sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize(("codec", "bits"), [("float32", np.uint32(0x7F800001)), ("float16", np.uint16(0x7C01))])
def test_a_signalling_nan_has_no_finite_norm_and_no_warning(codec, bits):
    tensors = {key: np.array(part) for key, part in encode({"theta": NUMBERS}, codec).items()}
    tensors["theta"].view(bits.dtype)[2] = bits
    assert not np.isfinite(norm(decode(tensors, {"theta": NUMBERS.size}, codec)["theta"]))
