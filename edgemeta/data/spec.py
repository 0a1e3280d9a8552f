"""From a SPEC, as users write it, to data."""

from edgemeta.data.dataset import Split
from edgemeta.data.synthetic import LIMITS, synthetic
from edgemeta.errors import DataError


def open_data(spec: str, *, shape: tuple[int, ...] | None = None, seed: int = 0) -> Split:
    """Return the data that a SPEC names."""
    name, _, rest = spec.partition(":")
    if name == "synthetic":
        return _synthetic(rest, seed)
    raise DataError(f"no data at '{spec}'")


def _synthetic(text: str, seed: int) -> Split:
    settings = {"seed": seed}
    for item in text.split(",") if text else []:
        key, _, value = item.partition("=")
        if key.strip() not in LIMITS or not value.strip().isdecimal():
            known = ", ".join(f"{name} ({low} to {high})" for name, (low, high) in LIMITS.items())
            raise DataError(f"synthetic: '{item}': expected KEY=NUMBER with {known}")
        settings[key.strip()] = int(value)
    return synthetic(**settings)
