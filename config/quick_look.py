# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

# Overrides of RestoreCoaddConfig for a first look in a fraction of the time:
#   -C restoreCoadd:$ASTROCLEARNET_DIR/config/quick_look.py
# The variances follow from a single draw of the noise, and a network that is
# fitted (restoration.model) is stopped early, on one sample of each patch: do
# not publish what comes out.

config.restoration.fit.num_samples = 1
config.restoration.fit.max_epochs = 8
config.restoration.noise.num_draws = 1
config.restoration.noise.num_realizations = 0
config.do_plot = False
