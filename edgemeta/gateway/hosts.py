"""A request that was not meant for this gateway is refused, by the host and the origin that it names."""

from collections.abc import Collection

from edgemeta.fed.refusal import Reason, Refused
from edgemeta.http.hosts import asked_of, host_of, is_known, is_own_origin
from edgemeta.http.http1 import Request


def check_origin(request: Request, names: Collection[str]) -> None:
    """Refuse what a page of another origin sends. names: of this gateway, in lower case."""
    if not is_own_origin(request, names):
        origin = request.headers["origin"]
        raise Refused(Reason.FOREIGN_ORIGIN, f"a page of {origin} cannot speak for who has opened it")


def check_host(request: Request, names: Collection[str]) -> None:
    """Refuse what is sent to a name that is not the gateway's; for what is answered without a token."""
    for authority in asked_of(request):
        if not is_known(authority, names):
            raise Refused(
                Reason.UNKNOWN_HOST,
                f"{authority} is no name of this gateway: use its address, or tell it that name by "
                f"'edgemeta server --name {host_of(authority)}'",
            )
