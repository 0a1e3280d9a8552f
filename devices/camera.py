"""A camera that learns from labelled pictures in a folder that grows, and says what it sees.

    python3 camera.py --join FILE --pictures DIR

DIR has a folder for each class: of the run, or, where every board has its own, whatever this one is to tell apart. What
the camera takes goes to DIR/../unsorted: move a picture into the folder of its class, and it is learned from. Without
picamera2 the pictures are drawn here, and sort themselves.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import edgemeta
from edgemeta.errors import DataError

CLASSES = ("empty", "visitor")  # of the pictures that are drawn here
SIZE = 32


def open_camera(wanted):
    """Return a function that takes a picture, and whether it is a real one."""
    if not wanted:
        try:
            from picamera2 import Picamera2

            camera = Picamera2()
            camera.configure(camera.create_still_configuration({"size": (320, 320), "format": "BGR888"}))
            camera.start()
            return camera.capture_array, True
        except (ImportError, IndexError, RuntimeError) as error:
            print(f"no camera ({error}): pictures are drawn instead; on a board: apt install python3-picamera2, and "
                  "look at 'rpicam-hello --list-cameras'", file=sys.stderr)  # fmt: skip
    rng = np.random.default_rng(0)

    def draw(label=0):
        picture = rng.integers(60, 120, (SIZE, SIZE, 3), np.uint8)
        row, column = rng.integers(0, SIZE // 2, 2)
        picture[row : row + SIZE // 2, column : column + SIZE // 2] += np.uint8(100 * label)
        return picture

    return draw, False


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--server", help="the gateway's URL; or else:")
parser.add_argument("--join", help="this device's join file")
parser.add_argument("--name", help="what the gateway calls this device, instead of the host's name")
parser.add_argument("--pictures", type=Path, default=Path("pictures"))
parser.add_argument("--state", default="edgemeta-state")
parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="between two pictures")
parser.add_argument("--simulate", action="store_true", help="draw pictures though there is a camera")
options = parser.parse_args()

take, real = open_camera(options.simulate)
with edgemeta.Device(options.server, options.pictures, options.state, options.name, join=options.join) as device:
    due = 0.0
    for number in itertools.count():
        if time.monotonic() >= due:
            due = time.monotonic() + options.every
            label = number % len(CLASSES)
            picture = take() if real else take(label)
            folder = options.pictures.parent / "unsorted" if real else options.pictures / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / f"{time.time_ns()}.png")
            try:
                small = np.asarray(Image.fromarray(picture).resize((SIZE, SIZE)))
                chances = device.predict(small)
                print("it sees", device.classes[int(chances.argmax())], np.round(chances, 2))
            except DataError:
                pass  # no model has come yet
        done = device.step(budget_s=2.0)
        if done.kind not in ("waiting", "idle"):
            print(done, file=sys.stderr if done.kind == "data" else sys.stdout)  # there are too few pictures yet
        if done.kind == "over":
            break
        time.sleep(min(done.wait_s, max(due - time.monotonic(), 0.0)))
