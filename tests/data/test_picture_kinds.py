"""Rare picture files: the right pixels, worked out by hand from what the file says, or a refusal with the reason."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from rawfiles import bmp, png, png_chunk, tiff, transparent

from edgemeta.data import open_data, read_picture
from edgemeta.errors import DataError

GREY, COLOUR = (1, 2, 1), (1, 2, 3)


def read(tmp_path, content, shape=GREY, name="a"):
    (tmp_path / name).write_bytes(content)
    return read_picture(tmp_path / name, shape).ravel().tolist()


# Grey PNGs of every depth, one value transparent, which shows white. 4 bits: 15 is white, so 4 is 4 * 17 = 68.
@pytest.mark.parametrize(
    ("depth", "row", "value", "pixels"),
    [
        (1, bytes([0b01000000]), 0, [255, 255]),
        (1, bytes([0b01000000]), 1, [0, 255]),
        (2, bytes([0b01100000]), 1, [255, 170]),
        (2, bytes([0b00010000]), 0, [255, 85]),
        (4, bytes([0x14]), 1, [255, 68]),
        (4, bytes([0x14]), 4, [17, 255]),
        (4, bytes([0x14]), 5, [17, 68]),
        (8, bytes([1, 17]), 1, [255, 17]),
        (16, struct.pack(">2H", 0, 257 * 60), 0, [255, 60]),
        (16, struct.pack(">2H", 257 * 60, 257 * 60 + 1), 257 * 60, [255, 60]),  # the same byte, but another value
    ],
)
def test_grey_png_with_a_transparent_value(tmp_path, depth, row, value, pixels):
    assert read(tmp_path, png(2, 1, depth, 0, [row], transparent(value))) == pixels


def test_grey_png_of_16_bits_with_a_transparent_value_that_is_to_be_turned(tmp_path):
    exif = b"MM\x00\x2a\x00\x00\x00\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 3, 0, 0)  # 3: upside down
    extra = png_chunk(b"eXIf", exif) + transparent(257)
    assert read(tmp_path, png(2, 1, 16, 0, [struct.pack(">2H", 257, 514)], extra)) == [2, 255]


def test_coloured_png_with_a_transparent_colour(tmp_path):
    row = bytes([1, 2, 3, 1, 2, 4])
    assert read(tmp_path, png(2, 1, 8, 2, [row], transparent(1, 2, 3)), COLOUR) == [255, 255, 255, 1, 2, 4]
    wide = struct.pack(">6H", *(257 * value for value in row))
    assert read(tmp_path, png(2, 1, 16, 2, [wide]), COLOUR) == list(row)
    # Pillow keeps the upper bytes only, and so cannot tell which pixels are meant.
    with pytest.raises(DataError, match="a colour of 16 bits is transparent"):
        read(tmp_path, png(2, 1, 16, 2, [wide], transparent(257, 514, 771)), COLOUR)


def test_png_with_an_alpha_channel_of_16_bits(tmp_path):
    grey = struct.pack(">4H", 257 * 10, 65535, 257 * 200, 0)
    assert read(tmp_path, png(2, 1, 16, 4, [grey])) == [10, 255]
    colour = struct.pack(">8H", 2570, 5140, 7710, 65535, 2570, 5140, 7710, 0)
    assert read(tmp_path, png(2, 1, 16, 6, [colour]), COLOUR) == [10, 20, 30, 255, 255, 255]


def test_palettes_with_transparency(tmp_path):
    extra = png_chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255])) + png_chunk(b"tRNS", bytes([0]))
    assert read(tmp_path, png(2, 1, 1, 3, [bytes([0b01000000])], extra), COLOUR) == [255, 255, 255, 0, 0, 255]
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.gif", transparency=1)
    assert read_picture(tmp_path / "a.gif", COLOUR).ravel().tolist() == [255, 0, 0, 255, 255, 255]


def test_a_picture_that_is_transparent_all_over_is_white(tmp_path):
    assert read(tmp_path, png(1, 1, 8, 6, [bytes([9, 8, 7, 0])]), (1, 1, 3)) == [255] * 3
    Image.new("RGBA", (1, 1), (9, 8, 7, 0)).save(tmp_path / "a.webp", lossless=True, exact=True)
    assert read_picture(tmp_path / "a.webp", (1, 1, 3)).ravel().tolist() == [255] * 3


# TIFF, photometric 0: zero is white. 16 bits: 65535 - 257 * 60 = 257 * 195.
@pytest.mark.parametrize(
    ("bits", "photometric", "data", "pixels"),
    [
        (1, 0, bytes([0b01000000]), [255, 0]),
        (1, 1, bytes([0b01000000]), [0, 255]),
        (4, 0, bytes([0x0B]), [255, 68]),
        (4, 1, bytes([0x0B]), [0, 187]),
        (8, 0, bytes([0, 60]), [255, 195]),
        (8, 1, bytes([0, 60]), [0, 60]),
        (12, 1, bytes([0x00, 0x0F, 0xFF]), [0, 255]),  # 0 and 4095, which is white
        (12, 1, bytes([0x80, 0x40, 0x00]), [128, 0]),  # 2052 * 255 / 4095 = 127.8
        (16, 0, struct.pack("<2H", 0, 257 * 60), [255, 195]),
        (16, 0, struct.pack("<2H", 65535, 257 * 255 - 100), [0, 0]),  # 100 / 257 is nearer to 0
        (16, 1, struct.pack("<2H", 0, 257 * 60), [0, 60]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_grey_tiff(tmp_path, bits, photometric, data, pixels, packed):
    strips = [zlib.compress(data) if packed else data]
    assert read(tmp_path, tiff(2, 1, bits, photometric, strips, compression=8 if packed else 1)) == pixels


def test_grey_tiff_of_16_bits_with_the_high_byte_first(tmp_path):
    data = struct.pack(">2H", 257 * 60, 257 * 200)
    assert read(tmp_path, tiff(2, 1, 16, 1, [data], ">")) == [60, 200]


@pytest.mark.parametrize(
    ("bits", "sign", "values"), [(32, 1, "2I"), (32, 2, "2i"), (16, 2, "2h"), (8, 2, "2b"), (32, 3, "2f")]
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_values_whose_white_is_not_known_are_refused(tmp_path, bits, sign, values, order):
    data = struct.pack(order + values, 0, 1)
    with pytest.raises(DataError, match=r"as a picture \("):
        read(tmp_path, tiff(2, 1, bits, 1, [data], order, sign=sign))


def test_the_reason_is_said(tmp_path):
    with pytest.raises(DataError, match="longer than 16 bits: save it with 8 or 16 bits"):
        read(tmp_path, tiff(2, 1, 32, 1, [struct.pack("<2i", 0, 255)], sign=2))
    with pytest.raises(DataError, match="cannot identify it as JPEG, PNG"):
        read(tmp_path, b"this is no picture")


RGB = np.array([[(250, 10, 10), (10, 250, 10)], [(10, 10, 250), (240, 240, 10)]], np.uint8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_coloured_tiff_of_8_and_16_bits_interleaved_and_in_planes(tmp_path, order, packed):
    pack, compression = (zlib.compress, 8) if packed else (bytes, 1)
    for bits, values in ((8, RGB), (16, (RGB.astype(np.uint32) * 257).astype(order + "u2"))):
        whole = tiff(2, 2, bits, 2, [pack(values.tobytes())], order, samples=3, compression=compression)
        assert read(tmp_path, whole, (2, 2, 3)) == RGB.ravel().tolist()
        planes = [pack(plane.tobytes()) for plane in values.transpose(2, 0, 1)]
        apart = tiff(2, 2, bits, 2, planes, order, samples=3, compression=compression, planar=2)
        if bits == 16 and not packed:  # Pillow reads every byte as a pixel
            with pytest.raises(DataError, match=r"planar\) with 16 bits: save it with 8 bits, or interleaved"):
                read(tmp_path, apart, (2, 2, 3))
        else:
            assert read(tmp_path, apart, (2, 2, 3)) == RGB.ravel().tolist()


def test_cmyk_tiff_in_planes(tmp_path):
    planes = [bytes([ink]) for ink in (0, 255, 255, 0)]  # magenta and yellow ink: red
    assert read(tmp_path, tiff(1, 1, 8, 5, planes, samples=4, planar=2), (1, 1, 3)) == [255, 0, 0]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    list(enumerate(("abcdef", "cbafed", "fedcba", "defabc", "adbecf", "daebfc", "fcebda", "cfbead"), 1)),
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_tiff_is_turned_upright_once(tmp_path, orientation, upright, packed):
    strips = [zlib.compress(b"abcdef") if packed else b"abcdef"]
    content = tiff(3, 2, 8, 1, strips, compression=8 if packed else 1, tags={274: [orientation]})
    assert bytes(read(tmp_path, content, (3, 2, 1) if orientation > 4 else (2, 3, 1))).decode() == upright


BGRX = np.dstack([RGB[..., ::-1], np.zeros((2, 2), np.uint8)])


def test_a_bmp_whose_alpha_channel_is_empty_has_none(tmp_path):
    assert read(tmp_path, bmp(BGRX), (2, 2, 3)) == RGB.ravel().tolist()
    assert read(tmp_path, bmp(BGRX, masks=False), (2, 2, 3)) == RGB.ravel().tolist()
    one = BGRX.copy()
    one[0, 0, 3] = 255  # now it says something: the first is opaque, the others are transparent
    assert read(tmp_path, bmp(one), (2, 2, 3)) == [250, 10, 10, *[255] * 9]


@pytest.mark.parametrize(
    ("extra", "pixels"), [({}, [9, 8, 7]), ({338: [0]}, [9, 8, 7]), ({338: [2]}, [255] * 3), ({338: [1]}, [255] * 3)]
)
def test_a_tiff_s_fourth_channel_is_transparency_where_the_file_says_so(tmp_path, extra, pixels):
    assert read(tmp_path, tiff(1, 1, 8, 2, [bytes([9, 8, 7, 0])], samples=4, tags=extra), (1, 1, 3)) == pixels


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (b"P1 2 1\n1 0\n", [0, 255]),  # one is black
        (b"P4 2 1\n\x80", [0, 255]),
        (b"P2 2 1 1000\n500 1000\n", [128, 255]),
        (b"P5 2 1 15\n\x04\x0f", [68, 255]),
        (b"P5 2 1 255\n\x04\x0f", [4, 15]),
        (b"P5 2 1 4095\n" + struct.pack(">2H", 2048, 4095), [128, 255]),
        (b"P5 2 1 65535\n" + struct.pack(">2H", 257 * 60, 65535), [60, 255]),
    ],
)
def test_portable_anymaps(tmp_path, content, pixels):
    assert read(tmp_path, content) == pixels


def test_a_coloured_anymap_of_16_bits(tmp_path):
    assert read(tmp_path, b"P6 1 1 65535\n" + struct.pack(">3H", 25700, 257, 65535), (1, 1, 3)) == [100, 1, 255]


def test_a_cmyk_jpeg_as_adobe_writes_it(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)  # inverted in the file
    red, green, blue = read_picture(tmp_path / "a.jpg", (1, 1, 3)).ravel().tolist()
    assert red > 250
    assert max(green, blue) < 5


def test_a_refused_picture_among_good_ones_is_named_with_the_reason(tmp_path, caplog):
    for side in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / side / name).mkdir(parents=True)
            (tmp_path / side / name / "a.png").write_bytes(png(1, 1, 8, 0, [bytes([number])]))
    (tmp_path / "train" / "cat" / "b.tif").write_bytes(tiff(1, 1, 32, 1, [bytes(4)], sign=2))
    split = open_data(str(tmp_path), shape=(1, 1, 1))
    assert (len(split.train), split.skipped) == (2, 1)
    assert "b.tif" in caplog.text
    assert "longer than 16 bits" in caplog.text
