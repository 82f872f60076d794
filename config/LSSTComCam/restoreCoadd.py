# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

# Overrides of RestoreCoaddConfig for LSSTComCam, as in Data Preview 1.

# 5 pixels of 0.2 arcsec.  Commissioning took data in seeing that drp_pipe cuts
# at 1.7 arcsec only (selectDeepCoaddVisits), well above the fiducial values of
# the camera; what would do for LSSTCam costs too much noise here.  Its nine
# detectors dither little: fix the value with `astroclearnet plan` for a field.
config.target_fwhm = 1.0

# As all cameras of Rubin; ComCam has no plane SPIKE or PARTLY_VIGNETTED.
config.preparation.mask_planes["SUSPECT"] = "exclude"

# The limits with which warps of Data Preview 1 were made
# (config/comCam/makeDirectWarp.py of obs_lsst).
config.selection.max_ellipticity_residual = 0.0055
config.selection.max_scaled_size_scatter = 0.022
config.selection.max_psf_trace_radius_delta = 4.4
config.selection.max_psf_ap_flux_delta = 1.6
config.selection.max_psf_ap_corr_sigma_scaled_delta = 0.13
# There it is 6 in u and 15 in the other bands; one value must do for all here.
config.selection.min_psf_stars = 6

# Cells are those of the sky map (150 pixels); this is for one without.
config.cell_size = 100
