# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sphinx configuration for a build of this package's documentation alone."""

project = "lsst.astroclearnet"
copyright = "2026 The lsst.astroclearnet developers"
html_title = project
exclude_patterns = ["_build", "changes"]
