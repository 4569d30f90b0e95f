"""Configuration of Sphinx for `make docs`. Nothing is fetched from the network."""

import pkgutil
import re
from importlib import metadata

from sphinx.pycode import ModuleAnalyzer

from swd_jax import criteria

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
default_role = "py:obj"  # `swd` in a docstring is a link if there is such an object

# Pages are Markdown, with $maths$ and ::: directives.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say it in words
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False

# The copy button copies the input, without prompts and printed output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"swd_jax {release}"
html_static_path = ["_static"]


_NORM = re.compile(r"\|+\w[\w ]*\|+(?: / \|+\w+\|+)?")
# An indented paragraph in a docstring is a formula, shown as a literal block.
_FORMULA = re.compile(r"(?<=\n\n) {4}\S[^\n]*(?:\n {4}[^\n]*)*(?=\n\n)")


def _attribute_docstring(name):
    """Return the string below the definition of a criterion, as lines."""
    docstrings = {}
    for module in pkgutil.iter_modules(criteria.__path__, "swd_jax.criteria."):
        docstrings |= ModuleAnalyzer.for_module(module.name).find_attr_docs()
    return docstrings["", name]


def mend_docstring(app, what, name, *others):
    """Prepare a docstring for napoleon, which reads Google's style."""
    lines = others[-1]
    if what == "data":  # autodoc takes the docstring of the class `Criterion`
        docstring = _attribute_docstring(name.rpartition(".")[2])
        lines[:] = [_NORM.sub("``\\g<0>``", line) for line in docstring]
    if what in {"attribute", "data"}:
        lines.insert(0, "\\ ")  # napoleon takes words before a colon for a type
    rule, *sections = re.split(r"\n(?=Args:|Returns:)", "\n".join(lines), maxsplit=1)
    rule = _FORMULA.sub(lambda formula: f"::\n\n{formula[0]}", rule)
    lines[:] = "\n".join([rule, *sections]).split("\n")


def setup(app):
    # Earlier than napoleon, which has the default priority of 500.
    app.connect("autodoc-process-docstring", mend_docstring, priority=400)
