"""Configuration of Sphinx: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import os
import sys
import warnings
from pathlib import Path

from sphinx.application import Sphinx

import densekit

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pages  # noqa: E402  (a module in this folder)

project = "densekit"
author = "the densekit developers"
project_copyright = author
version = release = densekit.__version__

extensions = [
    "mathml",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "**/README.txt"]
nitpicky = True
# Abstract hooks and third-party classes have no page. Intersphinx would need network access.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|pyro|sklearn|numpy|pandas|nn|np|pd)\..*"),
    # numpydoc links attributes that are properties to pages that do not exist.
    ("py:obj", r"(mean|covariance|means|covariances)_"),
]
intersphinx_mapping: dict = {}

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request"}
numpydoc_show_class_members = False
add_module_names = False
python_display_short_literal_types = True

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "examples",
    "within_subsection_order": "FileNameSortKey",
    # The page of a model lists the examples that use it.
    "backreferences_dir": "examples/backreferences",
    "doc_module": ("densekit",),
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 1,
    "download_all_examples": False,
    "abort_on_example_error": True,
    "show_signature": False,
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "densekit"
html_static_path = ["_static"]
html_css_files = ["densekit.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "navigation_depth": 2,
}
html_sidebars = {
    page: [] for page in ("index", "start", "concepts", "datasets", "changelog", "architecture")
}

# Matplotlib builds its font cache once per machine, with a warning.
warnings.filterwarnings("ignore", message="Matplotlib is building the font cache")


def setup(app: Sphinx) -> None:
    """Generate pages from the package before Sphinx looks for pages."""
    pages.write(HERE, HERE.parent / "benchmarks" / "results")
    app.connect("build-finished", pages.copy_reports)
