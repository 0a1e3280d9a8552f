"""One picture file: the one module that uses Pillow, which is loaded when a picture is first decoded."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgemeta.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

# Formats that Pillow decodes by itself (others, such as EPS, start other programs), the usual ones first.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")
WHITE = 255
TAIL_BYTES = 1024  # where a whole JPEG has its end mark: some cameras write a little behind it
DRAFT = 2  # a JPEG is decoded at no less than this many times the size wanted: a camera's picture, up to 8 times faster


def read_picture(path: str | Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return a picture as uint8 (H, W, C), stretched to that size; C is 1 (grey) or 3 (red, green, blue).

    It is turned upright as its EXIF data say; transparent parts show white; 16-bit grey is scaled to 8 bits; of an
    animation it is the first frame. Raises DataError, with the path, for anything that cannot be decoded.
    """
    from PIL import Image, ImageOps

    height, width, channels = shape
    # A damaged picture raises one of a dozen kinds (OSError, SyntaxError, ValueError, struct.error ...), by its format.
    try:
        with Image.open(path, formats=FORMATS) as file:
            side = DRAFT * max(height, width)  # both ways, since EXIF may turn it
            file.draft(file.mode, (side, side))
            file.load()
            picture = _opaque(ImageOps.exif_transpose(file))
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture.convert("RGB" if channels == 3 else "L"), np.uint8)
    except Exception as error:
        raise DataError(f"cannot read {path} as a picture ({error or type(error).__name__})") from None
    return pixels.reshape(shape)


def is_whole(path: str | Path) -> bool:
    """Return whether a file is a picture that was not cut short, looking no closer than needed.

    A file that begins and ends as a JPEG, PNG or GIF does is taken to be one; anything else is decoded to see.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # thousands of files are looked at
            head = file.read(8)
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            tail = file.read()
    except OSError:
        return False
    if head.startswith(b"\xff\xd8\xff") and tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xda"):
        return True
    if head == b"\x89PNG\r\n\x1a\n" and tail.endswith(b"IEND\xaeB`\x82"):
        return True
    if head[:6] in (b"GIF87a", b"GIF89a") and tail.endswith(b"\x00;"):
        return True
    if not head:
        return False
    try:
        read_picture(path, (1, 1, 1))
    except DataError:
        return False
    return True


def _opaque(picture: "Image.Image") -> "Image.Image":
    """Return a picture of 8 bits a channel without transparency."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture).astype(np.float64)
        if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError("its values are not of 8 or 16 bits")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, (WHITE,) * 4), picture).convert("RGB")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
