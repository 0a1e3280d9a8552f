"""Every error that a user can cause, in one small tree.

A message says what was wrong, what was expected and what to do. `exit_status` is what the command line
returns: 2 for wrong usage, configuration or input, 1 for something that failed while running.
"""


class EdgemetaError(Exception):
    """The root: whoever embeds edgemeta can catch this one."""

    exit_status = 1


class InputError(EdgemetaError):
    """What was asked for cannot be done as it was asked."""

    exit_status = 2


class ConfigError(InputError):
    """A setting is unknown, of the wrong type, out of range, or does not go with another one."""


class DataError(InputError):
    """Training or test data is missing, damaged, or not what the model expects."""


class NoDataYet(DataError):
    """There are no samples, or too few to set some aside: where data grows, more may come."""


class ModelFileError(InputError):
    """A model file or tensor message is damaged, hostile, or of another layout."""


class StorageError(InputError):
    """A file could not be written or read: a full disk, a failing one, a file in the way, no permission."""


class DivergedError(EdgemetaError):
    """A loss or an update stopped being finite; the last good checkpoint is kept."""
