"""A device: it asks the gateway for work, trains on its own data, and keeps a model that is adapted to it."""

import hashlib
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta.device import joined
from edgemeta.device.calls import Answer, Away, Gateway
from edgemeta.device.done import Done, Kind
from edgemeta.device.guard import Guard, NoMemory
from edgemeta.device.joined import NOWHERE, Joined, check_let_in, joined_before, joins_by, read_joined
from edgemeta.device.learned import Learning
from edgemeta.device.own import Source
from edgemeta.device.pace import LONGEST_S, Pace, trouble
from edgemeta.device.personal import Global, InUse, newest, own_head, personalise, settings_of
from edgemeta.device.profile import Profile, read_profile
from edgemeta.device.state import DeviceState
from edgemeta.device.tasks import Task, Tasks
from edgemeta.device.taught import teachable_folder
from edgemeta.errors import DataError, DivergedError, InputError, NoDataYet, StorageError
from edgemeta.fed.description import Description
from edgemeta.fed.messages import most_task_bytes
from edgemeta.fed.progress import Stage
from edgemeta.reading import exists, read_file

log = logging.getLogger("edgemeta")

NAMES = {Stage.TRAIN: "training", Stage.EVALUATE: "evaluation"}
NOT_WANTED = (409, 410, 413, 422)  # answers to a result that sending it again would not change


