# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

# Overrides of RestoreCoaddConfig for LSSTCam on a sky map with cells.

# 4 pixels of 0.2 arcsec.  The fiducial seeing of SMTN-002 is 0.81 (u), 0.77
# (g), 0.73 (r), 0.71 (i), 0.69 (z) and 0.68 arcsec (y)
# (config/lsstCam/fiducialPsfSigma.py of obs_lsst, times 2.355 pixels): at 0.8
# no band but u is sharpened in fiducial conditions, and the noise stays below
# 0.6 of that of the inverse-variance coadd.  Conditions that are met may be
# worse; `astroclearnet plan REPO --common` measures them.
config.target_fwhm = 0.8

# What the coadds of LSSTCam leave out beyond those of other cameras
# (config/lsstCam/assembleCellCoadd.py of obs_lsst).  Spikes turn with the
# camera and cannot be a part of one sky; ITL dips are no light at all.
for plane in ("SUSPECT", "SPIKE", "PARTLY_VIGNETTED", "VIGNETTED", "ITL_DIP"):
    config.preparation.mask_planes[plane] = "exclude"

# The limits on the PSF of single detectors with which warps are made
# (config/lsstCam/makeDirectWarp.py of obs_lsst): what is left out there is left
# out here, so that deep and restored coadds have the same exposures.
config.selection.exclude_detectors = [0, 20, 27, 65, 123, 161, 168, 188]
config.selection.max_ellipticity_residual = 0.19
config.selection.max_scaled_size_scatter = 0.07
config.selection.max_psf_trace_radius_delta = 4.4
config.selection.max_psf_ap_flux_delta = 1.6
config.selection.max_psf_ap_corr_sigma_scaled_delta = 0.15
config.selection.max_star_ellipticity = 0.2
config.selection.max_star_unnormalized_ellipticity = 2.3

# Cells are those of the sky map (150 pixels); this is for one without.
config.cell_size = 100
