"""The configuration of the documentation site. `make docs` builds the site in build/docs.

The source folder is the root of the repository, so that links between docs/, examples/ and the README are the same on
the site and in the repository.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")

import django

import instaccess

# The modules with models and views can only be imported after Django's setup.
django.setup()

project = "django-instaccess"
author = "The authors of django-instaccess"
version = release = instaccess.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "examples/*/README.md"]
# docs/index.md replaces the README on the site. Sphinx searches all folders that are not listed here.
exclude_patterns = [
    "README.md",
    ".*",
    "build",
    "dist",
    "instaccess",
    "tests",
    "testproject",
    "benchmarks",
    "**/__pycache__",
]

# Headings get the anchors that GitHub generates, so links to headings work both on the site and on GitHub.
myst_heading_anchors = 4
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100
# Without this setting, Sphinx would replace `--` by a dash, so readers could not copy the options of commands.
smartquotes = False
# In docstrings, single backticks mark code.
default_role = "code"

# The site is built offline, without the documentation of other packages, so the names of other packages have no link
# target. The types of this package that appear only in signatures have no link target either.
nitpick_ignore_regex = [
    ("py:.*", r"(?!instaccess\b).*"),
    ("py:class", r"instaccess\.(audit|conf|exceptions\.Reason|models|service\.request_authentication)\b.*"),
]

html_theme = "furo"
html_title = f"django-instaccess {release}"
html_baseurl = ""
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_extra_path = ["site"]
