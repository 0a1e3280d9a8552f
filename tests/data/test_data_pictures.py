"""Picture files of every mode, with pixels worked out by hand, and image folders with all that can be wrong in them."""

import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from edgemeta.data import describe, open_data, read_picture
from edgemeta.errors import DataError


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(path, width, height, depth, colour, rows, extra=b""):
    """A PNG by hand, from the specification: rows are the bytes of each line."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = zlib.compress(b"".join(b"\x00" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + extra + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b""))
    return path


def test_rgb(tmp_path):
    path = write_png(tmp_path / "a.png", 2, 1, 8, 2, [bytes([255, 0, 0, 10, 20, 30])])
    assert read_picture(path, (1, 2, 3)).tolist() == [[[255, 0, 0], [10, 20, 30]]]
    # Grey is 0.299 R + 0.587 G + 0.114 B: 76.2, and 2.99 + 11.74 + 3.42 = 18.15.
    assert read_picture(path, (1, 2, 1)).tolist() == [[[76], [18]]]


def test_transparent_parts_show_white(tmp_path):
    path = write_png(tmp_path / "a.png", 3, 1, 8, 6, [bytes([200, 0, 0, 0, 200, 0, 0, 255, 100, 0, 50, 51])])
    # The third is opaque to a fifth: 255 + (100 - 255) / 5 = 224, 204, 214.
    assert read_picture(path, (1, 3, 3)).tolist() == [[[255, 255, 255], [200, 0, 0], [224, 204, 214]]]


def test_grey_with_transparency(tmp_path):
    path = write_png(tmp_path / "a.png", 2, 1, 8, 4, [bytes([0, 0, 7, 255])])
    assert read_picture(path, (1, 2, 1)).tolist() == [[[255], [7]]]
    assert read_picture(path, (1, 2, 3)).tolist() == [[[255] * 3, [7] * 3]]


def test_palette_with_transparency(tmp_path):
    extra = png_chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255, 1, 2, 3])) + png_chunk(b"tRNS", bytes([255, 0]))
    path = write_png(tmp_path / "a.png", 3, 1, 8, 3, [bytes([0, 1, 2])], extra)
    assert read_picture(path, (1, 3, 3)).tolist() == [[[255, 0, 0], [255, 255, 255], [1, 2, 3]]]


def test_grey_with_a_transparent_value(tmp_path):
    path = write_png(tmp_path / "a.png", 2, 1, 8, 0, [bytes([9, 40])], png_chunk(b"tRNS", struct.pack(">H", 9)))
    assert read_picture(path, (1, 2, 1)).tolist() == [[[255], [40]]]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    row = struct.pack(">5H", 0, 257, 32896, 40000, 65535)  # 257 of 65535 is 1 of 255; 40000 / 257 = 155.6
    path = write_png(tmp_path / "a.png", 5, 1, 16, 0, [row])
    assert read_picture(path, (1, 5, 1)).ravel().tolist() == [0, 1, 128, 156, 255]
    assert read_picture(path, (1, 5, 3))[0, 3].tolist() == [156] * 3


def test_sixteen_bits_in_a_tiff_of_either_byte_order(tmp_path):
    for order, mark in (("<", b"II"), (">", b"MM")):
        tags = [(256, 3, 2), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 3, 1), (279, 4, 4)]
        data = struct.pack(f"{order}2H", 25700, 51400)
        entries = b""
        for tag, kind, value in tags:
            packed = struct.pack(f"{order}I", value) if kind == 4 else struct.pack(f"{order}HH", value, 0)
            entries += struct.pack(f"{order}HHI", tag, kind, 1) + packed
        body = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
        path = tmp_path / f"{mark.decode()}.tif"
        path.write_bytes(mark + struct.pack(f"{order}HI", 42, 12) + data + body)
        assert read_picture(path, (1, 2, 1)).ravel().tolist() == [100, 200]


def test_one_bit(tmp_path):
    path = write_png(tmp_path / "a.png", 3, 1, 1, 0, [bytes([0b10100000])])
    assert read_picture(path, (1, 3, 1)).ravel().tolist() == [255, 0, 255]


def test_cmyk(tmp_path):
    path = tmp_path / "a.tif"
    Image.new("CMYK", (1, 1), (0, 255, 255, 0)).save(path)  # magenta and yellow ink: red
    assert read_picture(path, (1, 1, 3)).tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, "abcdef"),
        (2, "cbafed"),
        (3, "fedcba"),
        (4, "defabc"),
        (5, "adbecf"),
        (6, "daebfc"),
        (7, "fcebda"),
        (8, "cfbead"),
    ],
)
def test_exif_orientation(tmp_path, orientation, upright):
    # Stored as two lines, abc and def; the EXIF table of orientations says how it is to be shown.
    exif = b"MM\x00\x2a\x00\x00\x00\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    path = write_png(tmp_path / "a.png", 3, 2, 8, 0, [b"abc", b"def"], png_chunk(b"eXIf", exif))
    size = (3, 2, 1) if orientation > 4 else (2, 3, 1)
    assert bytes(read_picture(path, size).ravel().tolist()).decode() == upright


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_picture(tmp_path / "a.gif", (2, 2, 1)) == 10).all()


def test_shrinking_averages(tmp_path):
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 200
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "a.png")
    small = read_picture(tmp_path / "a.png", (4, 8, 3))
    assert small.shape == (4, 8, 3)
    assert np.abs(small.astype(int) - 100).max() <= 3  # taking every eighth pixel would give 0 or 200


def test_a_camera_s_jpeg_keeps_its_regions(tmp_path):
    big = np.zeros((1200, 1600, 3), np.uint8)
    big[:600, :800, 0], big[600:, 800:, 2] = 255, 255
    Image.fromarray(big).save(tmp_path / "a.jpg", quality=95)
    small = read_picture(tmp_path / "a.jpg", (2, 2, 3)).astype(int)
    for (row, column), colour in {(0, 0): (255, 0, 0), (1, 1): (0, 0, 255), (0, 1): (0, 0, 0)}.items():
        assert np.abs(small[row, column] - colour).max() < 80  # the filter reaches over into the next quarter
        assert small[row, column].argmax() == np.argmax(colour) or colour == (0, 0, 0)


BAD = {
    "empty.jpg": b"",
    "text.png": b"this is no picture",
    "half.gif": b"GIF89a",
    "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(DataError, match=name):
        read_picture(tmp_path / name, (4, 4, 3))


def test_formats_that_start_other_programs_are_not_tried(tmp_path):
    (tmp_path / "a.eps").write_bytes(BAD["script.eps"])
    with pytest.raises(DataError, match="cannot identify"):
        read_picture(tmp_path / "a.eps", (4, 4, 3))


def test_other_bad_pictures_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.png"):
        read_picture(tmp_path / "none.png", (4, 4, 3))
    with pytest.raises(DataError):
        read_picture(tmp_path, (4, 4, 3))
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="8 or 16 bits"):
        read_picture(tmp_path / "float.tif", (2, 2, 1))
    huge = write_png(tmp_path / "huge.png", 60_000, 60_000, 8, 0, [b"x"])
    with pytest.raises(DataError, match=r"huge\.png"):
        read_picture(huge, (2, 2, 1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File")
def test_a_picture_that_was_cut_short_is_refused_unless_all_its_pixels_are_there(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "gif", "bmp", "webp", "tif", "ppm"):
        whole = tmp_path / f"whole.{suffix}"
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(whole)
        data, pixels = whole.read_bytes(), read_picture(whole, (12, 12, 3))
        cut = tmp_path / f"cut.{suffix}"
        for length in [*range(0, len(data), max(1, len(data) // 40)), len(data) - 1]:
            cut.write_bytes(data[:length])
            try:
                assert (read_picture(cut, (12, 12, 3)) == pixels).all()
                assert len(data) - length <= 20  # a PNG's end mark and check sums, say
            except DataError:
                continue


# Image folders


def fill(root, classes=("cat", "dog"), count=20, start=0):
    """Write pictures of one grey each, so that a picture can be known by its pixels."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(start, start + count):
            Image.new("L", (4, 4), number * 100 + i).save(root / name / f"{i:03}.png")
    return root


