# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sphinx configuration of the documentation of this package.

The build and the pages need no network: the theme brings its fonts and
scripts along, formulae are MathML, and no inventory of another project is
read.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from jupyter_client.manager import KernelManager

from lsst.astroclearnet import __version__

# Else the kernel of the notebook warns that it listens without encryption.
if hasattr(KernelManager, "transport_encryption"):
    KernelManager.transport_encryption.default_value = "auto"

project = "lsst.astroclearnet"
author = "The lsst.astroclearnet developers"
copyright = f"2026 {author}"
version = release = __version__
exclude_patterns = ["_build", "changes"]

# Names in single backticks are links, and errors where they lead nowhere.
default_role = "py:obj"
extensions = [
    "code_reference",
    "constant_docs",
    "mathml",
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_automodapi.automodapi",
]

html_theme = "pydata_sphinx_theme"
html_title = project
html_math_renderer = "mathml"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navigation_depth": 3,
    "show_toc_level": 2,
    "navbar_end": ["theme-switcher"],
}

# Types stand in the annotations, docstrings do not repeat them.
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
automodapi_inheritance_diagram = False
automodapi_toctreedirnm = "lsst.astroclearnet/api"
automodsumm_inherited_members = False
maximum_signature_line_length = 90
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Notebooks are executed by every build, and one that fails stops it; but for
# the one that needs the repository of the demonstration.
nb_execution_mode = "force"
nb_execution_excludepatterns = ["notebooks/look-at-coadds.ipynb"]
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_execution_show_tb = True
myst_enable_extensions = ["dollarmath"]

nitpicky = True
# Names that lead nowhere, for three reasons.
# Other projects' would need their inventories, which are on the network.
_OTHERS = (
    "abc|annotated_types|astropy|collections|contextlib|enum|galsim|healsparse|logging|matplotlib|np|numpy|os|"
    "parsl|pathlib|pydantic|rich|scipy|torch|typing|urllib|lsst\\.(?!astroclearnet)[a-z]+"
)
# The base classes of tasks, connections, configurations, formatters and models
# document what is inherited from them with short names of their own.
_INHERITED = (
    r"LsstLogAdapter|connectionTypes\..*|Task\.run|Input|ConfigDict|ConfigurableInstance|QuantumContext|"
    "InputQuantizedConnection|OutputQuantizedConnection|PipelineTaskConnections|PipelineTaskConfig|Config|Task|"
    "QuantumGraph|FileDescriptor|DatasetRef|get_write_extension|"
    # Made from the options; their fields are on the page of the configuration.
    "RestorationConfig|TrainingConfig"
)
nitpick_ignore_regex = [
    (r"py:.*", rf"({_OTHERS})(\..*)?"),
    (r"py:.*", _INHERITED),
    # Annotations have type aliases, imports for type checking and helpers,
    # which are no part of the public interface.
    (r"py:class", r"lsst\.astroclearnet(\.[a-z_]+){2,3}\.\w+"),
    (r"py:class", r"Box|Figure"),
    (r"py:obj", r"True|False|None"),
]
