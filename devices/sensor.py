"""A vibration sensor that learns to tell a machine at rest from one at work, from windows of its readings.

    python3 sensor.py --join FILE --label still       # while the machine is at rest
    python3 sensor.py --join FILE --label shaking     # while it is at work
    python3 sensor.py --join FILE                     # learn from what was recorded, and say what is measured now

The run's classes are CLASSES and its input_shape is [64, 3]. Without an ADXL345 (or its library) readings are made up.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np

import edgemeta

CLASSES = ("still", "shaking")
READINGS, RATE_HZ = 64, 100  # of three axes, in a window
WINDOWS = 40  # recorded in a go


def open_sensor():
    """Return a function that measures a window (READINGS, 3) in units of 9.81 m/s2, and whether it is a real one."""
    try:
        import adafruit_adxl34x
        import board

        sensor = adafruit_adxl34x.ADXL345(board.I2C())
    except (ImportError, NotImplementedError, AttributeError, OSError, RuntimeError, ValueError) as error:
        print(f"no sensor ({error}): readings are made up; on a board: pip install adafruit-circuitpython-adxl34x, and "
              "switch I2C on in raspi-config", file=sys.stderr)  # fmt: skip
        rng = np.random.default_rng()

        def made_up(label=0):
            wave = label * np.sin(np.arange(READINGS)[:, np.newaxis] * rng.uniform(0.8, 1.2) + rng.uniform(0, 6))
            return (wave + rng.normal(0, 0.1, (READINGS, 3))).astype(np.float32)

        return made_up, False

    def measure():
        window = np.empty((READINGS, 3), np.float32)
        for row in window:
            row[...] = np.array(sensor.acceleration) / 9.81
            time.sleep(1 / RATE_HZ)
        return window - window.mean(axis=0)  # without gravity

    return measure, True


def recorded():
    """Return all windows with their labels; what a device learns from is read again for each task."""
    kept = [np.load(path) for path in sorted(options.recordings.glob("*.npz"))]
    return np.concatenate([part["x"] for part in kept]), np.concatenate([part["y"] for part in kept])


def record(label):
    windows = np.stack([measure() if real else measure(label) for _ in range(WINDOWS)])
    options.recordings.mkdir(parents=True, exist_ok=True)
    path = options.recordings / f"{CLASSES[label]}-{time.time_ns()}.npz"
    np.savez(path, x=windows, y=np.full(WINDOWS, label, np.int64))
    print(f"recorded {WINDOWS} windows: {path}")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--server", help="the gateway's URL; or else:")
parser.add_argument("--join", help="this device's join file")
parser.add_argument("--name", help="what the gateway calls this device, instead of the host's name")
parser.add_argument("--label", choices=CLASSES, help="only record: what the machine is doing now")
parser.add_argument("--recordings", type=Path, default=Path("recordings"))
parser.add_argument("--state", default="edgemeta-state")
options = parser.parse_args()

measure, real = open_sensor()
if options.label:
    record(CLASSES.index(options.label))
    sys.exit()
if not any(options.recordings.glob("*.npz")):
    if real:
        sys.exit("nothing is recorded yet: run this with --label still, and with --label shaking")
    record(0)
    record(1)
with edgemeta.Device(options.server, recorded, options.state, options.name, join=options.join) as device:
    for _ in itertools.count():
        done = device.step(budget_s=2.0)
        if done.kind not in ("waiting", "idle"):
            print(done)
        if done.kind in ("delivered", "over"):
            label = int(device.predict(measure()).argmax())
            print(f"the machine is {CLASSES[label]}")
        if done.kind == "over":
            break
        time.sleep(done.wait_s)
