"""A board that runs on a battery: it wakes, does one step, and sleeps.

    python3 duty_cycle.py --join FILE --data DIR          # wake every 15 minutes, until the run is over
    python3 duty_cycle.py --join FILE --data DIR --once   # one step, and end: for a timer that switches the board on

All that it has done is on the card when it sleeps, so the power may go then. With --once the last line on standard
output says in how many seconds to come again; the exit status is 3 when the run is over.
"""

import argparse
import sys
import time

import edgemeta

OVER = 3

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

while True:
    with edgemeta.Device(options.server, options.data, options.state, options.name, join=options.join) as device:
        done = device.step(budget_s=options.budget)
    print(done, file=sys.stderr)
    if done.kind == "over":
        sys.exit(OVER if options.once else 0)
    if options.once:
        print(f"{max(done.wait_s, options.every):.0f}")
        break
    time.sleep(max(done.wait_s, options.every))
