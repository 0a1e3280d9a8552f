"""A device: it asks the gateway for work, trains on its own data, and keeps a model that is adapted to it."""

import hashlib
import json
import logging
import math
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.device.calls import Answer, Away, ClockBehind, Gateway
from edgemeta.device.done import Done, Kind
from edgemeta.device.guard import Guard, NoMemory
from edgemeta.device.joined import Joined, joined_before, read_joined
from edgemeta.device.learned import Learning, teachable_folder
from edgemeta.device.own import Source
from edgemeta.device.personal import newest, personalise, settings_of
from edgemeta.device.profile import Profile, read_profile
from edgemeta.device.state import DeviceState
from edgemeta.device.tasks import Task, Tasks
from edgemeta.errors import ConfigError, DataError, DivergedError, InputError, StorageError
from edgemeta.fed.messages import most_task_bytes
from edgemeta.fed.progress import Stage
from edgemeta.link.joinfile import JoinFile, read_join_file
from edgemeta.link.protocol import PROTOCOL
from edgemeta.nn import Vector

log = logging.getLogger("edgemeta")

FIRST_S, LONGEST_S = 0.25, 60.0  # between tries: doubled each time, then drawn from the upper half
LONGEST_ASKED_S = 600.0  # for which a gateway may send a device away
NOT_WANTED = (409, 410, 413, 422)  # answers to a result that sending it again would not change


