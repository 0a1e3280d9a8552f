"""edgemeta beside PyTorch on this machine: `edgemeta bench --against torch`.

Both run in processes of their own with the same number of threads, and take turns within each row, so that a busy
moment hits both. Each row's figures are medians over several such pairs of processes. To see what a processor without
AVX-512 would make of it, set OPENBLAS_CORETYPE=Haswell for edgemeta, and ONEDNN_MAX_CPU_ISA=AVX2 and
MKL_ENABLE_INSTRUCTIONS=AVX2 for PyTorch.
"""

import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from edgemeta.bench.contenders import LIBRARIES, Work
from edgemeta.bench.machine import blas
from edgemeta.errors import InputError

PAIRS = 4  # processes of each library for a row: where its memory comes to lie makes one process faster than another
ROUNDS = 5  # turns of each process
TURN_MS = 100  # how long a turn takes, about: several steps, so that caches are warm, and short beside a busy moment
QUIET = 0.3  # load before the start, up to which the machine was ours
BUSY = (
    "The machine was busy: trust the column of processor time more than the others, and rows of several threads not at "
    "all, as PyTorch's threads wait for each other."
)
STARTS = 5  # processes of each library whose start and memory are measured


class Row(NamedTuple):
    """target: the largest share of PyTorch's time that is a hit. theirs: PyTorch's work where it differs from ours."""

    title: str
    target: float
    ours: Work
    theirs: Work | None = None


STEP = Work("step", "cnn", 32)
ROWS = (
    Row("training step, cnn, batch 32", 0.45, STEP),
    Row("the same by loss_and_grad(theta, x, y), as the README has it", 0.47, STEP._replace(kind="natural")),
    Row("training step, cnn, batch 10", 0.5, STEP._replace(batch=10)),
    Row("training step, cnn, batch 64", 0.5, STEP._replace(batch=64)),
    Row("training step, cnn, batch 32, 2 threads", 0.5, STEP._replace(threads=2)),
    Row("training step, cnn-small, batch 32", 0.45, STEP._replace(model="cnn-small")),
    Row("training step, cnn, batch 32, channels_last", 0.5, STEP, STEP._replace(channels_last=True)),
    Row("FOMAML local update, cnn, batch 32", 0.5, STEP._replace(kind="fomaml")),
    Row("forward of one image, cnn", 0.5, Work("forward", "cnn", 1)),
    Row("forward, cnn, batch 256", 0.6, Work("forward", "cnn", 256)),
)
PEAK_MB, FIRST_S = 100, 0.35  # targets for the process that trains cnn at batch 32


def against_torch(say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Return {"machine": facts, "rows": [...]}, each row with title, target, measured, hit, ours and theirs.

    say: told what is being measured. Raises InputError when PyTorch is not installed.
    """
    if not importlib.util.find_spec("torch"):
        raise InputError("PyTorch is not installed: to compare with it, pip install 'edgemeta[bench]'")
    facts, rows = machine(), []  # before the start: what we put on the machine ourselves is no load
    for row in ROWS:
        say(row.title)
        rows.append(_compared(row))
    say("memory and start-up")
    return {"machine": facts, "rows": rows + _starts()}


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "blas": blas(),
        "torch": version("torch"),
    }


def table(result: Mapping[str, Any]) -> str:
    """Return the result of `against_torch` as a table in Markdown, and the machine below."""
    header = ["work, float32", "target", "measured", "", "edgemeta", "PyTorch", "by processor time"]
    lines = [header, ["---"] * len(header)]
    for row in result["rows"]:
        unit, cpu = row["unit"], row["measured_cpu"]
        lines.append(
            [
                *(row["title"], f"<= {row['target']:g}", f"{row['measured']:.{2 if unit != 'MB' else 0}f}"),
                *("hit" if row["hit"] else "**miss**", f"{row['ours']:.3g} {unit}", f"{row['theirs']:.3g} {unit}"),
                "" if cpu is None else f"{cpu:.2f}",
            ]
        )
    facts = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    busy = result["machine"]["load"] > QUIET
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", facts, *([BUSY] if busy else [])])


def _compared(row: Row) -> dict[str, Any]:
    """Return a row's share of PyTorch's time; processor time is no measure of what threads do."""
    works = {"edgemeta": row.ours, "torch": row.theirs or row.ours}
    wall: dict[str, list[float]] = {name: [] for name in works}
    cpu: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(PAIRS):
        with ExitStack() as stack:
            asks = {name: stack.enter_context(_contender(name, work.threads)) for name, work in works.items()}
            times = {}
            for name, ask in asks.items():
                ask(works[name], 3)
                times[name] = max(1, round(TURN_MS / 1000 / median(ask(works[name], 5)["wall_s"])))
            for _ in range(ROUNDS):
                for name, ask in asks.items():
                    answer = ask(works[name], times[name])
                    wall[name] += answer["wall_s"]
                    cpu[name] += answer["cpu_s"]
    ours, theirs = median(wall["edgemeta"]), median(wall["torch"])
    return {
        **{"title": row.title, "unit": "ms", "target": row.target, "measured": ours / theirs},
        **{"hit": ours / theirs <= row.target, "ours": 1000 * ours, "theirs": 1000 * theirs},
        "measured_cpu": median(cpu["edgemeta"]) / median(cpu["torch"]) if row.ours.threads == 1 else None,
    }


def _starts() -> list[dict[str, Any]]:
    """Return the rows of a process that imports, builds and trains a few steps: how soon, and how large it grows."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in LIBRARIES}
    for _ in range(STARTS):
        for name in LIBRARIES:
            with _contender(name, 1) as ask:
                answers[name].append(ask(STEP, 10))

    def row(title: str, unit: str, target: float, key: str) -> dict[str, Any]:
        ours, theirs = (median(answer[key] for answer in answers[name]) for name in ("edgemeta", "torch"))
        return {
            **{"title": title, "unit": unit, "target": target, "measured": ours, "hit": ours <= target},
            **{"ours": ours, "theirs": theirs, "measured_cpu": None},
        }

    return [
        row("peak memory of the training process, MB", "MB", PEAK_MB, "peak_mb"),
        row("import to first finished step, cnn, s", "s", FIRST_S, "first_s"),
    ]


@contextmanager
def _contender(library: str, threads: int) -> Iterator[Callable[[Work, int], dict[str, Any]]]:
    """Give a function that has work done in a new process, so many times, and returns the answer."""
    # Our threads are Python's, above BLAS; PyTorch's are OpenMP's.
    blas_threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command: Sequence[str] = [sys.executable, "-m", "edgemeta.bench.contenders", library]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | blas_threads
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def ask(work: Work, times: int) -> dict[str, Any]:
            print(json.dumps({"work": work._asdict(), "times": times}), file=requests, flush=True)
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield ask


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return named[0] if named else platform.processor() or platform.machine()
