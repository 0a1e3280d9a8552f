"""A board that runs on a battery: it wakes, does what there is to do, and sleeps.

    python3 duty_cycle.py --join FILE --data DIR          # wake every 15 minutes, until the run is over
    python3 duty_cycle.py --join FILE --data DIR --once   # one wake, and end: for a timer that switches the board on

It tells the gateway for how long it sleeps. Rounds do not wait for it then: it gets the model of whatever round is open
when it wakes, and what it has not delivered before it sleeps counts at its next wake, up to two rounds later
(`server.max_lag`). So in a wake it delivers what is left, takes one task, works on it for --budget seconds at most, and
delivers that too if it gets so far. All that it has done is on the card when it sleeps, so the power may go then. With
--once the last line on standard output says in how many seconds to come again; the exit status is 3 when the run is
over.
"""

import argparse
import sys
import time

import edgemeta

OVER = 3
WAIT_S = 10.0  # for a task, awake: a round may be about to open
SLEEPS = ("idle", "over", "memory", "storage")  # more cannot be done in this wake

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--server", help="the gateway's URL; or else:")
parser.add_argument("--join", help="this device's join file")
parser.add_argument("--name", help="what the gateway calls this device, instead of the host's name")
parser.add_argument("--data", required=True)
parser.add_argument("--state", default="edgemeta-state")
parser.add_argument("--budget", type=float, default=60.0, metavar="SECONDS", help="of work, each time it is awake")
parser.add_argument("--every", type=float, default=900.0, metavar="SECONDS", help="from one waking to the next")
parser.add_argument("--once", action="store_true")
options = parser.parse_args()


def wake(device):
    """Do a wake's work, and return what was done last."""
    ends, kinds = time.monotonic() + options.budget, []
    while True:
        left = max(ends - time.monotonic(), 0.1)
        done = device.step(left, wait_s=min(left, WAIT_S), wake_s=options.every)
        kinds.append(done.kind)
        print(done, file=sys.stderr)
        worked = done.kind == "delivered" and "task" in kinds
        if worked or done.kind in SLEEPS or time.monotonic() + done.wait_s >= ends:
            return done
        time.sleep(done.wait_s)


while True:
    with edgemeta.Device(options.server, options.data, options.state, options.name, join=options.join) as device:
        done = wake(device)
    if done.kind == "over":
        sys.exit(OVER if options.once else 0)
    if options.once:
        print(f"{max(done.wait_s, options.every):.0f}")
        break
    time.sleep(max(done.wait_s, options.every))
