"""The scores of every participant, one by one: the final model adapted in every way, or what each reaches alone.

Each participant's are kept in a file of its own, so that a comparison goes on where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edgemeta import disk
from edgemeta.api import Prepared
from edgemeta.compare.rows import FORMAT, Cell, Few, Scores, kept
from edgemeta.config import EvaluationConfig
from edgemeta.errors import ConfigError, DivergedError
from edgemeta.fed.comparison import one_alone
from edgemeta.fed.plan import Plan
from edgemeta.fed.streams import Stream, generator
from edgemeta.jobs import processes
from edgemeta.meta import evaluate
from edgemeta.meta.adaptations import ADAPTATIONS, checked, usual_of
from edgemeta.meta.learner import Vectors
from edgemeta.nn import Model, Vector
from edgemeta.storage import storing, write_kept

STEPS = (1, 5, 20)
SUPPORTS = (20, 100, 500)
MOST = 30  # of those that train whose adaptations are scored: each takes seconds, and a mean needs no more


def of_each(
    work: Callable[[int], Scores], who: Sequence[int], folder: Path, jobs: int, on_each: Callable[[int, int], None]
) -> list[Scores]:
    """Return what `work` says of each of some participants, asking it only for those that `folder` has not yet.

    jobs: in so many processes. on_each: told how many are done, of how many.
    """
    with storing(folder):
        disk.make_folder(folder)
    found = {k: scores for k in who if (scores := kept(folder / f"{k:06d}.json", Scores))}
    with processes(jobs) as each:
        for scores in each(work, [k for k in who if k not in found]):
            write_kept(folder / f"{scores.participant:06d}.json", scores, FORMAT)
            found[scores.participant] = scores
            on_each(len(found), len(who))
    return [found[k] for k in who]


def scored(prepared: Prepared) -> list[int]:
    """Return whose adaptations are scored: some of those that train, evenly taken, and all new ones."""
    data = prepared.config.data
    train = len(prepared.participants) - data.held_out
    return [k * train // min(train, MOST) for k in range(min(train, MOST))] + list(range(train, train + data.held_out))


def adapted(
    prepared: Prepared, theta: Vector, beside: Sequence[Vectors], ways: Mapping[str, EvaluationConfig], k: int
) -> Scores:
    """Return participant k's scores of a model as it is, adapted in the first of the ways, and over all their grids.

    beside: of each participant, what was trained beside theta; ways: by the name of the adaptation.

    It draws what the run's last evaluation drew, so that the first way's scores are the same as those of the run.
    """
    plan, participant, cells, few = Plan(prepared.config), prepared.participants[k], list[Cell](), list[Few]()
    batch, last = prepared.config.phases[-1].batch_size, plan.last_round or 0
    first = None
    for name, way in ways.items():
        rng = generator(prepared.config.seed, Stream.EVALUATION, last, k)
        found = evaluate(prepared.network, theta, participant.train, participant.test, way, batch, rng, beside[k])
        cells += [Cell(name, cell["steps"], cell["support"], cell["accuracy"]) for cell in found["grid"]]
        few += [Few(name, one["ways"], one["shots"], one["accuracy"]) for one in found.get("episodes", ())]
        first = first or found
    assert first is not None
    before, after = first["before"], first["after"]["accuracy"]
    sizes = participant.train.size, participant.test.size
    return Scores(k, *sizes, before["accuracy"] if before else None, after, cells, few)


def alone(prepared: Prepared, k: int) -> Scores:
    """Return participant k's score after training alone for as long as the run trains it."""
    config, network, participant = prepared.config, prepared.network, prepared.participants[k]
    try:
        found, gradients = one_alone(config, network, network.init(config.seed), participant, k)
    except DivergedError as error:
        raise DivergedError(f"participant {k}, alone: {error}") from None
    return Scores(k, participant.train.size, participant.test.size, None, found["accuracy"], gradients=gradients)


def ways_of(settings: EvaluationConfig, model: Model) -> dict[str, EvaluationConfig]:
    """Return in which ways a final model is adapted: as the run says, and in every other that it can be, over a grid.

    By the adaptation's name, the run's own first. No step at all is asked for where that makes a model of its own.
    """
    own = settings.adaptation or usual_of(model)
    found = {own: settings}
    for name, row in ADAPTATIONS.items():
        way = replace(settings, adaptation=name, adapt_steps=row.steps, reject=0.0) if name != own else settings
        steps = (0,) if row.stepless else STEPS if row.steps else (0, *STEPS)
        way = replace(way, grid=tuple((count, support) for support in SUPPORTS for count in steps))
        with suppress(ConfigError):  # it is not for this model
            checked(way, model)
            found[name] = way
    return found
