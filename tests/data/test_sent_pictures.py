"""A picture that somebody sent: made small in its own proportions, and not decoded where it would be too much."""

import zlib
from io import BytesIO
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from PIL import Image

from edgemeta.data.pictures import as_png, read_picture, read_sent_picture, stretched
from edgemeta.errors import DataError

MOST = 1 << 24


def png(width: int, height: int) -> bytes:
    """Return a PNG that says it is of this size and ends after the first rows, all black: some hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return pack(">I", len(content)) + kind + content + pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


def sent(image: Image.Image, kind: str, **how: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def test_it_is_made_small_in_its_own_proportions() -> None:
    halves = Image.new("RGB", (1000, 500), (200, 0, 0))
    halves.paste((0, 0, 200), (500, 0, 1000, 500))
    pixels = read_sent_picture(sent(halves, "JPEG", quality=95), 256, MOST)
    assert (pixels.shape, pixels.dtype) == ((128, 256, 3), np.uint8)
    np.testing.assert_allclose(pixels[64, [20, 235]], [(200, 0, 0), (0, 0, 200)], atol=8)
    assert read_sent_picture(sent(halves.resize((40, 20)), "PNG"), 256, MOST).shape == (20, 40, 3)


def test_it_is_turned_upright_and_says_nothing_of_where_it_was_taken() -> None:
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees to the right
    exif.get_ifd(0x8825)[1] = "N"  # a place
    pixels = read_sent_picture(sent(Image.new("RGB", (600, 300)), "JPEG", exif=exif), 256, MOST)
    assert pixels.shape == (256, 128, 3)
    assert not Image.open(BytesIO(as_png(pixels))).getexif()


@pytest.mark.parametrize("side", [4097, 20_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    with pytest.raises(DataError, match=rf"{side} x {side}|decompression bomb"):
        read_sent_picture(png(side, side), 256, MOST)


@pytest.mark.parametrize("content", [b"", b"<svg/>", b"%!PS-Adobe", png(4096, 4096), png(0, 5)])
def test_what_is_no_whole_picture_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="cannot read what was sent as a picture"):
        read_sent_picture(content, 256, MOST)


@pytest.mark.parametrize("shape", [(8, 8, 3), (9, 7, 1), (30, 20, 3), (64, 64, 3)])
def test_stretched_it_is_what_is_read_from_its_file(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(as_png(pixels))
    np.testing.assert_array_equal(stretched(pixels, shape), read_picture(tmp_path / "a.png", shape))
