# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Joint restoration of several bands: each with the help of the others."""

from ._guided_bank import Guide, GuidedBank, make_guide
from ._joint_model import JointModel, load_packaged_joint_model
from ._joint_network import JointNetwork
from ._white_image import WhiteEstimator

__all__ = (
    "Guide",
    "GuidedBank",
    "JointModel",
    "JointNetwork",
    "WhiteEstimator",
    "load_packaged_joint_model",
    "make_guide",
)
