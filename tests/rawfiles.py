"""Picture and array files byte by byte, from their specifications: what no encoder at hand writes."""

import struct
import zlib

import numpy as np
from PIL import Image


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour, rows, extra=b""):
    """rows: the bytes of each line; extra: chunks before the pixels."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + png_chunk(b"IEND", b"")


def transparent(*values):
    """The chunk that says which grey, or which red, green and blue, is transparent."""
    return png_chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


def tiff(width, height, bits, photometric, strips, order="<", **more):
    """more: samples (1), planar (1), sign (1 unsigned, 2 signed, 3 float), compression (1 none, 8 deflate), tags."""
    samples = more.get("samples", 1)
    tags = {256: [width], 257: [height], 258: [bits] * samples, 259: [more.get("compression", 1)], 262: [photometric]}
    tags |= {273: [0] * len(strips), 277: [samples], 278: [height], 279: [len(strip) for strip in strips]}
    tags |= {284: [more.get("planar", 1)], 339: [more.get("sign", 1)] * samples} | more.get("tags", {})
    sizes = {tag: 4 * len(values) for tag, values in tags.items() if len(values) > 1}
    outside = 8 + 2 + 12 * len(tags) + 4
    start = outside + sum(sizes.values())
    tags[273] = [start + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries = values_outside = b""
    for tag, values in sorted(tags.items()):  # all as 32-bit numbers
        packed = struct.pack(f"{order}{len(values)}I", *values)
        place = packed if len(values) == 1 else struct.pack(f"{order}I", outside + len(values_outside))
        values_outside += packed if len(values) > 1 else b""
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + place
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + values_outside + b"".join(strips)


def bmp(bgra, masks=True):
    """A 32-bit BMP, with a header that says where each colour and the transparency are (masks) or the older one."""
    height, width = bgra.shape[:2]
    size, pixels = 108 if masks else 40, bgra[::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", size, width, height, 1, 32, 3 if masks else 0, len(pixels), 2835, 2835, 0, 0)
    if masks:
        head += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels


def idx(array):
    """An IDX file of an array of bytes."""
    array = np.asarray(array, np.uint8)
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def cifar(labels, value=0):
    """Records of CIFAR: each of the label's bytes (one, or two in a tuple) and 3,072 pixels of one value."""
    return b"".join(bytes(np.atleast_1d(label).tolist()) + bytes([value]) * 3072 for label in labels)


def pictures(folder, count, start=0):
    """Fill a folder with PNG files of 2 x 2 pixels, grey from `start` on, so that a picture is known by its pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        Image.new("L", (2, 2), i % 256).save(folder / f"{i:03}.png")
    return folder