class Device(Learning):
    """One device and its state directory, for one process at a time. Threads may share it: `predict` waits for nobody.

    server: the gateway's URL; join: a join file instead, which says that, this device's name, the token that proves it
    and the certificate to trust. Without both it works offline: it is taught, and predicts. data: a SPEC (a folder is
    read again for each task, so it may grow), arrays (x, y) or ((x_train, y_train), (x_test, y_test)) labelled by the
    names of the run's classes or by indices into them, or a function that returns any of these. name: what the gateway
    calls this device; the host's name, when None. partition_id: of the data, take this part under the run's partition.
    profile: a file of limits (`edgemeta.device.profile`; not its nice level, as the process is the caller's). rng:
    draws the jitter between tries. Raises ConfigError for a malformed URL, StorageError when the state cannot be
    written or is in use.
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
        joins = joins_by(server, join, name)
        self._profile = read_profile(profile) if profile is not None else Profile()
        rng, limit = rng or np.random.default_rng(), self._profile.upload_kb_s
        number = f"{rng.integers(2**64, dtype=np.uint64):016x}"
        self._gateway, self._token = Gateway(joins.url, joins.certificate, limit, number), joins.token
        self._pace = Pace(rng, clock)
        self._turn, self._closed = threading.RLock(), False  # one call at a time, but for `predict`
        self._state = DeviceState(Path(state))
        self._in_use = InUse(self._state)
        self._tasks = Tasks(self._state, data, partition_id, Guard(self._profile.memory_mb), clock)
        self._alone = joins.url == NOWHERE
        try:
            kept = self._state.identity()
            asked = replace(
                kept,
                server=kept.server if self._alone else joins.url,
                name=joins.name or name or kept.name or socket.gethostname(),
                partition_id=partition_id,
                # A newer token is used at once, so that the gateway can drop the older one.
                token=hashlib.sha256(self._token.encode()).hexdigest() if self._token else kept.token,
            )
            # Whoever moved to another gateway, or is to be another device, joins first and then sees what is of use.
            self._run = joined_before(kept, self._profile.threads) if asked == kept else None
            self._known = self._run is not None  # by the gateway, as far as we know
            folder = None if partition_id is not None else teachable_folder(data)
            self._identity = replace(asked, folder=folder)  # kept when it joins
            if self._alone and self._identity != kept:
                self._state.save_identity(self._identity)
        except BaseException:
            self._state.close()
            raise

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Keep the local steps done so far, and let another process use the state directory; waits for a step's end."""
        with self._turn:
            self._closed = True
            self._tasks.close()
            self._gateway.close()
            self._state.close()

    @property
    def place(self) -> str:
        """Who this device is, and where its gateway, as in "door-1 at https://gateway.local:8742"."""
        return f"{self._identity.name} at {self._gateway.url}"

    @property
    def training(self) -> bool:
        """Whether a local step is at work now: a signal handler that waits for its end loses nothing."""
        return self._tasks.training

    def step(self, budget_s: float = 5.0, *, wait_s: float = 0.0, wake_s: float = 0.0) -> Done:
        """Do one exchange with the gateway, or local steps until the budget is used, and return what was done.

        budget_s: seconds; looked at between two local steps, so one at least is done. wait_s: for how long the gateway
        may hold back its answer when there is no work. wake_s: for how long this device sleeps before it asks again:
        rounds do not wait for it, and what it delivers counts some rounds later. Never raises because the network or
        the gateway is away, the disk is full, there is no data yet, or data that it has joined with is away. Raises
        ConfigError when the gateway will not have it, DataError when its data does not fit, InputError when closed.
        """
        with self._turn:
            self._check_open()
            if self._alone:
                raise InputError("this device was given no gateway: make it with server=URL or join=FILE")
            if (left := self._pace.left_s) > 0:
                return Done(Kind.WAITING, f"waiting {left:.1f} s before the next try", left)
            return self._try(budget_s, wait_s, wake_s)

    def _try(self, budget_s: float, wait_s: float, wake_s: float) -> Done:
        """Do what is next, and say what went wrong where it may go well later."""
        try:
            return self._next(budget_s, wait_s, wake_s)
        except (Away, StorageError) as error:
            return self._pace.later(*trouble(error, self._gateway.url))
        except (NoMemory, MemoryError, DivergedError) as error:
            if isinstance(error, DivergedError):
                self._tell_diverged()
            self._tasks.drop()  # a later one may be smaller, or tamer
            return self._pace.later(*trouble(error, self._gateway.url))
        except DataError as error:
            self._tasks.release()  # it is looked at again
            later = self._pace.later(*trouble(error, self._gateway.url))
            if self._run or (isinstance(error, NoDataYet) and self._tasks.grows):  # it may come, or come back
                return later
            raise
        except InputError as error:
            self._pace.later(*trouble(error, self._gateway.url))  # a caller that goes on does not hammer the gateway
            raise

    def adapt(self) -> None:
        """Make the personalised model anew, from the latest global model and this device's data as it is now.

        When the gateway is away, from the newest that has come; raises DataError when there is none, and StorageError.
        """
        with self._turn:
            self._check_open()
            try:
                self._fetch_model()
            except (Away, StorageError) as error:
                log.warning("adapting the newest model that has come: %s", error)
            if not self._personalise_newest(again=True):
                raise DataError("no model has come from the gateway yet: call step() until a task has come")

    def _next(self, budget_s: float, wait_s: float, wake_s: float) -> Done:
        run, state, tasks = self._run, self._state, self._tasks
        if run is not None:
            task = tasks.current(run)
            if task is None and self._known:
                return self._ask(run, wait_s, wake_s)
            if task is not None:
                train = task.work.kind is Stage.TRAIN
                if not exists(state.update if train else state.scores):  # local work needs no gateway
                    return tasks.train(run, budget_s) if train else tasks.evaluate(run)
                if self._known:
                    return self._deliver(run, task)
        return self._join()

    def _join(self) -> Done:
        if not self._identity.key:
            self._keep(key=secrets.token_hex(16))
        who, looked = self._identity, self._look()
        answer = self._gateway.call("POST", "/v1/join", session=self._token, body=joined.asking(who))
        check_let_in(answer, who.name)
        said = joined.told(self._good(answer), "participant", "session", "data", "model")
        run = read_joined(said, self._profile.threads)
        if looked is None or looked.to_json() != run.run.to_json():
            self._tasks.check(run.run)
        if another := who.session not in (None, run.session):  # a session is one device's in one run
            self._tasks.forget_run()
            self._identity = replace(who, session=None, joined=None, personal=None, adaptation=None)
        self._keep(session=run.session, joined={key: value for key, value in said.items() if key != "session"})
        self._run, self._known = run, True
        return Done(Kind.JOINED, joined.welcome(run, who.partition_id, another=another))

    def _look(self) -> Description | None:
        """Look whether the run fits here, before a place in it is taken; None: an older gateway, which does not say."""
        answer = self._gateway.call("GET", "/v1/run", session=self._token)
        if answer.status in (404, 405):
            return None
        check_let_in(answer, self._identity.name)
        run = joined.read_description(joined.told(self._good(answer), "data", "model"), self._profile.threads)
        self._tasks.check(run)
        return run

    def _ask(self, run: Joined, wait_s: float, wake_s: float) -> Done:
        wake = f"&wake={wake_s:.3f}" if wake_s else ""
        answer = self._call("GET", f"/v1/work?wait={wait_s:g}{wake}", wait_s=wait_s, into=self._state.work)
        if answer.status == 410 and answer.refusal:
            return self._over(run)
        if answer.status == 204:
            self._pace.went_well()
            self._personalise_newest()
            self._tasks.release()
            return Done(Kind.IDLE, "nothing to do", self._pace.rest(answer.retry_after_s or 1.0, self._profile.poll_s))
        self._good(answer)
        self._tasks.ends_in(answer.seconds_left)
        task = self._tasks.current(run)
        if task is None:
            self._known = False  # join again to learn what run this is
            raise Away("it sent a task that does not fit what it said of the run")
        return Done(Kind.TASK, f"{NAMES[task.work.kind]} of round {task.work.round} has come")

    def _deliver(self, run: Joined, task: Task) -> Done:
        work, train = task.work, task.work.kind is Stage.TRAIN
        what = "update" if train else "evaluation"
        body = self._state.update if train else read_file(self._state.scores) or b""
        answer = self._call("POST", f"/v1/rounds/{work.round}/{what}", body=body)
        if answer.status in NOT_WANTED and answer.refusal:
            self._tasks.drop()
            text = f"the gateway does not want the {what} of round {work.round}: {': '.join(answer.refusal)}"
            # What came too late is no trouble, but a refused one would be made the same again.
            return Done(Kind.DISCARDED, text) if answer.status in (409, 410) else self._pace.later(Kind.DISCARDED, text)
        if self._good(answer).json().get("accepted") is not True:  # of a network's log-in page, say
            raise Away("it did not say that it accepted what it was sent")
        self._pace.went_well()
        ends = self._tasks.done(settings_of(self._identity.adaptation)[0].every, run.run.last_round)
        if not train:
            self._keep(adaptation={"evaluation": asdict(work.evaluation), "batch_size": work.recipe.batch_size})
            self._personalise(run, Global(task.vectors, work.round, own_head(self._state, work)))
        return Done(Kind.DELIVERED, f"delivered the {what} of round {work.round}", round_ends=ends)

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
        self._pace.asked(LONGEST_S)
        return Done(Kind.OVER, f"the run is over; this device's model is {self._state.personal}", LONGEST_S)

    def _personalise_newest(self, again: bool = False) -> bool:
        """Adapt the newest global model here, if it is newer than the last or `again`; say whether there is one."""
        found, last = newest(self._state, self._run) if self._run else None, self._identity.personal
        if self._run and found and (again or last is None or found.round > last):
            self._personalise(self._run, found)
        return found is not None

    def _personalise(self, run: Joined, model: Global) -> None:
        how = settings_of(self._identity.adaptation)
        personalise(self._state, run, model, self._tasks.data(run), how)
        self._tasks.release()
        self._held = None
        self._in_use.renew()
        self._keep(personal=model.round)

    def _fetch_model(self) -> None:
        if self._run is None or self._alone:
            raise Away("this device has not joined, or was given no gateway")
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
            self._pace.asked(answer.retry_after_s)
            raise Away(f"it answered {answer.status} {': '.join(answer.refusal or ())}".rstrip())
        return answer

    def _keep(self, **facts: Any) -> None:
        """Remember facts over a power cut; costs nothing when they are known."""
        identity = replace(self._identity, **facts)
        if identity != self._identity:
            self._state.save_identity(identity)
            self._identity = identity
