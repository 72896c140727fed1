"""Settings of the documentation: ``sphinx-build -W --keep-going -b html docs build/docs``."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.application import Sphinx

import fastctc

DOCS = Path(__file__).parent
# The executed pages import the drawings, and run the command and its Python.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(DOCS), os.environ.get("PYTHONPATH"))))
os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
os.environ["COLUMNS"] = "88"
os.environ["TQDM_DISABLE"] = "1"

project = "fastctc"
author = copyright = "the fastctc authors"
version = release = fastctc.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
nitpicky = True
# Types of other packages, and names of types in signatures that are not public.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(torch|nn|np|npt|numpy|PIL|matplotlib|collections|typing|pathlib|random|secrets|operator|os)\b.*",
    ),
    ("py:.*", r"fastctc\.scoring\.lexicon_scorer\.State"),
    ("py:.*", r"fastctc\.scoring\.rescore\.(Hypotheses|Scored)"),
    ("py:.*", r"fastctc\.compat\.torchaudio\.(files\.TokenList|knowledge\.Knowledge)|WordFrames"),
    ("py:.*", r"(Tensor|Axes|Figure|Image.*|Path|Random|Any|Counter|Callable|Iterable|Iterator|Sequence)"),
    ("py:.*", r"(bool|bytes|dict|float|int|list|object|range|str|tuple|None|frozenset|optional|\w+Error)"),
    (
        "py:.*",
        r"(Mapping|Collection|Protocol|NamedTuple|Literal|Lengths|Pixels|ImageLike|dict\[str|height|width|first_column|inputs)",
    ),
    # Parts of the recognizer that its docstrings mention, but that are not public.
    (
        "py:.*",
        r"(prepare|DOMAINS|fastctc\.text\.Span|fastctc\.reference\.Run|fastctc\.\w+\._\w+|fastctc\.crnn\.(data|report|training|formulas|read\.looking)\.\w+)",
    ),
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline", "attrs_block"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 900
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
autosummary_generate = False
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
html_math_renderer = "mathml"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0062a3", "color-brand-content": "#0062a3"},
    "dark_css_variables": {"color-brand-primary": "#6cb8f0", "color-brand-content": "#6cb8f0"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_prompt_text = r"^(>>> |\$ )"
copybutton_prompt_is_regexp = True
linkcheck_anchors = False


def write_math(display: str) -> Any:
    """Return a visitor that writes a formula as MathML, which browsers draw without a script."""

    def visit(writer: Any, node: Any) -> None:
        formula = convert(node.astext(), display=display)
        writer.body.append(f'<div class="formula">{formula}</div>' if display == "block" else formula)
        raise SkipNode

    return visit, None


def untype(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep Napoleon from reading text before a colon as a type, and docutils from reading (N) as a list."""
    lines[:] = [re.sub(r"(^\s*|^\s*[\w, ]+: )\(([A-Z])\)(?= )", r"\1\\(\2)", line) for line in lines]
    firsts = [i + 1 for i, line in enumerate(lines[:-1]) if line.strip() in ("Returns:", "Yields:")]
    for i in firsts + ([0] if what in ("attribute", "data", "property") and lines else []):
        lines[i] = re.sub(r"^(\s*)(?=\S)", r"\1: ", lines[i])


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas and the filter of docstrings."""
    app.add_html_math_renderer("mathml", write_math("inline"), write_math("block"))
    app.connect("autodoc-process-docstring", untype, priority=100)
