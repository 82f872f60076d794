# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Between `lsst.images` objects and the arrays of the core."""

from ._backgrounds import *
from ._calibrated_sources import *
from ._cell_coadd import *
from ._coadd_arrays import *
from ._direct_warp import *
from ._exposure_arrays import *
from ._exposure_id import *
from ._exposure_source import *
from ._legacy import *
from ._legacy_coadd import *
from ._mask_planes import *
from ._patch_arrays import *
from ._patch_exposure import *
from ._patch_geometry import *
from ._patch_summary import *
from ._piff_compat import *
from ._pixel_map import *
from ._provenance import *
from ._provenance_compat import *
from ._psf import *
from ._recalibration import *
from ._scratch import *
from ._visit_components import *
from ._visit_cutout import *
from ._visit_image import *
from ._visit_psf import *
