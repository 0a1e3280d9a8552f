"""A device: it asks the gateway for work, trains on its own data, and keeps a model that is adapted to it."""

import json
import logging
import math
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemeta.config import EvaluationConfig, PhaseConfig, record_from
from edgemeta.errors import ConfigError, DataError, DivergedError, InputError, ModelFileError, StorageError
from edgemeta.fed.client import finish, local_steps
from edgemeta.fed.messages import Work, encode_evaluation, encode_update, read_work
from edgemeta.fed.own import Source, own_part
from edgemeta.fed.participants import Participant
from edgemeta.fed.private import load_private, save_private
from edgemeta.fed.streams import Stream, generator
from edgemeta.meta import LocalState, TrainedModel, adapt, begin, evaluate, load_model, steps_in
from edgemeta.net.calls import Answer, Away, Gateway
from edgemeta.net.joined import Joined, read_joined
from edgemeta.net.state import DeviceState
from edgemeta.nn import Vector
from edgemeta.nn.files import MAX_HEADER_BYTES, encode_tensors, read_tensors, save_model
from edgemeta.storage import write_atomic

log = logging.getLogger("edgemeta")

PROTOCOL = 1
FIRST_S, LONGEST_S = 0.25, 60.0  # between tries while the gateway is away: doubled each time, drawn from the upper half
LONGEST_ASKED_S = 600.0  # that a gateway may send a device away for
SAVE_EVERY_S = 30.0  # local steps that a power cut may cost, against wear of the card: a state is the model's size
UNWANTED = (409, 410, 413, 422)  # answers to a result that trying again would not change


@dataclass(frozen=True)
class Done:
    """What a call of `Device.step` did, `kind` for a program and the text, str(), for a person.

    kind: "joined", "task", "trained", "evaluated", "delivered", "discarded", "idle" (nothing to do), "over",
    "away" (the gateway is), "storage" (a full disk, say), "diverged", "waiting" (it is too early to try again).
    wait_s: seconds until another call can do something.
    """

    kind: str
    text: str
    wait_s: float = 0.0

    def __str__(self) -> str:
        return self.text


