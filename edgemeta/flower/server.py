"""A ServerApp: Flower's messages feed the coordinator, as HTTP's do on a gateway, and carry what it asks."""

import logging
import time
from pathlib import Path
from typing import Any

from edgemeta import api
from edgemeta.config import RunConfig
from edgemeta.data.fingerprint import fingerprint
from edgemeta.errors import ConfigError, InputError, StorageError
from edgemeta.fed.coordinator import Coordinator
from edgemeta.fed.directory import RunDirectory, write_parts
from edgemeta.fed.lines import round_line
from edgemeta.fed.messages import Work
from edgemeta.fed.plan import Plan
from edgemeta.fed.progress import Stage
from edgemeta.fed.refusal import Refused
from edgemeta.flower.records import said_of, task_message, to_arrays, update_file
from edgemeta.meta.learners import keeps_head, sizes
from edgemeta.nn import Model
from edgemeta.nn.files import load_parameters

log = logging.getLogger("edgemeta")

PAUSE_S = 0.25  # between two looks: a message takes longer than that on any of Flower's ways
LOOK_S = 60.0  # after which a node that cannot take part is asked again
Asked = Work | None  # what a message is about; None: it looks whether a node can take part


def run(grid: Any, context: Any, source: str | Path, model: Model | None, init: str | Path | None) -> None:
    """Run, or go on with, what a configuration says, until it is over; Flower says what is raised."""
    logging.basicConfig(format="%(message)s")  # at its own level, or httpx tells of each request
    log.setLevel(logging.INFO)
    out = context.run_config.get("out")
    if not isinstance(out, str):
        raise ConfigError("the run configuration has no 'out': give a folder, as in out = \"/srv/run\"")
    config, network, directory = opened(Path(out), source, model, init)
    try:
        theta = api.initial(network, config.seed, init, config.model.names)
        coordinator = Federated(
            *(Plan(config), network, theta, directory, (), time.monotonic()), name="participant {}".format
        )
        Nodes(grid, coordinator).serve()
    finally:
        directory.close()


def opened(
    out: Path, source: str | Path, model: Model | None, init: str | Path | None
) -> tuple[RunConfig, Model, RunDirectory]:
    """Return a run's resolved configuration, its network, and its directory."""
    settings = api.config_of(source)
    if model is None:
        settings, model = api.own_network(settings, init, out / api.MODEL_FILE)
    data = api.gateway_data(settings)
    config, network = api.prepare_gateway(settings, data, model)
    seen = data and fingerprint(data)
    return config, network, RunDirectory(out, config, data=seen, elsewhere=data is None)


def initial(source: str | Path, model: Model | None, init: str | Path | None) -> tuple[Any, Any]:
    """Return where a run starts and what nodes are told of it, for a strategy of Flower's.

    Raises ConfigError unless one vector travels, to a mean.
    """
    from flwr.app import ConfigRecord

    settings = api.config_of(source)
    if model is None:
        settings, model = api.own_network(settings, init)
    config, network = api.prepare_gateway(settings, api.gateway_data(settings), model)
    for phase in config.phases:
        more = [*sizes(network, phase.algorithm)][1:]
        if more or keeps_head(phase.algorithm):
            what = f"sends {', '.join(more)} beside theta" if more else "keeps the head of each node there"
            raise ConfigError(
                f"algorithm '{phase.algorithm}' {what}, and a strategy of Flower's averages whole models: "
                "take another, or server_app"
            )
    theta = api.initial(network, config.seed, init, config.model.names)
    return to_arrays({"theta": theta}), ConfigRecord(dict(said_of(config, network)))


class Federated(Coordinator):
    """A run whose participants are nodes: what mends something is said in Flower's words."""

    gone = "a node that is started with the partition-id of one of them takes its place"
    released = "a node that is started anew with its partition-id lets it take part again"