class Device(Learning):
    """One device and its state directory, for one process at a time.

    server: the gateway's URL; join: a join file instead, which says that, this device's name, the token that proves it
    and the certificate to trust. data: a SPEC (a folder is read again for each task, so it may grow), arrays (x, y) or
    ((x_train, y_train), (x_test, y_test)) labelled by the names of the run's classes or by indices into them, or a
    function that returns any of these. name: what the gateway calls this device; the host's name, when None.
    partition_id: of the data, take this part under the run's partition. profile: a file of limits
    (`edgemeta.device.profile`; not its nice level, as the process is the caller's). rng: draws the jitter between
    tries. Raises ConfigError for a malformed URL, StorageError when the state directory cannot be written or another
    process uses it.
    """

    def __init__(
        self,
        server: str | None = None,
        data: Source | None = None,
        state: str | Path = "edgemeta-state",
        name: str | None = None,
        partition_id: int | None = None,
        *,
        join: str | Path | None = None,
        profile: str | Path | None = None,
        rng: np.random.Generator | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if (server is None) == (join is None):
            raise ConfigError("a device takes the gateway's URL or a join file, and not both")
        joins = JoinFile(server or "", "", "") if join is None else read_join_file(join)
        if join is not None and name not in (None, joins.name):
            raise ConfigError(f"the join file {join} is for '{joins.name}', and not for '{name}': leave out the name")
        self._profile = read_profile(profile) if profile is not None else Profile()
        self._gateway, self._token = Gateway(joins.url, joins.certificate, self._profile.upload_kb_s), joins.token
        self._rng, self._clock = rng or np.random.default_rng(), clock
        self._not_before, self._failures = -math.inf, 0
        self._state = DeviceState(Path(state))
        self._tasks = Tasks(self._state, data, partition_id, Guard(self._profile.memory_mb), clock)
        self._identity = self._state.identity()
        asked = replace(
            self._identity,
            server=joins.url,
            name=joins.name or name or self._identity.name or socket.gethostname(),
            partition_id=partition_id,
            # A newer token is used at once, so that the gateway can drop the older one.
            token=hashlib.sha256(self._token.encode()).hexdigest() if self._token else self._identity.token,
        )
        # Whoever moved to another gateway, or is to be another device, joins first and then sees what is still of use.
        before = {**(self._identity.joined or {}), "session": self._identity.session}
        self._run = joined_before(before, self._profile.threads) if asked == self._identity else None
        self._known = self._run is not None  # by the gateway, as far as we know
        self._identity = replace(
            asked, folder=None if partition_id is not None else teachable_folder(data)
        )  # kept later

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Keep the local steps done so far, and let another process use the state directory."""
        self._tasks.close()
        self._gateway.close()
        self._state.close()

    @property
    def training(self) -> bool:
        """Whether a local step is at work now: a signal handler that waits for its end loses nothing."""
        return self._tasks.training

    def step(self, budget_s: float = 5.0, *, wait_s: float = 0.0) -> Done:
        """Do one exchange with the gateway, or local steps until the budget is used, and return what was done.

        budget_s: seconds; looked at between two local steps, so one at least is done. wait_s: for how long the gateway
        may hold back its answer when there is no work. Never raises because the network or the gateway is away, or the
        disk is full. Raises ConfigError when the gateway will not have this device, DataError for its own data.
        """
        left = self._not_before - self._clock()
        if left > 0:
            return Done(Kind.WAITING, f"waiting {left:.1f} s before the next try", left)
        try:
            return self._next(budget_s, wait_s)
        except ClockBehind as error:
            return self._later(Kind.CLOCK, f"waiting for the clock: {error}")
        except Away as error:
            return self._later(Kind.AWAY, f"gateway away: {error}")
        except StorageError as error:
            return self._later(Kind.STORAGE, str(error))
        except (NoMemory, MemoryError, DivergedError) as error:
            if isinstance(error, DivergedError):
                self._tell_diverged()
            self._tasks.drop()  # a later one may be smaller, or tamer
            kind = Kind.DIVERGED if isinstance(error, DivergedError) else Kind.MEMORY
            return self._later(kind, str(error) or "out of memory")
        except InputError:
            self._later(Kind.AWAY, "")  # a caller that goes on all the same does not hammer the gateway
            raise

    def adapt(self) -> None:
        """Make the personalised model anew, from the latest global model and this device's data as it is now.

        When the gateway is away, from the newest model that has come; raises DataError when there is none.
        """
        try:
            self._fetch_model()
        except (Away, StorageError) as error:
            log.warning("adapting the newest model that has come: %s", error)
        if not self._personalise_newest(again=True):
            raise DataError("no model has come from the gateway yet: call step() until a task has come")

    def _next(self, budget_s: float, wait_s: float) -> Done:
        run, state, tasks = self._run, self._state, self._tasks
        if run is not None:
            task = tasks.current(run)
            if task is None and self._known:
                return self._ask(run, wait_s)
            if task is not None:
                train = task.work.kind is Stage.TRAIN
                if not (state.update if train else state.scores).exists():  # local work needs no gateway
                    return tasks.train(run, budget_s) if train else tasks.evaluate(run)
                if self._known:
                    return self._deliver(run, task)
        return self._join()

    def _join(self) -> Done:
        if not self._identity.key:
            self._keep(key=secrets.token_hex(16))
        who = self._identity
        asked = {"name": who.name, "key": who.key, "partition_id": who.partition_id, "version": PROTOCOL}
        answer = self._gateway.call("POST", "/v1/join", session=self._token, body=json.dumps(asked).encode())
        if answer.status in (401, 403, 409, 422, 426) and answer.refusal:
            raise ConfigError(f"the gateway does not let '{asked['name']}' join: {': '.join(answer.refusal)}")
        said = self._good(answer).json()
        if not {"participant", "session", "data", "model"} <= said.keys():
            raise Away("it answered a join with something else: is it an edgemeta gateway?")
        run = read_joined(said, self._profile.threads)
        self._tasks.check_memory(run)  # before anything of the network's size is made
        another = who.session not in (None, run.session)  # a session is one device's in one run
        if another:
            self._tasks.forget_run()
            self._identity = replace(who, session=None, joined=None, personal=None, adaptation=None)
        self._tasks.data(run)  # what is wrong with the data is said now
        self._tasks.release()
        self._keep(session=run.session, joined={key: value for key, value in said.items() if key != "session"})
        self._run, self._known = run, True
        text = f"joined as participant {run.participant}"
        if who.partition_id not in (None, run.participant):
            text += f", as participant {who.partition_id} was taken; the data is part {who.partition_id} all the same"
        return Done(Kind.JOINED, text + "; it is another run, what was begun for the last one is dropped" * another)

    def _ask(self, run: Joined, wait_s: float) -> Done:
        answer = self._call("GET", f"/v1/work?wait={wait_s:g}", wait_s=wait_s, into=self._state.work)
        if answer.status == 410 and answer.refusal:
            return self._over(run)
        if answer.status == 204:
            self._failures = 0
            self._personalise_newest()
            self._tasks.release()
            asked = min(answer.retry_after_s or 1.0, LONGEST_ASKED_S)
            pause = max(asked, self._profile.poll_s) * self._rng.uniform(1, 1.25)
            self._not_before = self._clock() + pause
            return Done(Kind.IDLE, "nothing to do", pause)
        self._good(answer)
        self._tasks.ends_in(answer.seconds_left)
        task = self._tasks.current(run)
        if task is None:
            self._known = False  # join again to learn what run this is
            raise Away("it sent a task that does not fit what it said of the run")
        what = "training" if task.work.kind is Stage.TRAIN else "evaluation"
        return Done(Kind.TASK, f"{what} of round {task.work.round} has come")

    def _deliver(self, run: Joined, task: Task) -> Done:
        train = task.work.kind is Stage.TRAIN
        work = task.work
        what = "update" if train else "evaluation"
        body = self._state.update if train else self._state.scores.read_bytes()
        answer = self._call("POST", f"/v1/rounds/{work.round}/{what}", body=body)
        if answer.status in NOT_WANTED and answer.refusal:
            self._tasks.drop()
            text = f"the gateway does not want the {what} of round {work.round}: {': '.join(answer.refusal)}"
            # What came too late is no trouble, but a refused one would be made the same again.
            return Done(Kind.DISCARDED, text) if answer.status in (409, 410) else self._later(Kind.DISCARDED, text)
        if self._good(answer).json().get("accepted") is not True:  # of a network's log-in page, say
            raise Away("it did not say that it accepted what it was sent")
        self._failures = 0
        self._tasks.done()
        if not train:
            self._keep(adaptation={"evaluation": asdict(work.evaluation), "batch_size": work.recipe.batch_size})
            self._personalise(run, task.vectors, work.round)
        return Done(Kind.DELIVERED, f"delivered the {what} of round {work.round}")

    def _tell_diverged(self) -> None:
        """Say that the model of the task's round diverges here; whatever becomes of it, the task is dropped."""
        task = self._tasks.current(self._run) if self._run else None
        if task is not None and self._known:
            try:
                self._call("POST", f"/v1/rounds/{task.work.round}/diverged", body=b"{}")
            except (Away, StorageError) as error:
                log.warning("the gateway was not told that training diverges: %s", error)

    def _over(self, run: Joined) -> Done:
        if self._identity.personal is None or self._identity.personal != run.run.last_round:
            self._fetch_model()
            if not self._personalise_newest():
                raise Away("it sent a model that does not fit what it said of the run")
        self._not_before = self._clock() + LONGEST_S
        return Done(Kind.OVER, f"the run is over; this device's model is {self._state.personal}", LONGEST_S)

    def _personalise_newest(self, again: bool = False) -> bool:
        """Adapt the newest global model here, if it is newer than the last or `again`; say whether there is one."""
        found, last = newest(self._state, self._run) if self._run else None, self._identity.personal
        if self._run and found and (again or last is None or found[1] > last):
            self._personalise(self._run, *found)
        return found is not None

    def _personalise(self, run: Joined, vectors: Mapping[str, Vector], number: int) -> None:
        how = settings_of(self._identity.adaptation)
        personalise(self._state, run, vectors, number, self._tasks.data(run), how)
        self._tasks.release()
        self._personal = self._held = None
        self._keep(personal=number)

    def _fetch_model(self) -> None:
        if self._run is None:
            raise Away("this device has not joined")
        self._good(self._call("GET", "/v1/model", into=self._state.model))

    def _call(self, method: str, path: str, **how: Any) -> Answer:
        """Ask as the participant that this device is; raises Away when the gateway does not know it (any more)."""
        assert self._run is not None
        most = most_task_bytes(self._run.network)
        answer = self._gateway.call(method, path, session=self._run.session, max_bytes=most, **how)
        if answer.status == 401:
            self._known = False
            raise Away("it does not know this device's session: joining again")
        return answer

    def _good(self, answer: Answer) -> Answer:
        if answer.status != 200:
            self._not_before = self._clock() + min(answer.retry_after_s or 0.0, LONGEST_ASKED_S)
            raise Away(f"it answered {answer.status} {': '.join(answer.refusal or ())}".rstrip())
        return answer

    def _later(self, kind: Kind, text: str) -> Done:
        """Let nothing be tried for a while, longer each time, and say why."""
        longest = min(FIRST_S * 2.0 ** min(self._failures, 30), LONGEST_S)
        self._failures += 1
        now = self._clock()
        self._not_before = max(self._not_before, now + longest * self._rng.uniform(0.5, 1))
        return Done(kind, text, self._not_before - now)

    def _keep(self, **facts: Any) -> None:
        """Remember facts over a power cut; costs nothing when they are known."""
        identity = replace(self._identity, **facts)
        if identity != self._identity:
            self._state.save_identity(identity)
            self._identity = identity
