"""All studies, by the name that ``python -m benchmarks NAME`` runs them by."""

from . import beside, costs, defaults, racing, score
from .timings import TIMINGS

__all__ = ["STUDIES", "TIMINGS"]

STUDIES = {}
for module in (score, defaults, beside, racing, costs):
    STUDIES |= module.STUDIES
