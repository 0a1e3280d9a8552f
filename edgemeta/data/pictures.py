"""One picture file: the one module that uses Pillow, which is loaded when a picture is first decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import DataError
from edgemeta.nn.given import samples_of

if TYPE_CHECKING:
    from PIL import Image

# Formats that Pillow decodes by itself (others, such as EPS, start other programs), the usual ones first.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")
WHITE = 255
TAIL_BYTES = 1024  # where a whole JPEG has its end mark: some cameras write a little behind it
DRAFT = 2  # a JPEG is decoded at no less than this many times the size wanted: a camera's picture, up to 8 times faster
DEPTHS = {"1": 1, "L;2": 2, "L;4": 4, "L": 8, "I;16B": 16}  # how Pillow calls a grey PNG's encoding -> bits
BITS, COMPRESSION, PHOTOMETRIC, PLANES, EXTRA, SAMPLES = 258, 259, 262, 284, 338, 339  # TIFF's numbers of its tags


class Stored(NamedTuple):
    """What a file says of its values that Pillow does not apply.

    top: the largest value of a 16-bit grey picture. white_is_zero: such a picture is a negative. hole: the grey value
    that is transparent. unsure: its fourth channel need not be transparency.
    """

    top: int = 65535
    white_is_zero: bool = False
    hole: int | None = None
    unsure: bool = False


def read_picture(path: str | Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return a picture as uint8 (H, W, C), stretched to that size; C is 1 (grey) or 3 (red, green, blue).

    It is turned upright as its EXIF data say; transparent parts show white; 16-bit grey is scaled to 8 bits; of an
    animation it is the first frame. Raises DataError, with the path, for anything that cannot be decoded, and for
    values of more than 16 bits or with a sign, whose white is not known.
    """
    # By its content and not its name: Pillow 13 maps a file that it can name, and then turns some TIFFs wrongly.
    with _told(str(path)), open(path, "rb") as content:
        return _stretched(_decoded(content, max(shape[:2])), shape)  # both ways, since EXIF may turn it


def read_sent_picture(content: bytes, side: int, most_pixels: int) -> NDArray[np.uint8]:
    """Return a picture that somebody sent, as `read_picture` has it, as uint8 (H, W, 3) of its own proportions.

    side: pixels of the longer side, of what is larger. Raises DataError also for more than most_pixels, which are not
    decoded: a small file can hold billions.
    """
    with _told("what was sent"):
        picture = _decoded(BytesIO(content), side, most_pixels).convert("RGB")
        picture.thumbnail((side, side))
        return np.asarray(picture, np.uint8)