class Device:
    """One device and its state directory, for one process at a time.

    server: the gateway's URL. data: a SPEC (a folder is read again for each task, so it may grow), arrays (x, y) or
    ((x_train, y_train), (x_test, y_test)) whose integer labels index the run's classes, or a function that returns
    either. name: what the gateway knows this device by; the host's name, when None. partition_id: take this part of the
    data, as the run cuts it. rng: draws the jitter between tries. Raises ConfigError for a malformed URL, StorageError
    when the state directory cannot be written or another process uses it.
    """

    def __init__(
        self,
        server: str,
        data: Source,
        state: str | Path = "edgemeta-state",
        name: str | None = None,
        partition_id: int | None = None,
        *,
        rng: np.random.Generator | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = Gateway(server)
        self._source, self._partition_id = data, partition_id
        self._rng, self._clock = rng or np.random.default_rng(), clock
        self._state = DeviceState(Path(state))
        self._not_before = self._saved_at = -math.inf
        self._failures = 0
        self._clean = True  # no local step was interrupted half way
        self._work: tuple[Work, Vector] | None = None
        self._local: LocalState | None = None
        self._cut: Participant | None = None
        self._loaded: Participant | None = None
        self._personal: TrainedModel | None = None
        self._joined: Joined | None = None
        try:
            self._identity = self._identify(server, name)
        except BaseException:
            self._state.close()
            raise

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Keep the local steps done so far, and let another process use the state directory."""
        try:
            if self._work and self._local and self._clean and self._local.step:
                self._state.save_local(self._work[0], self._local)
        except StorageError as error:
            log.warning("the last local steps are lost: %s", error)
        finally:
            self._work = self._local = None
            self._gateway.close()
            self._state.close()

    def step(self, budget_s: float = 5.0, *, wait_s: float = 0.0) -> Done:
        """Do one exchange with the gateway, or local steps until the budget is used, and return what was done.

        budget_s: seconds; looked at between two local steps, so one is always done. wait_s: for how long the gateway
        may hold back its answer when there is no work. Never raises because the network or the gateway is away, or the
        disk is full. Raises ConfigError when the gateway will not have this device, DataError for its own data.
        """
        left = self._not_before - self._clock()
        if left > 0:
            return Done("waiting", f"waiting {left:.1f} s before the next try", left)
        try:
            return self._next(budget_s, wait_s)
        except Away as error:
            return self._later("away", f"gateway away: {error}")
        except StorageError as error:
            return self._later("storage", str(error))
        except DivergedError as error:
            self._drop_task()
            return self._later("diverged", str(error))
        except InputError:
            self._later("", "")  # a caller that goes on all the same does not hammer the gateway
            raise

    def predict(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities (classes,) of one image (H, W, C), or (B, classes) of a batch; needs no gateway.

        With the personalised model; before there is one, with the newest global model that has come. Raises DataError
        when none has come yet, InputError for an image of another shape.
        """
        model = self._model()
        image = np.asarray(image)
        probabilities = model.predict(image)
        return probabilities[0] if image.ndim == len(model.network.input_shape) else probabilities

    def adapt(self) -> None:
        """Make the personalised model anew, from the latest global one and this device's data as it is now.

        When the gateway is away, from the newest model that has come. Raises DataError when there is none.
        """
        try:
            self._fetch_model()
        except (Away, StorageError) as error:
            log.warning("adapting the newest model here: %s", error)
        newest = self._newest()
        if newest is None:
            raise DataError("no model has come from the gateway yet: call step() until there is a task")
        self._personalise(*newest)
        self._loaded = None

    # What a step does

    def _next(self, budget_s: float, wait_s: float) -> Done:
        state, run = self._state, self._run()
        if run is not None and (task := self._task(run)):
            work, theta = task
            result = state.update if work.kind == "train" else state.scores
            if not result.exists():
                return self._train(run, work, theta, budget_s) if work.kind == "train" else self._evaluate(run, *task)
            if self._identity.get("session"):
                return self._deliver(run, work, theta, result)
        if run is None or not self._identity.get("session"):
            return self._join()
        return self._ask(run, wait_s)

    def _join(self) -> Done:
        known = self._identity
        asked = {"name": known["name"], "version": PROTOCOL, "key": known["key"]}
        if self._partition_id is not None:
            asked["partition_id"] = self._partition_id
        answer = self._gateway.call("POST", "/v1/join", body=json.dumps(asked).encode())
        if answer.status in (409, 422, 426):
            reason, detail = answer.reason
            raise ConfigError(f"the gateway does not let '{known['name']}' join: {reason}: {detail}")
        said = self._good(answer).json()
        if not {"participant", "session", "data", "model"} <= said.keys():
            raise Away("it answered a join with something else: is it an edgemeta gateway?")
        run, before = read_joined(said), known.get("joined")
        told = {key: value for key, value in said.items() if key != "session"}
        another = before is not None and before != told
        if another:
            self._forget_run()
        self._joined, self._cut = run, None
        self._data(run)  # what is wrong with the data is said now
        self._loaded = None
        kept = {key: value for key, value in known.items() if key not in ("personal", "adaptation") or not another}
        self._keep(kept | {"session": run.session, "joined": told})
        text = f"joined as participant {run.participant}" + (" of another run: what was begun is dropped" * another)
        return Done("joined", text)

    def _ask(self, run: Joined, wait_s: float) -> Done:
        state = self._state
        most = MAX_HEADER_BYTES + 8 + 4 * run.network.layout.size
        path = f"/v1/work?wait={wait_s:g}"
        answer = self._call("GET", path, into=state.work, max_bytes=most, wait_s=wait_s)
        if answer.status == 410:
            return self._over(run)
        if answer.status == 204:
            newest = self._newest()
            if newest and newest[1] > self._identity.get("personal", -1):
                self._personalise(*newest)
                self._loaded = None
            pause = min(answer.retry_after_s or 1.0, LONGEST_ASKED_S) * self._rng.uniform(1, 1.25)
            self._not_before = self._clock() + pause
            return Done("idle", "nothing to do", pause)
        self._good(answer)
        task = self._task(run)
        if task is None:
            raise Away("it sent a task that cannot be used")
        work = task[0]
        return Done("task", f"{'training' if work.kind == 'train' else 'evaluation'} of round {work.round} has come")

    def _train(self, run: Joined, work: Work, theta: Vector, budget_s: float) -> Done:
        network, state = run.network, self._state
        data = self._data(run).train
        if self._local is None:
            private = load_private(state.path, work.counted)
            kept = state.load_local(work)
            self._local = kept or begin(network, work.recipe, {"theta": theta}, private)
        local, started = self._local, self._clock()
        total = steps_in(work.recipe, data.size)
        self._clean = False
        for _ in local_steps(network, work.recipe, local, data, work.draw):
            self._clean = True
            now = self._clock()
            if local.step < total and now - self._saved_at >= SAVE_EVERY_S and now - started >= min(budget_s, SAVE_EVERY_S):
                state.save_local(work, local)
                self._saved_at = now
            if local.step < total and now - started >= budget_s:
                return Done("trained", f"trained {local.step} of {total} steps of round {work.round}")
            self._clean = False
        self._clean = True
        update = finish(work.recipe, {"theta": theta}, local, data.size)
        save_private(state.path, work.round, work.counted, update.private)
        write_atomic(state.update, encode_update(update, work.round, work.layout))
        self._local = self._loaded = None
        return Done("trained", f"trained {total} of {total} steps of round {work.round} (loss {update.loss:.3g})")

    def _evaluate(self, run: Joined, work: Work, theta: Vector) -> Done:
        self._keep(self._identity | {"adaptation": [asdict(work.evaluation), work.recipe.batch_size]})
        data = self._data(run)
        scores = evaluate(
            *(run.network, theta, data.train, data.test),
            *(work.evaluation, work.recipe.batch_size, work.evaluation_rng()),
        )
        write_atomic(self._state.scores, [encode_evaluation(scores)])
        shown = "accuracy" if "accuracy" in scores["before"] else "loss"
        before, after = scores["before"][shown], scores["after"][shown]
        return Done("evaluated", f"round {work.round}: {shown} {before:.3f}, adapted {after:.3f}")

    def _deliver(self, run: Joined, work: Work, theta: Vector, result: Path) -> Done:
        what = "update" if work.kind == "train" else "evaluation"
        body = result if work.kind == "train" else result.read_bytes()
        answer = self._call("POST", f"/v1/rounds/{work.round}/{what}", body=body)
        if answer.status in UNWANTED:
            reason, detail = answer.reason
            self._drop_task()
            done = Done("discarded", f"the gateway does not want the {what} of round {work.round}: {reason}: {detail}")
            return done if answer.status in (409, 410) else self._later(done.kind, done.text)
        self._good(answer)
        theta = np.array(theta)  # the file goes
        self._work = self._local = None
        self._state.task_done()
        if work.kind == "evaluate":
            self._personalise(theta, work.round)
        self._loaded = None
        return Done("delivered", f"delivered the {what} of round {work.round}")

    def _over(self, run: Joined) -> Done:
        personal = self._identity.get("personal")
        if personal is None or personal != run.last_round:
            self._fetch_model()
            newest = self._newest()
            if newest is None:
                raise Away("it sent a model that cannot be used")
            self._personalise(*newest)
            self._loaded = None
        self._not_before = self._clock() + LONGEST_S
        return Done("over", f"the run is over; this device's model is {self._state.personal}", LONGEST_S)

    # The gateway's answers

    def _call(self, method: str, path: str, **how: Any) -> Answer:
        """Make a request as the participant that this device is; raises Away when the gateway does not know it."""
        answer = self._gateway.call(method, path, session=self._identity["session"], **how)
        if answer.status == 401:
            self._keep({key: value for key, value in self._identity.items() if key != "session"})
            raise Away("it does not know this device's session; joining again")
        return answer

    def _good(self, answer: Answer) -> Answer:
        if answer.status != 200:
            reason, detail = answer.reason
            self._not_before = self._clock() + min(answer.retry_after_s or 0.0, LONGEST_ASKED_S)
            raise Away(f"it answered {answer.status}: {reason}{': ' * bool(detail)}{detail}")
        self._failures = 0
        return answer

    def _later(self, kind: str, text: str) -> Done:
        """Say what went wrong, and let nothing be tried for a while: longer each time."""
        longest = min(FIRST_S * 2.0 ** min(self._failures, 30), LONGEST_S)
        self._failures += 1
        now = self._clock()
        self._not_before = max(self._not_before, now + longest * self._rng.uniform(0.5, 1))
        return Done(kind, text, self._not_before - now)

    def _fetch_model(self) -> None:
        run = self._run()
        if run is None:
            raise Away("this device has not joined yet")
        most = MAX_HEADER_BYTES + 8 + 4 * run.network.layout.size
        self._good(self._call("GET", "/v1/model", into=self._state.model, max_bytes=most))
