"""Settings of the documentation site.

    pip install -e ".[docs]"
    sphinx-build -W --keep-going docs docs/_build

Nothing is downloaded while it builds. `-D plot_gallery=0` leaves the examples out.
"""

import sys
import warnings
from pathlib import Path

import sk_adalora

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
    "sphinx_gallery.gen_gallery",
    # Ours, in docs/_extensions.
    "api_pages",
    "gallery_pages",
    "outer_pages",
]
source_suffix = {".md": "markdown", ".markdown": "markdown", ".rst": "restructuredtext"}
root_doc = "index"
exclude_patterns = ["_build", "_templates", "_extensions", "sg_execution_times.rst"]
templates_path = ["_templates"]
nitpicky = True
# Without a network there is nothing to resolve other packages' names with.
nitpick_ignore_regex = [("py:.*", r"(sklearn|torch|optuna|transformers)\b.*")]
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

# The gallery: each example is run once, two at a time: a second core shortens one of
# them by a quarter only. examples/index.rst is its first page, by sections.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"[/\\]plot_",
    "ignore_pattern": "^(?!plot_)",  # of the file's name
    "copyfile_regex": r"index\.rst",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "generated/gallery",
    "reset_modules": ("matplotlib", "gallery_pages.style"),
    "image_srcset": ["2x"],
    "first_notebook_cell": first_notebook_cell(),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "plot_gallery": "True",
    "parallel": 2,
}

# joblib starts a process anew when it has grown, and says so.
warnings.filterwarnings("ignore", message="A worker stopped while some jobs")

html_theme = "pydata_sphinx_theme"
html_title = "sk-adalora"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"**": ["contents.html"]}
html_theme_options = {
    "navbar_center": ["sections.html"],
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
}
