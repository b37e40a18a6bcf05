"""A page for each public name, and links to it from wherever the name stands.

The pages are written from `sk_adalora.__all__` when the site is built. A name in code
type, such as `AdaLoraClassifier` or `AdaLoraSpace.grid`, becomes a link to its page.
"""

import inspect
import re

from docutils import nodes
from outer_pages import DOCS, write_if_changed
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

import sk_adalora
import sk_adalora.adalora

FOLDER = "generated"
HEADING = re.compile(r"^### `(\w+)`\n", re.MULTILINE)
# The functions that only the engine offers: a table of the overview names them.
OF_THE_ENGINE = [
    name
    for name in sk_adalora.adalora.__all__
    if name not in sk_adalora.__all__
    and inspect.isfunction(getattr(sk_adalora.adalora, name))
]
ROW = re.compile(rf"^\| `({'|'.join(OF_THE_ENGINE)})` \|", re.MULTILINE)
# Where the pages of other packages' names are: no inventory is needed to link them.
OTHER_PACKAGES = {
    "sklearn": "https://scikit-learn.org/stable/modules/generated/{}.html",
    "torch": "https://docs.pytorch.org/docs/stable/generated/{}.html",
}
INHERITED = {
    "sklearn": "Also, as in every :class:`~sklearn.base.BaseEstimator`",
    "torch": "Also everything of :class:`torch.nn.Module`",
}


def members_of(cls):
    """Mapping {public method or property: package of the class that defines it}."""
    found = {}
    for name in dir(cls):
        if name.startswith("_"):
            continue
        value = inspect.getattr_static(cls, name)
        if callable(value) or isinstance(value, property | classmethod | staticmethod):
            owner = next(c for c in cls.__mro__ if name in vars(c))
            found[name] = owner.__module__.split(".")[0]
        elif hasattr(value, "__get__"):  # scikit-learn's available_if and requests
            found[name] = "sklearn"
    return found


def page_of_class(name, cls):
    members = members_of(cls)
    ours = [member for member, home in members.items() if home == "sk_adalora"]
    lines = [f".. autoclass:: {name}", ""]
    if ours:
        lines[1:1] = [f"   :members: {', '.join(ours)}"]
        lines += [".. rubric:: Methods and properties", "", ".. autosummary::", ""]
        lines += [f"   {name}.{member}" for member in ours] + [""]
    for package, sentence in INHERITED.items():
        theirs = [m for m, home in members.items() if home == package]
        if theirs and package == "torch":
            lines += [f"{sentence}.", ""]
        elif theirs:
            lines += [f"{sentence}: {', '.join(f'``{m}``' for m in theirs)}.", ""]
    return lines


def head_of(name, module, value):
    """The first lines of a page: what a chat shows of it, its title, its module."""
    summary = inspect.getdoc(value).partition("\n\n")[0]
    summary = re.sub(r"\s*\[\d+\]_|`", "", summary).replace("\n", " ")
    title = [name, "=" * len(name), ""]
    return [
        f":og:description: {summary}",
        "",
        *title,
        f".. currentmodule:: {module}",
        "",
    ]


def write_api_pages(app, config):
    for name in sk_adalora.__all__:
        value = getattr(sk_adalora, name)
        head = head_of(name, "sk_adalora", value)
        if inspect.isclass(value):
            body = page_of_class(name, value)
        else:
            body = [f".. autofunction:: {name}", ""]
        body += [f".. minigallery:: sk_adalora.{name}", "   :add-heading: Examples"]
        body += ["   :heading-level: -", ""]
        page = DOCS / FOLDER / f"sk_adalora.{name}.rst"
        write_if_changed(page, "\n".join(head + body))
    for name in OF_THE_ENGINE:
        value = getattr(sk_adalora.adalora, name)
        lines = head_of(name, "sk_adalora.adalora", value)
        page = DOCS / FOLDER / f"sk_adalora.adalora.{name}.rst"
        write_if_changed(page, "\n".join([*lines, f".. autofunction:: {name}", ""]))


def read_overview(app, page, content):
    """Link each heading of the hand-written overview to the page of its name."""
    if page != "reference/api":
        return
    content[0] = HEADING.sub(
        lambda m: (
            f"{m[0]}\n[Parameters, methods, examples]"
            f"(../{FOLDER}/sk_adalora.{m[1]}.rst)\n"
        ),
        content[0],
    )
    content[0] = ROW.sub(
        lambda m: f"| [`{m[1]}`](../{FOLDER}/sk_adalora.adalora.{m[1]}.rst) |",
        content[0],
    )
    of_the_engine = [f"adalora.{name}" for name in OF_THE_ENGINE]
    names = "\n".join(
        f"../{FOLDER}/sk_adalora.{name}"
        for name in (*sk_adalora.__all__, *of_the_engine)
    )
    content[0] += f"\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"


class LinkNames(SphinxTransform):
    """Turn public names in code type into links to their pages."""

    default_priority = 500

    def apply(self):
        for literal in list(self.document.findall(nodes.literal)):
            target = self.target_of(literal.astext())
            if target and not self.stands_in_a_link_or_title(literal):
                link = pending_xref(
                    "",
                    refdomain="py",
                    reftype="obj",
                    reftarget=target,
                    refexplicit=True,
                    refdoc=self.env.docname,
                )
                literal.replace_self(link)
                link += literal

    def target_of(self, text):
        name, _, member = text.removesuffix("()").partition(".")
        if name not in sk_adalora.__all__ or self.env.docname.endswith(f".{name}"):
            return None
        value = getattr(sk_adalora, name)
        known = members_of(value) if member and inspect.isclass(value) else {}
        if member and known.get(member) != "sk_adalora":
            return None
        return f"sk_adalora.{name}" + (f".{member}" if member else "")

    def stands_in_a_link_or_title(self, node):
        while node := node.parent:
            if isinstance(node, nodes.reference | nodes.title | pending_xref):
                return True
        return False


def link_other_packages(app, env, node, shown):
    """A reference to a name of another package, or None."""
    address = OTHER_PACKAGES.get(node.get("reftarget", "").split(".")[0])
    if node.get("refdomain") != "py" or address is None:
        return None
    target = address.format(node["reftarget"])
    return nodes.reference("", "", shown, internal=False, refuri=target)


def source_of(app, module, name):
    """The module that a public name, or a member of one, is written in, for viewcode.

    Classes say that they are of the package itself, for the pickles' sake.
    """
    home = sk_adalora._HOMES.get(name.split(".")[0])
    return f"sk_adalora{home}" if module == "sk_adalora" and home else None


def setup(app):
    app.connect("missing-reference", link_other_packages)
    app.connect("viewcode-follow-imported", source_of)
    app.connect("config-inited", write_api_pages)
    app.connect("source-read", read_overview)
    app.add_transform(LinkNames)
    return {"parallel_read_safe": True}
