"""What there is to say of each learner, from its row: the list, the page and the command all take it from here."""

import inspect
import re
from dataclasses import fields
from typing import Any

from edgemeta.config import PhaseConfig
from edgemeta.errors import ConfigError
from edgemeta.meta.adaptations import ADAPTATIONS, adaptation_of
from edgemeta.meta.learners import LEARNERS, keeps_head, learner, sizes
from edgemeta.nn import Dense, Model, build
from edgemeta.nn.heads import EMBEDS

FLOAT32_BYTES = 4
SHOWN = "cnn"  # the model whose bytes and memory are said, for 32 x 32 x 3 and ten classes
INNER_STEPS = (1, 5)  # for which gradients are counted
INTRODUCTION = f"""# Methods

What `edgemeta methods NAME` says of each learner, `phases.N.algorithm`; both are made of its row in the table. Bytes
and memory are of the model `{SHOWN}` for 32 x 32 x 3 and ten classes, in float32: bytes are what a participant gets in
a round's task, and sends again with `upload = "float32"`; memory is what a step needs beside the parameters as they
came, the local copy of them, and what the layers work in. Gradients are of one batch.
"""


def described(name: str) -> dict[str, Any]:
    """Return what there is to say of a learner, ready for JSON; raises ConfigError for an unknown name."""
    row, model = learner(name), build(SHOWN, (32, 32, 3), 10)
    steps = {f"inner_steps = {k}": row.evaluations(PhaseConfig(algorithm=name, inner_steps=k)) for k in INNER_STEPS}
    return {
        "name": name,
        "sentence": (inspect.getdoc(row.direct) or "").splitlines()[0],
        "paper": row.paper,
        "travels": ["theta below the head" if keeps_head(name) else "theta", *row.shared],
        "stays": list(row.private),
        "gradients_a_step": steps if len(set(steps.values())) > 1 else {"any": steps["inner_steps = 1"]},
        "bytes_each_way": FLOAT32_BYTES * sum(sizes(model, name).values()),
        "memory_bytes": FLOAT32_BYTES * model.layout.size * row.vectors,
        "classes": ["own"] if row.embeds else ["common", "own"],
        "adaptations": [how for how in ADAPTATIONS if _suits(how, embeds=row.embeds)],
        "settings": _settings(row.settings),
    }


def text_of(name: str) -> str:
    """Return what there is to say of a learner, as lines for people and for the page."""
    said = described(name)
    gradients = ", ".join(
        f"{count}" if of == "any" else f"{count} with {of}" for of, count in said["gradients_a_step"].items()
    )
    settings = [
        f"setting `{one['name']}` ({one['range']}; {one['default']:g}): {one['reason']}" for one in said["settings"]
    ]
    lines = [
        f"paper: {said['paper']}",
        f"travels: {', '.join(said['travels'])}; {said['bytes_each_way']:,} bytes each way",
        f"stays on the device: {', '.join(said['stays']) or 'nothing'}",
        f"gradients in a step: {gradients}",
        f"memory beside a plain step's: {said['memory_bytes']:,} bytes",
        f"classes: {', '.join(said['classes'])}",
        f"adaptations: {', '.join(said['adaptations'])}",
        *settings,
    ]
    return "\n".join([said["sentence"], "", *(f"- {line}" for line in lines)])


def page() -> str:
    """Return docs/methods.md."""
    return "\n".join([INTRODUCTION, *(f"## `{name}`\n\n{text_of(name)}\n" for name in LEARNERS)])


def _suits(adaptation: str, *, embeds: bool) -> bool:
    network = Model([Dense(2), Dense(2)], (1,), EMBEDS if embeds else "cross-entropy")
    try:
        adaptation_of(adaptation, network)
    except ConfigError:
        return False
    return True


def _settings(record: type) -> list[dict[str, Any]]:
    """Return name, range, default and reason of each setting; the reasons stand in the record's docstring."""
    names = [entry.name for entry in fields(record)]
    doc = " ".join((inspect.getdoc(record) or "").split())
    found = re.split(rf"\b({'|'.join(names)}): ", doc)[1:] if names else []
    reasons = dict(zip(found[::2], found[1::2], strict=True))
    return [
        {
            "name": entry.name,
            "range": f"{'above' if entry.metadata['above'] else 'from'} {entry.metadata['low']:g}",
            "default": entry.default,
            "reason": reasons[entry.name].rstrip(" ;."),
        }
        for entry in fields(record)
    ]
