# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training of the network on many patches."""

from ._joint import JointSample, JointTrainer, collect_joint_samples, draw_guide
from ._patches import collect_samples
from ._trainer import Trainer

__all__ = ("JointSample", "JointTrainer", "Trainer", "collect_joint_samples", "collect_samples", "draw_guide")
