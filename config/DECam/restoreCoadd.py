# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

# Overrides of RestoreCoaddConfig for the Dark Energy Camera.

# The sky map of obs_decam is one of rings without cells, with pixels of 0.262
# arcsec (the detector has 0.263) and patches of 4000 pixels with 100 pixels of
# border: 100 is the largest size that divides 4200 and, at the edge of a tract,
# 4100.  On hsc_rings_v1 the same holds.
config.cell_size = 100

# 3.8 pixels of 0.262 arcsec.  Detector pixels sample a PSF of 0.9 arcsec with
# 3.4 pixels: well below 1 arcsec there is little in the exposures that the
# pixels have not averaged away.
config.target_fwhm = 1.0

# The coadds of DECam leave out pixels close to saturation, but keep those
# corrected for crosstalk (pipelines/_ingredients/DECam/DRP.yaml of drp_pipe).
config.preparation.mask_planes["SUSPECT"] = "exclude"

# No pipeline of DECam in drp_pipe makes its warps with sky corrections
# (doApplyNewBackground of makeDirectWarp), and neither is one used here.
config.preparation.do_apply_sky_correction = False
