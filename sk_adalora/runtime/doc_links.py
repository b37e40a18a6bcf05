"""Links from the HTML representation of an estimator to its documentation."""

DOCUMENTATION = "https://sk-adalora.readthedocs.io/en/latest"
# scikit-learn links parameters and fitted attributes to places on a class's page.
LINK_TEMPLATE = (
    f"{DOCUMENTATION}/generated/{{estimator_module}}.{{estimator_name}}.html"
)
