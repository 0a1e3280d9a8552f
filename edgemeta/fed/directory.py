"""The run directory: what is on disk, in which order it gets there, and how a killed run finds its place again.

    run.toml               the whole configuration, as resolved
    data.json              a fingerprint of the data
    progress.json          where the run is: the commit point, replaced atomically
    history.jsonl          one record a finished round
    model.safetensors      the latest global model
    summary.json           written last
    roster.json            on a gateway: which device is which participant
    incoming/              on a gateway: uploads until they are complete and accepted
    rounds/000012/         the model that round 12 led to, what the server keeps beside it (server.safetensors, where it
                           keeps something), and the updates and scores that its next round collects
    *.damaged              what was found damaged, as it was

A round's model, and before it the server's state, is written first, then `progress.json` says that it counts, then the
rest follows from that: whatever is newer than the progress is left-overs of a kill, and is dropped or made again on
opening. Everything that the progress counts on is flushed before it is written, names in folders too. What cannot be
read is neither dropped nor made again: that is a StorageError.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgemeta import disk
from edgemeta.config import RunConfig
from edgemeta.data.fingerprint import Fingerprint
from edgemeta.errors import StorageError
from edgemeta.fed.claim import claim
from edgemeta.fed.history import History
from edgemeta.fed.progress import FORMAT, Progress
from edgemeta.fed.scores import Record, Summary
from edgemeta.folders import check_no_device
from edgemeta.nn.files import load_parameters
from edgemeta.reading import Reader, exists, names, read_file
from edgemeta.storage import held_here, lock, read_kept, set_aside, storing, write_atomic, write_block, write_kept

log = logging.getLogger("edgemeta")

SUFFIX = {"update": ".safetensors", "evaluation": ".json"}


class RunDirectory:
    """A run directory, opened and locked for one process; `close` lets it go. Methods raise StorageError.

    durable: what an open round has collected must survive a power cut, as devices will not send it again. A simulation
    can make it again, so it saves the flushing, and drops what it finds on opening. data, elsewhere: see
    `edgemeta.fed.claim`. facts: what the summary says besides the history's totals and scores. site: a folder in which
    the latest global model is published too.
    """

    def __init__(
        self,
        path: Path,
        config: RunConfig,
        *,
        durable: bool = True,
        data: Fingerprint | None = None,
        elsewhere: bool = False,
        facts: Mapping[str, Any] | None = None,
        site: Path | None = None,
    ) -> None:
        self.path, self.durable, self._facts, self._site = path, durable, facts or {}, site
        self._history = History(path / "history.jsonl")
        self._made: set[int] = set()  # rounds whose folders are known to be there
        self._unpublished: Path | None = None
        check_no_device(path)
        with storing(path):
            disk.make_folder(path, named=True)
            disk.make_folder(path / "rounds")
        held = lock(path / "lock")
        if held is None:
            who = "this process has a run" if held_here(path / "lock") else "another process runs"
            raise StorageError(f"{who} in {path}: wait for it, or give another folder")
        self._lock = held
        try:
            with storing(path):  # what is found here counts from now on, so it has to stay
                disk.sync_folder(path)
            claim(path, config, data, elsewhere=elsewhere)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process use the directory."""
        if self._lock >= 0:
            disk.system.close(self._lock)
            self._lock = -1

    @property
    def model_path(self) -> Path:
        """The latest global model's file."""
        return self.path / "model.safetensors"

    def load_progress(self) -> Progress | None:
        """Return the last committed progress, or None in a new directory; what is newer is dropped."""
        progress = read_kept(self._progress, Progress, FORMAT, "give another folder, or remove this one")
        if progress is None:
            return None
        if progress.before:
            good = self._history.whole(progress.before.history)
            progress = replace(progress, before=replace(progress.before, history=good))
        progress = replace(progress, history=self._history.mend(progress.history))
        if not self.durable:
            for kind in SUFFIX:
                for file in self.collected(progress.round, kind).values():
                    with storing(file):
                        disk.remove(file)
        self._restore(progress.model)
        self._publish(self.round_model(progress.model))
        return progress

    def _restore(self, number: int) -> None:
        """Give the model of a round its file again, where somebody has removed that and the published one is left."""
        model, published = self.round_model(number), self.model_path
        if not exists(model) and exists(published) and load_parameters(published).round == number:
            log.error("%s was gone, and is made again from %s", model, published)
            with Reader(published) as file:
                write_atomic(model, iter(file.read, b""))

    def commit(self, progress: Progress) -> None:
        """Make `progress` the place where the run goes on, and its model the latest one.

        When it raises, the progress is not known to be on disk. When only the latest model cannot be published, it is
        tried again at the next commit and before the summary.
        """
        write_kept(self._progress, progress, FORMAT)
        self._unpublished = self.round_model(progress.model)
        try:
            self.publish()
        except StorageError as error:
            log.warning("%s; the run goes on, and this is tried again", error)

    def publish(self) -> None:
        """Make model.safetensors the latest global model, where it is not."""
        if self._unpublished:
            self._publish(self._unpublished)
            self._unpublished = None

    @property
    def _progress(self) -> Path:
        return self.path / "progress.json"

    def round_model(self, round_number: int) -> Path:
        """Return the file of the model that a round led to; its folder exists."""
        return self._folder(round_number) / "model.safetensors"

    def round_state(self, round_number: int) -> Path:
        """Return the file of what the server keeps beside the model that a round led to."""
        return self._folder(round_number) / "server.safetensors"

    def update_path(self, round_number: int, participant: int) -> Path:
        """Return where a participant's update for a round is kept."""
        return self._folder(round_number) / f"update-{participant:06d}{SUFFIX['update']}"

    def evaluation_path(self, round_number: int, participant: int) -> Path:
        """Return where a participant's scores of a round's model are kept."""
        return self._folder(round_number) / f"evaluation-{participant:06d}{SUFFIX['evaluation']}"

    def keep_update(self, file: Path, round_number: int, participant: int) -> None:
        """Move a whole update to its place: when this returns, it stays there."""
        kept = self.update_path(round_number, participant)
        with storing(kept):
            disk.rename(file, kept)
            if self.durable:
                disk.sync_folder(kept.parent)

    def collected(self, round_number: int, kind: str) -> dict[int, Path]:
        """Return participant -> file for what a round ("update" or "evaluation") has collected so far."""
        folder, start, end = self._folder(round_number), f"{kind}-", SUFFIX[kind]
        found = {name.removeprefix(start).removesuffix(end): folder / name for name in names(folder)}
        return {int(k): path for k, path in found.items() if k.isdecimal() and path.name == f"{start}{k}{end}"}

    def forget_closed(self, progress: Progress) -> None:
        """Remove what led to a round's model, and what was before that; what stays goes the next time.

        progress: where the run was until the round was closed. Its model stays, as the round may have to be repeated.
        """
        with suppress(OSError, StorageError):
            self.forget_collected(progress.round)
            for name in disk.names(self.path / "rounds"):
                if name.isdecimal() and int(name) < progress.model:
                    self._forget(self.path / "rounds" / name)
                    self._made.discard(int(name))

    def _forget(self, folder: Path) -> None:
        """Remove a round's folder, unless there is something in it that was set aside."""
        kept = [name for name in disk.names(folder) if name.endswith(".damaged")]
        for name in disk.names(folder):
            if name not in kept:
                disk.remove(folder / name)
        if not kept:
            disk.remove_folder(folder)

    def forget_collected(self, round_number: int) -> None:
        """Remove the updates of a round: they are in its model, or it is trained again."""
        if exists(self.path / "rounds" / f"{round_number:06d}"):
            for file in self.collected(round_number, "update").values():
                with storing(file):
                    disk.remove(file)

    def set_aside(self, round_number: int, participant: int) -> None:
        """Keep an update that cannot count out of the round's collection, for people to look at until it is over."""
        path = self.update_path(round_number, participant)
        with storing(path):
            disk.rename(path, path.with_name(f"left-out-{participant:06d}.safetensors"))
            if self.durable:
                disk.sync_folder(path.parent)

    def history(self, after: int = 0) -> list[Record]:
        """Return the records of the finished rounds, those that come after so many bytes of the file."""
        return self._history.records(after)

    def append_record(self, record: Record, after: int) -> int:
        """Write a round's record `after` so many bytes of the history, and return how many there are then.

        It counts when the progress says so; until then the next call writes over it.
        """
        return self._history.append(record, after)

    def cut_history(self, size: int) -> None:
        """Drop what is longer than so many bytes of the history: it does not count."""
        self._history.cut(size)

    def write_summary(self, summary: Summary) -> None:
        """Write the summary: its presence means that the run is finished."""
        write_atomic(
            self.path / "summary.json",
            [json.dumps({**summary, **self._facts}, indent=2, allow_nan=False).encode(), b"\n"],
        )

    def remove_summary(self) -> None:
        """Take back that the run is finished."""
        with storing(self.path):
            disk.remove(self.path / "summary.json")
            disk.sync_folder(self.path)

    def summary(self) -> Summary | None:
        """Return the summary of a finished run, or None; a damaged one is set aside, and made again."""
        path = self.path / "summary.json"
        text = read_file(path)
        try:
            return None if text is None else json.loads(text)
        except ValueError:
            log.error("%s was damaged, and is made again: see %s", path, set_aside(path))
            return None

    def _folder(self, round_number: int) -> Path:
        folder = self.path / "rounds" / f"{round_number:06d}"
        if round_number not in self._made:
            with storing(folder):
                disk.make_folder(folder)  # flushed, or a power cut takes it with all that was accepted into it
            self._made.add(round_number)
        return folder

    def _publish(self, model: Path) -> None:
        """Make each model.safetensors the same file as a round's model: a further name, and no further copy."""
        for folder in filter(None, (self.path, self._site)):
            _same(model, folder / "model.safetensors")


def _same(model: Path, published: Path) -> None:
    with storing(published):
        now, new = disk.look(published), disk.look(model)
        if now and new and os.path.samestat(now, new):
            return
        temporary = published.with_suffix(".tmp")
        disk.remove(temporary)
        if not disk.link(model, temporary):
            with Reader(model) as file:
                write_atomic(published, iter(file.read, b""))
            return
        disk.rename(temporary, published)
        disk.sync_folder(published.parent)


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file that need not survive a power cut."""
    made = None
    for part in parts:
        made = write_block(path, part, made, last=False)
