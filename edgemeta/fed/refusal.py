"""Why a message does not count: a short stable word for programs and counters, and a text for people."""

from enum import StrEnum

from edgemeta.errors import EdgemetaError
from edgemeta.names import MOST_SAID, shown


class Reason(StrEnum):
    """The words, as they go over the wire; the protocol page says what each means and which HTTP status it has."""

    BAD_EVALUATION = "bad-evaluation"
    BAD_FIELD = "bad-field"
    BAD_JSON = "bad-json"
    BAD_METADATA = "bad-metadata"
    BAD_PARTITION_ID = "bad-partition-id"
    BAD_SAMPLES = "bad-samples"
    BAD_TENSORS = "bad-tensors"
    BAD_TOKEN = "bad-token"
    FOREIGN_ORIGIN = "foreign-origin"
    NAME_IN_USE = "name-in-use"
    NOT_FINITE = "not-finite"
    NOT_FOUND = "not-found"
    NOT_IN_COHORT = "not-in-cohort"
    OPERATOR_ONLY = "operator-only"
    OTHER_PARTITION = "other-partition"
    PARTITION_TAKEN = "partition-taken"
    PROTOCOL_TOO_NEW = "protocol-too-new"
    PROTOCOL_TOO_OLD = "protocol-too-old"
    REVOKED = "revoked"
    RUN_FULL = "run-full"
    RUN_OVER = "run-over"
    STOPPING = "stopping"
    STORAGE = "storage"
    TOKEN_REQUIRED = "token-required"
    TOO_OFTEN = "too-often"
    UNKNOWN_HOST = "unknown-host"
    UNKNOWN_SESSION = "unknown-session"
    WRONG_DEVICE = "wrong-device"
    WRONG_LAYOUT = "wrong-layout"
    WRONG_METHOD = "wrong-method"
    WRONG_ROUND = "wrong-round"
    WRONG_SHAPE = "wrong-shape"


class Refused(EdgemetaError):
    """A message that does not count. detail: for people; what cannot be shown in it is escaped here."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(shown(detail, MOST_SAID))
        self.reason = reason
