"""The command line: `edgemeta`. Nothing here imports NumPy before a command runs, so that help is quick."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from edgemeta import __version__
from edgemeta.cli import streams
from edgemeta.cli.bench import bench
from edgemeta.cli.client import client
from edgemeta.cli.compare import compare
from edgemeta.cli.data import data
from edgemeta.cli.demo import demo
from edgemeta.cli.doctor import doctor
from edgemeta.cli.enroll import devices, enroll, operator_token, revoke, tls
from edgemeta.cli.flower import flower
from edgemeta.cli.init import init
from edgemeta.cli.learn import learn
from edgemeta.cli.look import report, status, watch
from edgemeta.cli.methods import methods
from edgemeta.cli.model import adapt, evaluate, predict
from edgemeta.cli.run import run
from edgemeta.cli.server import server
from edgemeta.cli.simulate import simulate
from edgemeta.cli.teach import teach
from edgemeta.errors import EdgemetaError
from edgemeta.logs import ForPeople, log_to_stderr
from edgemeta.names import shown

INTERRUPTED = 130
# One thread under the matrix product: on small boards its threads cost more than they bring, and results would
# depend on their number. It is read when NumPy is first imported.
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgemeta")
def commands() -> None:
    """Federated meta-learning for devices that cannot carry PyTorch."""


RUN = (simulate, server, client, doctor, learn, teach, compare, run, flower, report, status, watch)
ACCESS = (tls, enroll, devices, revoke, operator_token)
for command in (*RUN, *ACCESS, evaluate, adapt, predict, methods, bench, data, init, demo):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed while running, 2 wrong input, 130 interrupted."""
    for variable in ONE_THREAD:
        os.environ.setdefault(variable, "1")
    streams.set_up()
    log_to_stderr(ForPeople())
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    status = _status(arguments)
    streams.finish()
    sys.exit(status)


def _status(arguments: Sequence[str] | None) -> int:
    try:
        status: int = commands.main(arguments, "edgemeta", standalone_mode=False) or 0
        streams.flush()
        return status
    except click.ClickException as error:
        error.show()
        return 2
    except EdgemetaError as error:
        click.echo(f"Error: {shown(str(error))}", err=True)
        return error.exit_status
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted: what was finished is kept. Run the same command to go on.", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        return 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
