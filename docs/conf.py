"""Settings of the documentation site.

    pip install -e ".[docs]"
    sphinx-build -W --keep-going docs docs/_build

Nothing is downloaded while it builds. `-D plot_gallery=0` leaves the examples out.
"""

import os
import sys
import warnings
from pathlib import Path

import sk_adalora
from sk_adalora.runtime.doc_links import DOCUMENTATION

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE)]

from gallery_pages import first_notebook_cell  # noqa: E402

project = "sk-adalora"
author = "The sk-adalora developers"
copyright = author
version = release = sk_adalora.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "sphinxext.opengraph",
    # Ours, in docs/_extensions.
    "api_pages",
    "gallery_pages",
    "outer_pages",
    "playground",
]
source_suffix = {".md": "markdown", ".markdown": "markdown", ".rst": "restructuredtext"}
root_doc = "index"
exclude_patterns = ["_build", "_templates", "_extensions"]
templates_path = ["_templates"]
nitpicky = True
# api_pages links the names of scikit-learn and torch, without their inventories.
nitpick_ignore_regex = [("py:.*", r"(optuna|transformers)\b.*")]
# Names out of docstrings of scikit-learn, which the search inherits.
nitpick_ignore = [("std:term", "fit")]
nitpick_ignore += [("py:obj", name) for name in ("classes_", "n_features_in_")]
default_role = "literal"
smartquotes = False  # defaults stand in the text as they are in the code

# Markdown: headings have the anchors that code hosts give them.
myst_heading_anchors = 4

toc_object_entries_show_parents = "hide"

# Docstrings: types are in their text; the members of a class are on its page.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False

# What is copied can be run: no prompts, and no button beside what a program prints.
copybutton_selector = (
    "div:not(.highlight-text, .highlight-none, .sphx-glr-script-out)"
    " > div.highlight pre"
)
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# The gallery: each example is run once, two at a time: a second core shortens one of
# them by a quarter only. examples/index.rst is its first page, by sections.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "doc_module": ("sk_adalora",),
    "filename_pattern": r"[/\\]plot_",
    "ignore_pattern": "^(?!plot_)",  # of the file's name
    "copyfile_regex": r"index\.rst",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "generated/gallery",  # the API pages show them
    "reset_modules": ("matplotlib", "gallery_pages.style"),
    "image_srcset": ["2x"],
    "first_notebook_cell": first_notebook_cell(),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "plot_gallery": "True",
    "parallel": 2,
}

# joblib starts a process anew when it has grown, and says so.
warnings.filterwarnings("ignore", message="A worker stopped while some jobs")

html_theme = "pydata_sphinx_theme"
html_title = "sk-adalora"
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", f"{DOCUMENTATION}/")
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(HERE / "search_scorer.js")
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"**": ["contents.html"]}
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_center": ["sections.html"],
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": {"**": ["page-toc"], "understand/playground": []},
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
}

# What a link to a page looks like in a chat.
ogp_site_url = html_baseurl
ogp_site_name = html_title
ogp_image = "_static/card.png"
ogp_image_alt = "sk-adalora: fine-tune a text transformer like any other estimator"
ogp_social_cards = {"enable": False}