def stretched(pixels: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) as `read_picture` would return it from a file."""
    from PIL import Image

    return _stretched(Image.fromarray(pixels), shape)


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture (H, W, 1) or (H, W, 3) as the bytes of a PNG file."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(file, "PNG")
    return file.getvalue()


def pixels_of(image: Any) -> NDArray[np.uint8]:
    """Return a picture, an array as `Device.learn` takes it, as uint8 (H, W, 1 or 3); raises DataError."""
    x = np.asarray(image)
    x = samples_of(x[np.newaxis, ..., np.newaxis] if x.ndim == 2 else x[np.newaxis], name="image")
    if x.ndim != 4 or x.shape[3] not in (1, 3):
        raise DataError(f"image: shape {x.shape[1:]}, expected (height, width, 3), or 1, or (height, width)")
    pixels: NDArray[np.uint8] = x[0] if x.dtype == np.uint8 else np.rint(x[0].clip(0, 1) * WHITE).astype(np.uint8)
    return pixels


def check_picture(path: str | Path) -> None:
    """Raise DataError unless a file is a picture that was not cut short, looking no closer than needed.

    A file that begins and ends as a JPEG, PNG or GIF does is taken to be one; anything else is decoded to see.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # thousands of files are looked at
            head = file.read(8)
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            tail = file.read()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror})") from None
    if head.startswith(b"\xff\xd8\xff") and tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xda"):
        return
    if head == b"\x89PNG\r\n\x1a\n" and tail.endswith(b"IEND\xaeB`\x82"):
        return
    if head[:6] in (b"GIF87a", b"GIF89a") and tail.endswith(b"\x00;"):
        return
    if not head:
        raise DataError(f"{path} is empty")
    read_picture(path, (1, 1, 1))


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Raise DataError for whatever is wrong with a picture."""
    from PIL import UnidentifiedImageError

    # A damaged picture raises one of a dozen kinds (OSError, SyntaxError, ValueError, struct.error ...), by its format.
    try:
        yield
    except UnidentifiedImageError:
        raise DataError(f"cannot read {what} as a picture (cannot identify it as {', '.join(FORMATS)})") from None
    except Exception as error:
        raise DataError(f"cannot read {what} as a picture ({error or type(error).__name__})") from None


def _decoded(content: BinaryIO, side: int, most_pixels: int | None = None) -> "Image.Image":
    """Return a picture upright and without transparency, of at least twice `side` where it is larger."""
    from PIL import Image, ImageOps

    file = Image.open(content, formats=FORMATS)
    if most_pixels is not None and file.width * file.height > most_pixels:
        raise ValueError(f"it has {file.width} x {file.height} pixels, and at most {most_pixels} are taken: shrink it")
    file.draft(file.mode, (DRAFT * side, DRAFT * side))
    stored = _stored(file)
    file.load()
    # A TIFF is turned while it is loaded, and by older versions of Pillow twice, if one asks.
    return _opaque(file if file.format == "TIFF" else ImageOps.exif_transpose(file), stored)


def _stretched(picture: "Image.Image", shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    height, width, channels = shape
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture.convert("RGB" if channels == 3 else "L"), np.uint8).reshape(shape)


def _stored(file: "Image.Image") -> Stored:
    """Return how an opened file's values are stored; raises ValueError for what would be decoded to wrong pixels."""
    if file.format == "BMP":
        return Stored(unsure=True)
    if file.format == "PNG" and file.mode != "P" and "transparency" in file.info:
        return Stored(hole=_hole(file))
    if file.format != "TIFF":
        return Stored()
    tags: Any = file.tag_v2  # type: ignore[attr-defined]
    bits = max(tags.get(BITS, (1,)))
    if bits > 16 or not set(tags.get(SAMPLES, (1,))) <= {1, 4}:  # 4: undefined, and in practice unsigned as 1 is
        raise ValueError("its values are signed, floats, or longer than 16 bits: save it with 8 or 16 bits")
    if tags.get(PLANES, 1) == 2 and bits != 8 and len(file.getbands()) > 1 and tags.get(COMPRESSION, 1) == 1:
        raise ValueError(f"its colours are kept apart (planar) with {bits} bits: save it with 8 bits, or interleaved")
    return Stored(2**bits - 1, tags.get(PHOTOMETRIC) == 0, unsure=EXTRA not in tags)


def _hole(file: "Image.Image") -> int | None:
    """Return the value that a PNG's transparent parts have, as Pillow decodes them, where Pillow does not apply it."""
    tiles: Any = file.tile  # type: ignore[attr-defined]
    encoding, value = tiles[0][3], file.info["transparency"]
    if encoding == "RGB;16B":
        raise ValueError("a colour of 16 bits is transparent in it: save it with 8 bits")
    if encoding not in DEPTHS:
        return None
    bits = DEPTHS[encoding]
    if bits == 1:
        return WHITE if value else 0
    return int(value) * (WHITE // (2**bits - 1) if bits < 8 else 1)


def _opaque(picture: "Image.Image", stored: Stored) -> "Image.Image":
    """Return a picture of 8 bits a channel without transparency."""
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("its values are not of 8 or 16 bits")
    if picture.mode.startswith("I") or stored.hole is not None:
        values = np.asarray(picture)
        values = values * np.uint8(WHITE) if picture.mode == "1" else values
        top = stored.top if picture.mode.startswith("I") else WHITE
        pixels = np.rint(values / (top / WHITE)).astype(np.uint8)
        if stored.white_is_zero:
            pixels = WHITE - pixels
        if stored.hole is not None:
            pixels[values == stored.hole] = WHITE
        return Image.fromarray(pixels)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if stored.unsure and not np.asarray(picture)[..., 3].any():  # programs that know no transparency write zeros
            return picture.convert("RGB")
        return Image.alpha_composite(Image.new("RGBA", picture.size, (WHITE,) * 4), picture).convert("RGB")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
