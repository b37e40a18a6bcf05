"""All studies, by the name that ``python -m benchmarks NAME`` runs them by."""

from . import beside, costs, defaults, racing, score, tables
from .timings import TIMINGS

__all__ = ["STUDIES", "TIMINGS"]

STUDIES = {}
for module in (score, defaults, beside, racing, costs, tables):
    STUDIES |= module.STUDIES
