"""How Sphinx builds these pages: `make docs`. Nothing is fetched from the network."""

import re
from importlib import metadata

from sphinx.pycode import ModuleAnalyzer

project = "swd_jax"
author = "The swd_jax authors"
copyright = author
release = version = metadata.version("swd-jax")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
nitpicky = False
default_role = "py:obj"  # `swd` in a docstring is a link where there is something

# Pages are Markdown, with $maths$ and ::: directives.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say it in words
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False

# Copy what is typed, not the prompts or what is printed.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"swd_jax {release}"
html_static_path = ["_static"]


_NORM = re.compile(r"\|+\w[\w ]*\|+(?: / \|+\w+\|+)?")
# An indented paragraph in a docstring is a formula: shown as it is typed.
_FORMULA = re.compile(r"(?<=\n\n) {4}\S[^\n]*(?:\n {4}[^\n]*)*(?=\n\n)")


def _words_beside(name):
    """What stands below a criterion, in the module that makes it."""
    found = {}
    for module in ("_criteria", "_gradient_criteria", "_lamp"):
        found |= ModuleAnalyzer.for_module(f"swd_jax.{module}").find_attr_docs()
    return found["", name]


def mend_docstring(app, what, name, *others):
    """Prepare a docstring for napoleon, which reads Google's style."""
    lines = others[-1]
    if what == "data":  # its own words are beside it, not in its class
        words = _words_beside(name.rpartition(".")[2])
        lines[:] = [_NORM.sub("``\\g<0>``", line) for line in words]
    if what in {"attribute", "data"}:
        lines.insert(0, "\\ ")  # or words before a colon would be taken for a type
    rule, *sections = re.split(r"\n(?=Args:|Returns:)", "\n".join(lines), maxsplit=1)
    rule = _FORMULA.sub(lambda formula: f"::\n\n{formula[0]}", rule)
    lines[:] = "\n".join([rule, *sections]).split("\n")


def setup(app):
    # Earlier than napoleon, which has the default priority of 500.
    app.connect("autodoc-process-docstring", mend_docstring, priority=400)
