"""Two buttons that teach: a press takes a picture and files it under the button's class, and the device learns from it.

    python3 button.py --join FILE --pictures DIR
    python3 button.py --pictures DIR               without any gateway: a press counts at once, by the start that ships

The buttons are on GPIO 17 and 27, to ground. Without GPIO, buttons are pressed here in turn; without a camera, drawn
pictures are taken.
"""

import argparse
import itertools
import queue
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import edgemeta
from edgemeta.errors import DataError

BUTTONS = {17: "good", 27: "bad"}  # GPIO pin -> class
SIZE = 32
LAST_PRESS = 9  # without a gateway and without buttons
presses: queue.SimpleQueue[str] = queue.SimpleQueue()


def listen_to_buttons():
    """Have presses put their class into `presses`; return the buttons, none where there is no GPIO."""
    try:
        from gpiozero import Button
        from gpiozero.exc import GPIOZeroError

        try:
            buttons = [Button(pin, bounce_time=0.05) for pin in BUTTONS]
        except GPIOZeroError as error:
            raise OSError(error) from None
    except (ImportError, OSError) as error:
        print(f"no buttons ({error}): they are pressed here in turn; on a board: apt install python3-gpiozero "
              "python3-lgpio", file=sys.stderr)  # fmt: skip
        return []
    for button, label in zip(buttons, BUTTONS.values(), strict=True):
        button.when_pressed = lambda label=label: presses.put(label)
    return buttons


def open_camera():
    """Return a function that takes a picture of what is of the given class."""
    try:
        from picamera2 import Picamera2

        camera = Picamera2()
        camera.configure(camera.create_still_configuration({"size": (320, 320), "format": "BGR888"}))
        camera.start()
        return lambda _: camera.capture_array()
    except (ImportError, IndexError, RuntimeError) as error:
        print(f"no camera ({error}): pictures are drawn instead; on a board: apt install python3-picamera2",
              file=sys.stderr)  # fmt: skip
    rng, labels = np.random.default_rng(0), list(BUTTONS.values())
    return lambda label: rng.integers(0, 100, (SIZE, SIZE, 3), np.uint8) + np.uint8(120 * labels.index(label))


def teach(device, picture, label):
    """Say what the device sees in a picture before it learns what that is."""
    small = np.asarray(Image.fromarray(picture).resize((SIZE, SIZE)))
    seen = device.classes[device.predict(small).argmax()] if device.classes else "nothing yet"
    device.learn(picture, label)
    print(f"sees {seen}; learning that this is {label}")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--server", help="the gateway's URL; or else:")
parser.add_argument("--join", help="this device's join file")
parser.add_argument("--name", help="what the gateway calls this device, instead of the host's name")
parser.add_argument("--pictures", type=Path, default=Path("pictures"))
parser.add_argument("--state", default="edgemeta-state")
options = parser.parse_args()

alone = not (options.server or options.join)
buttons, take = listen_to_buttons(), open_camera()
with edgemeta.Device(options.server, options.pictures, options.state, options.name, join=options.join) as device:
    for turn in itertools.count():
        if not buttons:
            presses.put(list(BUTTONS.values())[turn % len(BUTTONS)])
        while not presses.empty():
            label = presses.get()
            if alone:
                teach(device, take(label), label)
                continue
            folder = options.pictures / label
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{time.time_ns()}.png"
            Image.fromarray(take(label)).save(path)
            print(f"learning that this is {label}: {path}")
        if alone:
            if not buttons and turn == LAST_PRESS:
                break
            time.sleep(0.1)
            continue
        try:
            done = device.step(budget_s=1.0)
        except DataError as error:
            print(f"waiting for pictures: {error}", file=sys.stderr)
            time.sleep(0.5)
            continue
        if done.kind not in ("waiting", "idle"):
            print(done)
        if done.kind == "over":
            break
        time.sleep(min(done.wait_s, 0.5))  # a press is not to wait for long