class Nodes:
    """The nodes of a federation as the participants of a run. by_number: participant -> node."""

    def __init__(self, grid: Any, coordinator: Coordinator) -> None:
        self.grid, self.coordinator = grid, coordinator
        self.by_number: dict[int, int] = {}
        self.said = said_of(coordinator.plan.config, coordinator.model)
        self._looks: dict[int, float] = {}  # node -> when it is to be looked at, unless it takes part
        self._open: dict[str, tuple[int, Asked]] = {}  # message -> its node, and what it is about
        self._last: dict[int, tuple[Work, int]] = {}  # participant -> its last task, and at which attempt
        self._arrays: tuple[Any, Any] = (None, None)

    def serve(self) -> None:
        """Bring tasks to nodes and replies to the coordinator, until the run is over."""
        coordinator, shown = self.coordinator, self.coordinator.progress.history
        while not coordinator.finished:
            now = time.monotonic()
            self._look(set(self.grid.get_node_ids()), now)
            self._ask(now)
            for reply in self.grid.pull_messages([*self._open]) if self._open else ():
                self._take(reply, time.monotonic())
            coordinator.tick(time.monotonic())
            for record in coordinator.directory.history(after=shown):
                log.info("%s", round_line(record, coordinator.plan.last_round))
            shown = coordinator.progress.history
            time.sleep(PAUSE_S)

    def _look(self, nodes: set[int], now: float) -> None:
        """Ask new nodes whether they can take part, and wait no longer for those that have gone."""
        for participant, node in [*self.by_number.items()]:
            if node not in nodes:
                log.warning("participant %d: its node %d has gone", participant, node)
                del self.by_number[participant]
        gone = self.coordinator.roster - self.by_number.keys()
        self.coordinator.members.away |= gone  # so the next rounds do without them
        self.coordinator.standing.out |= gone
        self._open = {message: about for message, about in self._open.items() if about[0] in nodes}
        due = nodes - {*self.by_number.values()} - {node for node, when in self._looks.items() if now < when}
        self._looks |= dict.fromkeys(due, now + LOOK_S)
        self._send("query", [(node, None) for node in sorted(due)], now)

    def _ask(self, now: float) -> None:
        """Send participants the tasks that they have not been sent yet."""
        tasks: list[tuple[int, Asked]] = []
        attempt = self.coordinator.progress.attempt
        for participant, node in self.by_number.items():
            work = self.coordinator.work(participant, now)
            if work and self._last.get(participant) != (work, attempt) and (node, work) not in self._open.values():
                self._last[participant] = work, attempt
                tasks.append((node, work))
        stage = self.coordinator.progress.stage
        self._send("train" if stage is Stage.TRAIN else "evaluate", tasks, now)

    def _send(self, kind: str, tasks: list[tuple[int, Asked]], now: float) -> None:
        messages = [
            task_message(
                *(node, kind, self.said, work, self._vectors() if work else None),
                ttl_s=max(self.coordinator.seconds_left(now), 1.0) if work else LOOK_S,
            )
            for node, work in tasks
        ]
        sent = self.grid.push_messages(messages) if messages else ()
        self._open |= {message: task for message, task in zip(sent, tasks, strict=True) if message}

    def _vectors(self) -> Any:
        """Return what goes out with the open stage's tasks, made once."""
        coordinator, progress = self.coordinator, self.coordinator.progress
        if self._arrays[0] != (progress.round, progress.stage, progress.model):
            theta = load_parameters(coordinator.model_path).theta[: coordinator.sizes["theta"]]
            vectors = {"theta": theta, **coordinator.beside}
            self._arrays = (progress.round, progress.stage, progress.model), to_arrays(vectors)
        return self._arrays[1]

    def _take(self, reply: Any, now: float) -> None:
        """Take a reply: what does not count is logged, and nobody waits for its sender."""
        node, work = self._open.pop(reply.metadata.reply_to_message_id)
        refused = reply.content.get("refused") if reply.has_content() else {"said": reply.error.reason}
        who = f"node {node}" if work is None else f"participant {work.participant}"
        try:
            if refused is not None:
                if work and refused.get("diverged"):
                    self.coordinator.diverged(work.participant, work.round, now)
                raise InputError(str(refused["said"]))
            if work is None:
                self._join(node, reply.content["node"])
            elif work.kind is Stage.TRAIN:
                file = self.coordinator.directory.path / "incoming.safetensors"
                write_parts(file, update_file(reply.content))
                self.coordinator.deliver(work.participant, work.round, file, now)
            else:
                body = reply.content["scores"]["body"]
                if not isinstance(body, bytes):
                    raise InputError(f"scores as {type(body).__name__}: expected bytes")
                self.coordinator.deliver_evaluation(work.participant, work.round, body, now)
        except StorageError:  # this machine's fault: the next start goes on from here
            raise
        except (InputError, Refused, LookupError, TypeError, ValueError, AttributeError) as error:
            log.warning("%s: %s", who, error)
            progress = self.coordinator.progress
            if work and (work.kind, work.round) == (progress.stage, progress.round):  # else nobody waits for it
                self.coordinator.standing.out.add(work.participant)

    def _join(self, node: int, said: Any) -> None:
        participant, plan = int(said["participant"]), self.coordinator.plan
        other = self.by_number.get(participant)
        if participant < 0 or not (plan.is_open or participant < plan.config.data.participants):
            raise InputError(f"its partition-id is {participant}, and {plan.config.data.participants} take part")
        if other is not None:
            raise InputError(f"its partition-id is {participant}, which node {other} has: give each its own")
        log.info("node %d takes part as participant %d", node, participant)
        self.by_number[participant] = node
        self._last.pop(participant, None)
        if said["own"]:
            self.coordinator.own.add(participant)
        self.coordinator.join(participant)
        self.coordinator.standing.out.discard(participant)
        if participant in self.coordinator.standing.held:
            self.coordinator.release(participant)
