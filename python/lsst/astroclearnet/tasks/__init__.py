# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pipeline tasks."""

from ._checkpoint import *
from ._detection_coadd import *
from ._errors import *
from ._metrics import *
from ._patch_exposures import *
from ._patch_exposures_config import *
from ._products import *
from ._progress import *
from ._property_maps import *
from ._quality_limits import *
from ._quality_metrics import *
from ._quality_units import *
from ._quantum_inputs import *
from ._restoration_figure import *
from ._restore_patch import *
from ._train_network import *
from ._training_patches import *
from ._training_products import *
from ._warnings import *
from .inject_sources import *
from .make_color_pictures import *
from .make_deblender_coadd import *
from .make_property_maps import *
from .make_tract_picture import *
from .measure_injections import *
from .measure_objects import *
from .measure_restoration import *
from .prepare_exposures import *
from .restore_coadd import *
from .restore_coadd_bands import *
from .restore_coadd_bands_config import *
from .restore_coadd_config import *
from .select_exposures import *
from .summarize_restoration import *
from .train_restoration import *
from .train_restoration_bands import *
from .train_restoration_bands_config import *
from .train_restoration_config import *
