"""How Sphinx builds these pages: `make docs`. Nothing is fetched from the network."""

from importlib import metadata

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

# Pages are Markdown, with $maths$ and ::: directives.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Copy what is typed, not the prompts or what is printed.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"swd_jax {release}"
html_static_path = ["_static"]
