"""Check that the links of a built site lead somewhere, anchors included.

    python docs/check_links.py docs/_build

Only links inside the site are followed; nothing is fetched. The links from the HTML
representation of estimators, to their pages and to parameters there, are checked too.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ADDRESSES = {"a": "href", "link": "href", "img": "src", "script": "src"}


class Page(HTMLParser):
    """The anchors of a page, and the addresses that it points to."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.addresses, self.text = {"", "top"}, [], ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[k] for k in ("id", "name") if values.get(k)}
        address = values.get(ADDRESSES.get(tag))
        if address:
            self.addresses.append(address)

    def handle_data(self, data):
        self.text += data


def broken_links(site):
    """Lines "page: address" for each link that leads nowhere."""
    paths = [p for p in sorted(site.rglob("*.html")) if "_static" not in p.parts]
    pages = {path: Page(path) for path in paths}  # _static holds templates
    if not pages:
        raise SystemExit(f"a built site must lie in the folder. Got none in {site}.")
    for path, page in pages.items():
        for address in page.addresses:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
            known = pages.get(target)
            inside = target.is_relative_to(site)  # what lies around is not published
            if not (inside and target.exists()) or (
                known and unquote(parts.fragment) not in known.anchors
            ):
                yield f"{path.relative_to(site)}: {address}"


def broken_links_of_estimators(site):
    """The same for the links that notebooks show beside estimators."""
    from sklearn.utils._repr_html.common import generate_link_to_param_doc

    import sk_adalora
    from sk_adalora.runtime.doc_links import DOCUMENTATION

    for cls in (sk_adalora.AdaLoraClassifier, sk_adalora.AdaLoraRegressor):
        link = cls()._get_doc_link()
        file = site / link.removeprefix(DOCUMENTATION).lstrip("/")
        if not file.is_file():
            yield f"{cls.__name__}: {link or 'no link'}"
            continue
        text = Page(file).text
        for name in cls().get_params():
            place = generate_link_to_param_doc(cls, name, link) or ""
            words = unquote(place.partition("#:~:text=")[2]).replace(",-", "", 1)
            if not words or words not in text:
                yield f"{cls.__name__}.{name}: {place or 'no link'}"


def main(folder):
    site = Path(folder).resolve()
    broken = sorted({*broken_links(site), *broken_links_of_estimators(site)})
    print("\n".join([*broken, f"{len(broken)} broken links"]))
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
