"""Settings of Sphinx. `tools/make_book.py` puts the pages beside this file and builds them."""

import re
from typing import Any

from book_docstrings import as_rest
from docutils import nodes
from formulas import draw
from make_book import repository
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import diffseg

project = "diffseg"
author = "The diffseg developers"
copyright = f"{author}. Prose and figures CC BY 4.0, code MIT"
release = diffseg.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["extra"]
root_doc = "index"

# Notebooks are shown as they are stored.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # no scripts from elsewhere: nothing stored needs them
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]

# The reference.
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
default_role = "code"
add_module_names = False
python_maximum_signature_line_length = 88
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"
# Other libraries' names are not linked, since the book works offline, and neither is what the widgets are made of.
nitpick_ignore_regex = [(r"py:.*", r"(?!diffseg).*"), ("py:class", r"diffseg\.widgets\.lessons\.shared\.Panel")]

# Pages.
html_theme = "sphinx_book_theme"
html_title = "diffseg"
html_static_path = ["_static"]
html_extra_path = ["extra"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
OWNER_AND_NAME = repository()
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
    "navbar_persistent": [],
    "search_bar_text": "Search the book",
    "extra_footer": "",
}
if OWNER_AND_NAME:
    html_theme_options |= {
        "repository_url": f"https://github.com/{OWNER_AND_NAME}",
        "repository_branch": "main",
        "path_to_docs": "",
        "use_repository_button": True,
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        },
    }


# ---- formulas, drawn without a script ----


def inline_formula(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(draw(node.astext(), "inline"))
    raise nodes.SkipNode


def displayed_formula(translator: HTML5Translator, node: nodes.math_block) -> None:
    lines = [line for line in re.split(r"\n\s*\n", node.astext()) if line.strip()]
    formulas = "".join(f"<div>{draw(line, 'block')}</div>" for line in lines)
    translator.body.append(f'<div class="formula">{formulas}</div>')
    raise nodes.SkipNode


def read_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rest(lines)


def skip_constants(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """The reference lists functions and classes."""
    return True if what == "module" and not callable(thing) else None


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_constants)
