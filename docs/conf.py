"""Settings of the documentation: ``sphinx-build -W docs build/docs``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import fastctc

project = "fastctc"
author = "the fastctc authors"
copyright = "the fastctc authors; Apache-2.0"  # noqa: A001  Sphinx's name
version = release = fastctc.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "drawn",
    "executed",
    "external",
    "prose",
    "mathml",
]
exclude_patterns = ["_extensions", "training/*.md~"]
nitpicky = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autodoc_type_aliases = {name: name for name in ("ImageLike", "Image", "Lengths", "Pixels")}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"fastctc {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0062a3", "color-brand-content": "#0062a3"},
    "dark_css_variables": {"color-brand-primary": "#6cb8f0", "color-brand-content": "#6cb8f0"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_prompt_text = r"^(>>> |\$ )"
copybutton_prompt_is_regexp = True
copybutton_selector = "div.highlight pre:not(.executed-output pre)"