def greys(data):
    return sorted(data.load()[0][:, 0, 0, 0].tolist())


def test_train_and_test_folders(tmp_path):
    fill(tmp_path / "train", count=3)
    fill(tmp_path / "test", count=2, start=10)
    split = open_data(str(tmp_path))
    assert split.train.classes == split.test.classes == ("cat", "dog")
    x, y = split.train.load()
    assert x.shape == (6, 32, 32, 3)
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)
    assert x[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert y.tolist() == [0, 0, 0, 1, 1, 1]
    assert greys(split.test) == [10, 11, 110, 111]


def test_pictures_are_resized_to_the_shape_asked_for(tmp_path):
    fill(tmp_path / "train", count=1)
    fill(tmp_path / "test", count=1)
    split = open_data(str(tmp_path), shape=(5, 7, 1))
    assert split.train.shape == (5, 7, 1)
    assert split.train.take([1]).load()[0].shape == (1, 5, 7, 1)


def test_a_folder_without_test_pictures_is_split_and_may_grow(tmp_path):
    fill(tmp_path, count=60)
    before = open_data(str(tmp_path))
    assert len(before.train) + len(before.test) == 120
    assert 8 <= len(before.test) <= 36  # a sixth of 120 is 20, with a sigma of 4.1
    train, test = greys(before.train), greys(before.test)
    assert not set(train) & set(test)
    fill(tmp_path, count=30, start=60)
    os.rename(tmp_path / "dog" / "000.png", tmp_path / "dog" / "zzz.png")  # its content stays
    after = open_data(str(tmp_path))
    assert set(train) <= set(greys(after.train))
    assert set(test) <= set(greys(after.test))


def test_a_train_folder_alone_is_split_too(tmp_path):
    fill(tmp_path / "train", count=40)
    split = open_data(str(tmp_path))
    assert len(split.train) + len(split.test) == 80
    assert len(split.test) > 0


def test_train_may_be_a_class(tmp_path):
    fill(tmp_path, classes=("bus", "train"), count=30)
    assert open_data(str(tmp_path)).train.classes == ("bus", "train")


def test_bad_files_among_good_ones_are_skipped_named_and_counted(tmp_path, caplog):
    fill(tmp_path / "train", count=4)
    fill(tmp_path / "test", count=2)
    cats = tmp_path / "train" / "cat"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(cats / "cut.jpg")
    (cats / "cut.jpg").write_bytes((cats / "cut.jpg").read_bytes()[:-300])
    (cats / "cut.png").write_bytes((cats / "000.png").read_bytes()[:-30])
    for name, data in BAD.items():
        (cats / name).write_bytes(data)
    (cats / "README.txt").write_text("about cats")
    os.symlink("nowhere", cats / "link.png")
    os.mkfifo(cats / "pipe.png")
    os.symlink("000.png", os.fsencode(cats) + b"/\xff.png")  # a good one, with a name that is no UTF-8
    for litter in (".DS_Store", "Thumbs.db", ".hidden.png"):
        (cats / litter).write_bytes(b"x")
    (cats / "more").mkdir()
    with caplog.at_level(logging.WARNING, "edgemeta"):
        split = open_data(str(tmp_path))
    assert len(split.train) == 9
    assert split.skipped == 9
    assert len(caplog.records) == 1
    said = caplog.records[0].getMessage()
    assert "9 file" in said
    assert "README.txt" in said
    assert "6 more" in said
    assert "Thumbs" not in said
    assert len(split.train.load()[1]) == 9


def test_a_picture_damaged_inside_is_left_out_when_it_is_read(tmp_path, caplog):
    fill(tmp_path / "train", count=2)
    fill(tmp_path / "test", count=2)
    bad = tmp_path / "train" / "cat" / "000.png"
    data = bytearray(bad.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    bad.write_bytes(data)
    split = open_data(str(tmp_path))
    with caplog.at_level(logging.WARNING, "edgemeta"):
        x, y = split.train.load()
    assert (len(x), y.tolist()) == (3, [0, 1, 1])
    assert "000.png" in caplog.text
    with pytest.raises(DataError, match=r"000\.png"):
        split.train.take([0]).load()


def test_pictures_that_went_away_are_left_out(tmp_path, caplog):
    fill(tmp_path / "train", count=2)
    fill(tmp_path / "test", count=2)
    split = open_data(str(tmp_path))
    (tmp_path / "train" / "dog" / "001.png").unlink()
    with caplog.at_level(logging.WARNING, "edgemeta"):
        assert split.train.load()[1].tolist() == [0, 0, 1]
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(DataError, match="restore"):
        split.train.load()


def test_an_empty_class_folder_is_a_class_with_a_warning(tmp_path, caplog):
    fill(tmp_path, classes=("cat",), count=40)
    (tmp_path / "wolf").mkdir()
    with caplog.at_level(logging.WARNING, "edgemeta"):
        split = open_data(str(tmp_path))
    assert split.train.classes == ("cat", "wolf")
    assert "no samples of wolf" in caplog.text


def test_describe_is_ready_for_json(tmp_path):
    fill(tmp_path / "train", count=3)
    fill(tmp_path / "test", classes=("dog",), count=2)
    (tmp_path / "test" / "dog" / "x.png").write_bytes(b"")
    summary = json.loads(json.dumps(describe(open_data(str(tmp_path), shape=(8, 8, 1)))))
    assert summary == {
        "kind": "image folder",
        "shape": [8, 8, 1],
        "train": 6,
        "test": 2,
        "skipped": 1,
        "unused": [],
        "classes": {"cat": {"train": 3, "test": 0}, "dog": {"train": 3, "test": 2}},
    }


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: None, "no class folders"),
        (lambda root: (root / "a.png").write_bytes(b""), "no class folders"),
        (lambda root: [(root / name).mkdir() for name in ("cat", "dog")], "no readable pictures"),
        (lambda root: fill(root / "test"), "no train/"),
        (lambda root: (fill(root / "train"), (root / "test").mkdir()), "test has no class folders"),
        (lambda root: (fill(root / "test"), (root / "train").mkdir()), "train has no class folders"),
        (lambda root: (fill(root / "train"), (root / "test" / "cat").mkdir(parents=True)), "test has no readable"),
        (lambda root: fill(root, classes=("train", "test")), "train has no class folders"),
        (lambda root: fill(root / "Greek"), "one level down"),
        (lambda root: fill(root, classes=("cat", "d\nog")), "rename"),
        (lambda root: fill(root, classes=("cat", os.fsdecode(b"d\xffg"))), "rename"),
    ],
)
def test_folders_with_nothing_to_learn_from_are_refused(tmp_path, make, said):
    make(tmp_path)
    with pytest.raises(DataError, match=said):
        open_data(str(tmp_path))


def test_a_folder_too_small_to_split_is_refused(tmp_path):
    for name in ("cat", "dog"):  # equal files are on the same side, so all of these are
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "a.png")
    with pytest.raises(DataError, match="2 samples are too few"):
        open_data(str(tmp_path))


def test_a_folder_of_bad_files_alone_is_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match="no readable pictures"):
        open_data(str(tmp_path))


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 2), (0, 32, 3), (-1, 4, 1), (100_000, 100_000, 3), (4, 4, 3, 1)])
def test_shapes_that_pictures_cannot_have_are_refused(tmp_path, shape):
    fill(tmp_path)
    with pytest.raises(DataError, match="height, width, 1 or 3"):
        open_data(str(tmp_path), shape=shape)


def test_pillow_is_loaded_only_for_pictures():
    code = (
        "import sys, edgemeta.data as d; d.open_data('synthetic').train.take([0]).load(); print('PIL' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
