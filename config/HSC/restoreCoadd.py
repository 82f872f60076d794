# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

# Overrides of RestoreCoaddConfig for Hyper Suprime-Cam on hsc_rings_v1.

# Inner boxes of that sky map have 4000 pixels a side and 100 pixels of border,
# so that outer boxes have 4200, and 4100 at the edge of a tract.  100 is the
# largest size that divides both, and because it divides 4000 too, patches have
# their cells in common where they overlap.
config.cell_size = 100

# 4.2 pixels of 0.168 arcsec.  The median seeing of the second public data
# release is 0.60 (i), 0.67 (N921), 0.69 (z), 0.74 (r, y) and 0.81 arcsec (g)
# (config/fiducialPsfSigma.py of obs_subaru, times 2.355 pixels).  One PSF for
# all bands, so that colours can be measured.  For Gaussian PSFs of these widths
# it costs, in blank-sky rms of a linear restoration over that of the
# inverse-variance coadd, 1.7 in g, 0.8 in y and less elsewhere; max_noise
# allows 2.  `astroclearnet plan REPO --common` gives the value for a field.
config.target_fwhm = 0.7

# The coadds of HSC leave out pixels close to saturation, whose response is not
# linear, but keep those corrected for crosstalk (config/assembleCoadd.py of
# obs_subaru).
config.preparation.mask_planes["SUSPECT"] = "exclude"

# The Wide layer sees a position four to six times.  Two exposures that differ
# do not tell which of them is wrong, so three is where artefacts are found.
config.min_exposures = 3
