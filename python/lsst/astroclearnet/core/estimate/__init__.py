# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The sky, estimated: linear filters, networks, debiasing."""

from ._bank import SMOOTHED_FWHMS, FilterBank, bank_noise, log_noise_ratios, mix_by_prior
from ._debias import Debiaser
from ._estimator import BandImage, Estimate, Estimator, Network
from ._fit import FitHistory, ProgressCallback, fit_network, held_out_loss, held_out_residuals
from ._linear import LinearEstimator
from ._model_file import describe_bytes, read_model_file, write_model_file
from ._network import MixingNetwork, make_layer
from ._precision import Precision
from ._restoration_model import RestorationModel, TrainedRange, load_packaged_model
from ._restoration_network import RestorationNetwork
from ._samples import TrainingSample, make_samples, sample_boxes
from ._solves import SolveStatus, collect_solves, record_solve
from ._star_image import penalty_weight_for_residual
from ._target_psf import (
    gaussian_pair_limit,
    linear_noise,
    linear_psf_residual,
    psf_fit_scatter,
    suggest_target_fwhm,
)

__all__ = (
    "SMOOTHED_FWHMS",
    "BandImage",
    "Debiaser",
    "Estimate",
    "Estimator",
    "FilterBank",
    "FitHistory",
    "LinearEstimator",
    "MixingNetwork",
    "Network",
    "Precision",
    "ProgressCallback",
    "RestorationModel",
    "RestorationNetwork",
    "SolveStatus",
    "TrainedRange",
    "TrainingSample",
    "bank_noise",
    "collect_solves",
    "describe_bytes",
    "fit_network",
    "gaussian_pair_limit",
    "held_out_loss",
    "held_out_residuals",
    "linear_noise",
    "linear_psf_residual",
    "load_packaged_model",
    "log_noise_ratios",
    "make_layer",
    "make_samples",
    "mix_by_prior",
    "penalty_weight_for_residual",
    "psf_fit_scatter",
    "read_model_file",
    "record_solve",
    "sample_boxes",
    "suggest_target_fwhm",
    "write_model_file",
)
