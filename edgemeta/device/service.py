"""A device as a process of its own: its log, its signals, and its signs of life to who started it."""

import logging
import signal
import sys
import time
from collections.abc import Mapping

from edgemeta.device.device import Device
from edgemeta.device.done import Done
from edgemeta.errors import EdgemetaError
from edgemeta.link.notify import beating, notify
from edgemeta.logs import Seldom

BUDGET_S = 1.0  # of local steps between two looks at whether to stop
QUIET = ("waiting", "task")
ALWAYS = ("joined", "delivered", "discarded", "over")

log = logging.getLogger("edgemeta")


class News:
    """What a device says of its work: at once what is new, and again only now and then. text: the last of it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._kind, self._seldom = "", Seldom()

    def tell(self, done: Done, now: float) -> None:
        """Log what was done, where it is worth a line. now: in seconds."""
        if done.kind in QUIET:
            return
        if done.kind != self._kind:
            self._seldom = Seldom()
        self.text, self._kind = str(done), done.kind
        if done.kind in ALWAYS or self._seldom.due(done.kind, now):
            log.info("%(event)s", {"event": self.text, "kind": done.kind})


def take_part(device: Device, begun: Mapping[str, object], hold_s: float, once: bool, seconds: float | None) -> None:
    """Do a device's work until the run is over, or one round's is done, or a signal comes, which ends the process.

    begun: its place, state and data, to be said once signals are heard; hold_s: for which the gateway may hold back
    an answer. Raises EdgemetaError when `seconds` have passed before.
    """
    signals, news = list[int](), News(f"{device.place}: asking for work")

    def stop(number: int) -> None:
        if number == signal.SIGALRM:
            raise EdgemetaError(f"gave up after {seconds:g} s; what was done is kept. At last: {news.text}")
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(0)  # a clean stop; what was done is kept on the way out

    def on_signal(number: int, _frame: object) -> None:
        signals.append(number)
        if len(signals) > 1 or not device.training:  # else when the local step has ended, so that it is kept
            stop(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, on_signal)
    log.info("%(place)s: asking for work; state in %(state)s, data: %(data)s", begun)
    if seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    notify("READY=1")
    with beating() as turn:
        while True:
            turn()
            done = device.step(BUDGET_S, wait_s=hold_s)
            if signals:
                stop(signals[0])
            news.tell(done, time.monotonic())
            if done.kind == "over" or (once and done.round_ends):
                return
            time.sleep(done.wait_s)
