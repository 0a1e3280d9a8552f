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

A round's model, and before it the server's state, is written first, then `progress.json` says that it counts, then the
rest follows from that: whatever is newer than the progress is left-overs of a kill, and is dropped or made again on
opening.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgemeta.config import RunConfig
from edgemeta.data.fingerprint import Fingerprint
from edgemeta.errors import StorageError
from edgemeta.fed.claim import claim
from edgemeta.fed.progress import FORMAT, Progress
from edgemeta.fed.scores import Record, Summary
from edgemeta.storage import read_kept, storing, sync_folder, write_atomic, write_kept


class RunDirectory:
    """A run directory, opened and locked for one process; `close` lets it go.

    durable: what an open round has collected must survive a power cut, as devices will not send it again. A simulation
    can make it again, so it saves the flushing, and drops what it finds on opening. data, elsewhere: see
    `edgemeta.fed.claim`. facts: what the summary says besides the history's totals and scores.
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
    ) -> None:
        self.path, self.durable, self._facts = path, durable, facts or {}
        with storing(path):
            (path / "rounds").mkdir(parents=True, exist_ok=True)
            self._lock = open(path / "lock", "wb")  # noqa: SIM115 - held open for as long as the run
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise StorageError(f"another process runs in {path}: wait for it, or give another folder") from None
        try:
            claim(path, config, data, elsewhere=elsewhere)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process use the directory."""
        self._lock.close()

    @property
    def model_path(self) -> Path:
        """The latest global model's file."""
        return self.path / "model.safetensors"

    def load_progress(self) -> Progress | None:
        """Return the last committed progress, or None in a new directory; what is newer is dropped."""
        progress = read_kept(self._progress, Progress, FORMAT, "give another folder, or remove this one")
        if progress is None:
            return None
        self.cut_history(progress.history)
        if not self.durable:
            for kind in ("update", "evaluation"):
                for file in self.collected(progress.round, kind).values():
                    file.unlink()
        self._publish(self.round_model(progress.model))
        return progress

    def commit(self, progress: Progress) -> None:
        """Make `progress` the place where the run goes on, and its model the latest one."""
        write_kept(self._progress, progress, FORMAT)
        self._publish(self.round_model(progress.model))

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
        return self._folder(round_number) / f"update-{participant:06d}.safetensors"

    def evaluation_path(self, round_number: int, participant: int) -> Path:
        """Return where a participant's scores of a round's model are kept."""
        return self._folder(round_number) / f"evaluation-{participant:06d}.json"

    def collected(self, round_number: int, kind: str) -> dict[int, Path]:
        """Return participant -> file for what a round ("update" or "evaluation") has collected so far."""
        files = sorted(self._folder(round_number).glob(f"{kind}-*"))
        return {int(file.stem.split("-")[1]): file for file in files if file.suffix != ".tmp"}

    def forget_before(self, round_number: int) -> None:
        """Remove the models before a round's, which nothing needs any more."""
        for folder in (self.path / "rounds").iterdir():
            if folder.name.isdecimal() and int(folder.name) < round_number:
                shutil.rmtree(folder, ignore_errors=True)

    def forget_collected(self, round_number: int) -> None:
        """Remove the updates of a round: they are in its model, or it is trained again."""
        for file in (self.path / "rounds" / f"{round_number:06d}").glob("update-*"):
            file.unlink()

    def set_aside(self, round_number: int, participant: int) -> None:
        """Keep an update that cannot count out of the round's collection, for people to look at until it is over."""
        path = self.update_path(round_number, participant)
        with storing(path):
            os.replace(path, path.with_name(f"left-out-{participant:06d}.safetensors"))

    def history(self, after: int = 0) -> list[Record]:
        """Return the records of the finished rounds, those that come after so many bytes of the file."""
        path = self.path / "history.jsonl"
        if not path.exists():
            return []
        with open(path, "rb") as file:
            file.seek(after)
            return [json.loads(line) for line in file]

    def append_record(self, record: Record, after: int) -> int:
        """Write a round's record `after` so many bytes of the history, and return how many there are then.

        It counts when the progress says so; until then the next call writes over it.
        """
        path = self.path / "history.jsonl"
        with storing(path), open(path, "ab") as file:
            file.truncate(after)
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

    def cut_history(self, size: int) -> None:
        """Drop what is longer than so many bytes of the history: it does not count."""
        path = self.path / "history.jsonl"
        if path.exists():
            with storing(path):
                os.truncate(path, size)

    def write_summary(self, summary: Summary) -> None:
        """Write the summary: its presence means that the run is finished."""
        write_atomic(
            self.path / "summary.json",
            [json.dumps({**summary, **self._facts}, indent=2, allow_nan=False).encode(), b"\n"],
        )

    def summary(self) -> Summary | None:
        """Return the summary of a finished run, or None."""
        path = self.path / "summary.json"
        return json.loads(path.read_text()) if path.exists() else None

    def _folder(self, round_number: int) -> Path:
        folder = self.path / "rounds" / f"{round_number:06d}"
        with storing(folder):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                if self.durable:
                    sync_folder(folder.parent)  # or a power cut takes the folder with all that was accepted into it
        return folder

    def _publish(self, model: Path) -> None:
        """Make model.safetensors the same file as a round's model: a second name, so no second copy on the card."""
        if self.model_path.exists() and os.path.samefile(self.model_path, model):
            return
        temporary = self.model_path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        with storing(self.model_path):
            try:
                os.link(model, temporary)
            except OSError:  # a file system without hard links, such as a stick's
                write_atomic(self.model_path, [model.read_bytes()])
                return
            os.replace(temporary, self.model_path)
            sync_folder(self.path)


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file that need not survive a power cut."""
    with storing(path), open(path, "wb") as file:
        file.writelines(parts)
