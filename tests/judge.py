"""What must be true of a run in the seeded world, worked out from what the gateway acknowledged and from nothing else.

Clipping, weights, the mean and the server's step are written here a second time, in float64 and as plainly as can be.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from gateways import SIZE
from kept import tensors_in

Update = tuple[np.ndarray, int]  # delta, samples


class Judge:
    """theta, velocity: what the model must be; acked: the updates that count in the open round."""

    def __init__(self, run: Path, clip: float, least: int, momentum: float, own: bool) -> None:
        self.run, self.clip, self.least, self.momentum, self.own = run, clip, least, momentum, own
        self.round, self.model, self.closed, self.repeats = 0, 0, 0, 0
        self.theta, self.velocity = np.zeros(SIZE), np.zeros(SIZE)
        self.norms: list[list[float]] = []
        self.acked: dict[int, Update] = {}
        self.counted: dict[int, int] = {}
        self.before: tuple[Any, ...] | None = None
        self.history, self.attempt = -1, 0
        self.unknown: tuple[int, str, bytes] | None = None  # what was being delivered when the gateway was killed

    def acknowledged(self, participant: int, path: str, body: bytes) -> None:
        """Take note that the gateway has said that an update counts."""
        number = int(path.split("/")[3])
        if self.counted.get(participant) != number:
            assert number == self.round, f"round {number} is acknowledged, and {self.round} is open"
            if participant not in self.acked:  # else it is a repeated one, of which the body is not looked at
                metadata, tensors = tensors_in(body)
                self.acked[participant] = tensors["theta"].astype(np.float64), int(metadata["samples"])

    def reopened(self, coordinator: Any) -> None:
        """Look at what a new process made of the disk; what was under way may have been accepted or not."""
        if self.unknown:
            (participant, path, body), self.unknown = self.unknown, None
            progress, number = coordinator.progress, int(path.split("/")[3])
            here = progress.stage == "train" and progress.round == number
            if number == self.round and (
                progress.counted.get(str(participant)) == number
                or (here and participant in progress.cohort and participant not in coordinator.missing)
            ):
                self.acknowledged(participant, path, body)
        self.look(coordinator)

    def look(self, coordinator: Any) -> None:
        """Compare the gateway with what must be true after each event."""
        progress = coordinator.progress
        if progress.model > self.model:
            assert progress.model == self.round
            self._closes(coordinator)
        elif progress.model < self.model:
            self._is_repeated(coordinator)
        elif progress.attempt != self.attempt and self.acked:  # opened again: too few, or no finite model of these
            _, _, counting, left_out, _ = self._fold(self.acked)
            if len(self.acked) >= self.least and not counting:
                self.acked = {k: update for k, update in self.acked.items() if k not in left_out}
        self.model, self.attempt = progress.model, progress.attempt
        self.round = progress.round if progress.stage != "evaluate" else 0
        if progress.stage == "train" and progress.cohort:
            there = set(progress.cohort) - set(coordinator.missing)
            assert there == set(self.acked), f"{there} delivered, and acknowledged are {set(self.acked)}"
        if progress.history != self.history:
            self.history = progress.history
            self._reads_history(progress)

    def _closes(self, coordinator: Any) -> None:
        theta, velocity, counting, left_out, cut = self._fold(self.acked)
        actual = _read(coordinator.model_path)
        assert np.isfinite(actual).all(), "the model is not finite"
        np.testing.assert_allclose(actual, theta, rtol=1e-4, atol=1e-5 * np.abs(theta).max(), err_msg="another model")
        progress = coordinator.progress
        record = progress.record if progress.stage == "evaluate" else coordinator.directory.history()[-1]
        said = record["round"], record["participants"], record.get("clipped", []), record.get("left_out", [])
        assert said == (self.round, len(counting), cut, left_out), f"the record says {said}"
        self.before = self.theta, self.velocity, self.norms, self.counted, self.round
        self.theta, self.velocity = actual.astype(np.float64), velocity
        self.norms = [*self.norms, [float(np.linalg.norm(self.acked[k][0])) for k in counting]][-20:]
        self.counted = self.counted | dict.fromkeys(counting, self.round)
        assert progress.counted == {str(k): number for k, number in self.counted.items()}
        self.acked, self.closed = {}, self.closed + 1

    def _is_repeated(self, coordinator: Any) -> None:
        assert self.before, "a round is repeated twice"
        self.theta, self.velocity, self.norms, self.counted, number = self.before
        assert coordinator.progress.round == number
        np.testing.assert_allclose(_read(coordinator.model_path), self.theta, rtol=1e-6)
        self.before, self.acked, self.repeats = None, {}, self.repeats + 1

    def _fold(self, updates: dict[int, Update]) -> tuple[np.ndarray, np.ndarray, list[int], list[int], list[int]]:
        """Return (theta, velocity, who counts, who is left out, who is cut down)."""
        norms = {k: float(np.linalg.norm(delta)) for k, (delta, _) in updates.items()}
        known = [norm for one in self.norms for norm in one] + list(norms.values())
        most = self.clip * median(known) if len(known) >= 3 else np.inf
        usual = 10 * int(median(samples for _, samples in updates.values()))
        kept = sorted(updates)
        while len(kept) >= self.least:
            total, weights = np.zeros(SIZE), 0
            for k in kept:
                delta, samples = updates[k]
                weight = min(samples, usual) if self.own else samples
                total += weight * delta * (most / norms[k] if norms[k] > most else 1)
                weights += weight
            velocity = self.momentum * self.velocity + total / weights
            theta = self.theta + velocity
            if max(np.abs(theta).max(), np.abs(velocity).max()) <= np.finfo(np.float32).max:
                cut = [k for k in kept if norms[k] > most]
                return theta, velocity, kept, [k for k in sorted(updates) if k not in kept], cut
            kept.remove(max(kept, key=norms.__getitem__))
        return self.theta, self.velocity, [], [k for k in sorted(updates) if k not in kept], []

    def _reads_history(self, progress: Any) -> None:
        lines = (self.run / "history.jsonl").read_bytes()[: progress.history].splitlines() if progress.history else []
        records = [json.loads(line, parse_constant=_no_number) for line in lines]
        assert [record["round"] for record in records] == list(range(progress.round)), "the history has gaps"
        json.loads((self.run / "progress.json").read_bytes(), parse_constant=_no_number)


def _no_number(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def _read(path: Path) -> np.ndarray:
    return np.concatenate([tensor.ravel() for tensor in tensors_in(path.read_bytes())[1].values()])
