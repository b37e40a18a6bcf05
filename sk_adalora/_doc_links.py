"""Links from the HTML representation of an estimator to its documentation."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def documentation_address() -> str:
    """Return the address that the package declares for its documentation, or ""."""
    try:
        declared = metadata.metadata("sk-adalora").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:  # run from a source folder
        return ""
    for entry in declared:
        label, _, address = entry.partition(",")
        if label.strip().lower() == "documentation":
            return address.strip().rstrip("/")
    return ""


class DocLinkMixin:
    """Link to the class's page of the documentation, where the package declares one.

    scikit-learn links parameters and fitted attributes to places on the same page.
    """

    _doc_link_module = "sk_adalora"

    @property
    def _doc_link_template(self) -> str:
        """Return the address of a class's page, to be filled in, or ""."""
        address = documentation_address()
        return (
            address
            and f"{address}/generated/{{estimator_module}}.{{estimator_name}}.html"
        )
