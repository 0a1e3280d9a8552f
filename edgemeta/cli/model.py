"""`edgemeta evaluate`, `adapt` and `predict`: what is done with a model file."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgemeta.cli import options

MODEL = click.argument("model", type=click.Path(path_type=Path))
ADAPTATION = click.option(
    "--adaptation",
    metavar="A",
    help="sgd, head, known or prototypes. [default: sgd; prototypes for a model without classes]",
)
STEPS = "Steps of SGD. [default: 5 for sgd and head, 0 for known and prototypes]"


@click.command()
@MODEL
@click.option("--data", "spec", required=True, metavar="SPEC", help="The data: adapted on its training part.")
@ADAPTATION
@click.option("--adapt-steps", type=click.IntRange(min=0), metavar="K", help=STEPS)
@options.threads
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    model: Path, spec: str, adaptation: str | None, adapt_steps: int | None, threads: int, as_json: bool
) -> None:
    """Score MODEL on a test set, before and after it is adapted to the training set beside it."""
    import numpy as np

    from edgemeta.cli.report import bar
    from edgemeta.config import EvaluationConfig
    from edgemeta.meta import checked
    from edgemeta.meta import evaluate as score_both

    settings = EvaluationConfig(adaptation=adaptation, adapt_steps=adapt_steps)
    with bar():
        trained, train, test, _ = _open(model, spec, threads)
        steps = checked(settings, trained.network).steps if adapt_steps is None else adapt_steps
        scores = score_both(trained.network, trained.theta, train, test, settings, 32, np.random.default_rng(0))
    if as_json:
        click.echo(json.dumps({key: scores[key] for key in ("samples", "before", "after")}))
        return
    click.echo(f"{scores['samples']} test samples")
    click.echo(f"before adaptation: {_scores(scores['before'])}")
    click.echo(f"{f'after {steps} steps:' if steps else 'after:':<19}{_scores(scores['after'])}")


@click.command()
@MODEL
@click.option("--data", "spec", required=True, metavar="SPEC", help="The new participant's own data.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="MODEL2", help="The adapted model.")
@ADAPTATION
@click.option("--steps", type=click.IntRange(min=0), metavar="K", help=STEPS)
@click.option(
    "--lr", type=click.FloatRange(min=0, min_open=True), default=0.05, show_default=True, metavar="F", help="Rate."
)
@click.option(
    "--reject",
    type=click.FloatRange(0, 0.5),
    default=0.0,
    metavar="F",
    help="The share of its own pictures that it may call none of these. [default: 0, it never does]",
)
@options.threads
def adapt(
    model: Path, spec: str, out: Path, adaptation: str | None, steps: int | None, lr: float, reject: float, threads: int
) -> None:
    """Adapt MODEL to one's own training data, and save the personal model."""
    import numpy as np

    from edgemeta.cli.report import bar
    from edgemeta.errors import DivergedError
    from edgemeta.meta import LOSS_CEILING, adaptation_of, scores_of

    with bar():
        trained, train, test, names = _open(model, spec, threads)
        personal = trained.adapt(train.x, np.array(names)[train.y], steps, adaptation=adaptation, lr=lr, reject=reject)
        before, after = (scores_of(m, test, names) for m in (trained, personal))
    steps = adaptation_of(adaptation, trained.network).steps if steps is None else steps
    if after is None or after["loss"] >= LOSS_CEILING:
        raise DivergedError(f"adaptation diverged after {steps} steps: lower --lr ({lr:g}); nothing was written")
    personal.save(out)
    click.echo(f"{train.size} training samples, {steps} steps; scored on {test.size} test samples")
    click.echo(f"before adaptation: {_scores(before)}")
    click.echo(f"after:             {_scores(after)}")
    click.echo(f"model: {out}")


@click.command()
@MODEL
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top", type=click.IntRange(min=1), default=1, show_default=True, metavar="K", help="Best K classes.")
@options.threads
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def predict(model: Path, images: tuple[Path, ...], top: int, threads: int, as_json: bool) -> None:
    """Say what MODEL sees in each IMAGE; files that are no pictures are named, and the exit status is then 2."""
    import numpy as np

    from edgemeta.cli.report import bar
    from edgemeta.data import read_picture
    from edgemeta.errors import DataError
    from edgemeta.lengthy import lengthy
    from edgemeta.meta import load_model

    trained = load_model(model, threads)
    shape = trained.network.input_shape
    if len(shape) != 3:
        raise DataError(f"{model} takes samples of shape {shape}: expected a model of pictures (H, W, C)")
    found: dict[str, list[dict[str, Any]]] = {}
    unread = 0
    with bar():
        for image in lengthy("looking at pictures", images):
            try:
                picture = read_picture(image, shape)
            except DataError as error:
                click.echo(f"Error: {error}", err=True)
                unread += 1
                continue
            chances, unlike = trained.predict(picture)[0], bool(trained.unlike(picture)[0])
            best = np.argsort(-chances, kind="stable")[:top].tolist()
            found[str(image)] = [
                {"class": trained.classes[i], "probability": round(float(chances[i]), 6)}
                | ({"unlike": True} if unlike else {})
                for i in best
            ]
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    for name, guesses in found.items() if not as_json else ():
        none = "none of these; the nearest: " if "unlike" in guesses[0] else ""
        click.echo(f"{name}: {none}" + ", ".join(f"{g['class']} {100 * g['probability']:.1f}%" for g in guesses))
    if unread:
        sys.exit(DataError.exit_status)


def _open(path: Path, spec: str, threads: int) -> tuple[Any, Any, Any, tuple[str, ...]]:
    """Return the model, the training and test samples of `spec`, and the names of the classes as their labels count.

    They are the model's, or, where it has none yet, those of the data.
    """
    from edgemeta.data import Split, open_data, with_classes
    from edgemeta.data.leftout import one_sided
    from edgemeta.meta import Samples, load_model

    trained = load_model(path, threads)
    split = open_data(spec, shape=trained.network.input_shape)
    names = split.train.classes if trained.network.embeds else trained.classes
    known = Split(with_classes(split.train, names), with_classes(split.test, names))
    for line in one_sided([known]):
        click.echo(line, err=True)
    return trained, Samples(*known.train.load()), Samples(*known.test.load()), names


def _scores(scores: Mapping[str, float] | None) -> str:
    if scores is None:
        return "no classes yet"
    accuracy = f"accuracy {100 * scores['accuracy']:.1f}%, " if "accuracy" in scores else ""
    return f"{accuracy}loss {scores['loss']:.4f}"
