"""The same run on Flower: a ClientApp and a ServerApp that do what `edgemeta simulate` does (an extra: flwr).

Flower carries messages, knows its nodes and starts programs; which round is at work, who takes part, what counts and
where a run goes on is the coordinator's word, as on a gateway.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from edgemeta.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from edgemeta.nn import Model

TESTED = "1.42"  # its interfaces change between two releases


def check_flower() -> None:
    """Raise ConfigError unless the version of Flower is installed that this was tested with."""
    install = "install it as 'pip install \"edgemeta[flower]\"'"
    try:
        found = version("flwr")
    except PackageNotFoundError:
        raise ConfigError(f"Flower is not installed here, and this takes flwr {TESTED}: {install}") from None
    if found.split(".")[:2] != TESTED.split("."):
        raise ConfigError(f"flwr {found} is installed, and this was tested with flwr {TESTED}: {install}")


def client_app(**options: Any) -> Any:
    """Return the ClientApp of a node; it is told everything of the run. options: of `flwr.clientapp.ClientApp`.

    A node is started with `partition-id=K`, its participant number, and may have `data="SPEC"`, data of its own;
    without it, its data is part K of the experiment's. Raises ConfigError without the tested version of Flower.
    """
    check_flower()
    from flwr.clientapp import ClientApp

    node, app = import_module("edgemeta.flower.node"), ClientApp(**options)
    app.query()(node.look)
    app.train()(node.train)
    app.evaluate()(node.evaluate)
    return app


def server_app(config: "str | Path", *, model: "Model | None" = None, init: "str | Path | None" = None) -> Any:
    """Return the ServerApp of a run; `out` of Flower's run configuration is its run directory, which goes on if it is.

    config: the path of a TOML file, or a preset's name. model: one's own network. init: a model file to start from.
    Raises ConfigError without the tested version of Flower.
    """
    check_flower()
    from flwr.serverapp import ServerApp

    server, app = import_module("edgemeta.flower.server"), ServerApp()

    @app.main()  # type: ignore[untyped-decorator,unused-ignore]
    def main(grid: Any, context: Any) -> None:
        server.run(grid, context, config, model, init)

    return app


def initial(config: "str | Path", *, model: "Model | None" = None, init: "str | Path | None" = None) -> tuple[Any, Any]:
    """Return what a strategy of Flower's starts with: its arrays, and the configuration that nodes are told.

    The arguments are those of `server_app`, whose place the strategy takes: the server's settings are not looked at.
    Raises ConfigError where more than one vector travels, and without the tested version of Flower.
    """
    check_flower()
    found: tuple[Any, Any] = import_module("edgemeta.flower.server").initial(config, model, init)
    return found
