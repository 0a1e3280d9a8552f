"""Flower on this machine: a SuperLink, SuperNodes, and `flwr run`, in processes that end with the context."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(sys.executable).parent
README = (Path(__file__).parent.parent / "README.md").read_text()
(INIT,) = re.findall(r"^    edgemeta (flower .*)$", README, re.MULTILINE)
(RUN,) = re.findall(r"^    (flwr run .*)$", README, re.MULTILINE)
needs_flower = pytest.mark.skipif(
    find_spec("flwr") is None, reason="NOT TESTED on Flower: flwr is not installed here (.ci/run has an environment)"
)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Federation:
    """home: Flower's folder, with the logs of its processes beside it."""

    def __init__(self, home):
        self.home, self.port, self.processes = home, free_port(), {}
        self.env = os.environ | {
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
            "PYTHONWARNINGS": "ignore",  # Flower's own are not ours to mend
            "PATH": f"{HERE}{os.pathsep}{os.environ['PATH']}",
        }
        home.mkdir(parents=True, exist_ok=True)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self, name, *command):
        """Start a program in a group of its own: what it starts ends with it."""
        with open(self.home.parent / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(HERE / command[0]), *map(str, command[1:])],
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def superlink(self, *options):
        port = ("--host", "127.0.0.1", "--port", self.port)
        self.start(
            "superlink", "flower-superlink", "--insecure", *port, "--disable-runtime-dependency-installation", *options
        )
        wait(lambda: listens(self.port), 30, self.logs)

    def supernode(self, name, config):
        address = ("--superlink", self.address, "--port", free_port())
        self.start(name, "flower-supernode", "--insecure", *address, "--node-config", config)

    def kill(self, name):
        """End a node as a power cut would, with what it has started."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def programs(self, name=""):
        """Return the processes of this federation whose command has this name in it, whoever started them."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                ours = f"FLWR_HOME={self.home}\0".encode() in (entry / "environ").read_bytes()
                if ours and name.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def kill_server_app(self):
        for number in self.programs("flwr-serverapp"):
            os.kill(number, signal.SIGKILL)

    def flwr(self, *arguments):
        done = subprocess.run(
            [str(HERE / "flwr"), *map(str, arguments)],
            cwd=self.home.parent,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, command, connection=""):
        """Start an app, by a shell's command; return its run's number. connection: more of it, as TOML."""
        here = f'default = "here"\n[superlink.here]\naddress = "{self.address}"\ninsecure = true\n'
        (self.home / "config.toml").write_text(f"[superlink]\n{here}{connection}")
        said = json.loads(self.flwr(*shlex.split(command)[1:], "--format", "json"))
        assert said["success"], said
        return said["run-id"]

    def status(self, run):
        (one,) = json.loads(self.flwr("list", "--run-id", run, "--format", "json"))["runs"]
        return one["status"]

    def logs(self):
        """Return the ends of what the programs have said."""
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in self.home.parent.glob("*.log"))


@contextmanager
def federation(folder):
    made = Federation(folder / "flwr")
    try:
        yield made
    finally:
        for name in [*made.processes]:
            made.kill(name)
        for number in made.programs():  # in sessions of their own
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def listens(port):
    with socket.socket() as calling:
        return calling.connect_ex(("127.0.0.1", port)) == 0


def wait(true, seconds, what):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what()}"
        time.sleep(0.5)
