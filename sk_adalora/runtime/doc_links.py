"""Links from the HTML representation of an estimator to its documentation."""

DOCUMENTATION = "https://sk-adalora.readthedocs.io/en/latest"


class DocLinkMixin:
    """Link to the class's page of the documentation.

    scikit-learn links parameters and fitted attributes to places on the same page.
    """

    _doc_link_module = "sk_adalora"
    _doc_link_template = (
        f"{DOCUMENTATION}/generated/{{estimator_module}}.{{estimator_name}}.html"
    )
