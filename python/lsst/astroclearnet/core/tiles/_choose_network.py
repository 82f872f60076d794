# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Which network restores a patch: a trained one, or one fitted to it."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence

import torch

from .._errors import InputError
from ..calibration import ExposureCalibration
from ..estimate import (
    FilterBank,
    FitHistory,
    LinearEstimator,
    MixingNetwork,
    Network,
    ProgressCallback,
    RestorationModel,
    TrainingSample,
    bank_noise,
    fit_network,
    held_out_loss,
    load_packaged_model,
    log_noise_ratios,
    make_samples,
    mix_by_prior,
    sample_boxes,
)
from ..exposures import Tile
from ..forward import CleanTile, TileReader

_LOG = logging.getLogger(__name__)

_NOTICEABLE_ERROR = 0.3
"""Error of an image, in sigma of the coadd, to which a larger loss amounts if
it matters: on blank sky the smoothest filter is a little better than a network
that looks for sources."""

FITTED = "fit"
"""Identity of a network that was fitted to the patch."""


@dataclasses.dataclass(frozen=True)
class ChosenNetwork:
    """A network for a patch, and why it is used.

    Attributes
    ----------
    network
        The network, on the device.
    identity
        Identity of the trained model; ``"fit"`` for one fitted to the patch.
    held_out_loss
        Mean Huber loss a pixel on held-out exposures; NaN if there are none.
    doubt
        Why the trained model may not suit the exposures; empty if it does.
    history
        Course of the fit.
    """

    network: Network
    identity: str
    held_out_loss: float
    doubt: str
    history: FitHistory


def choose_network(
    reader: TileReader,
    calibration: ExposureCalibration,
    model: RestorationModel | None,
    generator: torch.Generator,
    callback: ProgressCallback | None = None,
) -> ChosenNetwork:
    """Choose the network for a patch, as the options say.

    Parameters
    ----------
    reader
        The tiles.
    calibration
        Calibration of the exposures, with the settings.
    model
        The trained model, where the options say that it is given.
    generator
        Source of random numbers, on the CPU.
    callback
        Called after each epoch of a fit.

    Returns
    -------
    chosen : `ChosenNetwork`
        The network.

    Raises
    ------
    InputError
        If a model is missing or not asked for, or does not suit the exposures
        and the options say that the patch then fails.
    """
    options = calibration.options.model
    if (model is not None) != (options.source == "dataset"):
        raise InputError(
            f"Option source={options.source!r} of the model "
            + ("needs a trained model." if model is None else "does not go with a model that is given."),
            option="source",
        )
    if options.source == "fit":
        return _fit(reader, calibration, generator, callback)
    model = model if model is not None else load_packaged_model()
    chosen = _check(model, reader, calibration, generator)
    if not chosen.doubt:
        return chosen
    words = f"The {options.source} network {model.identity} may not suit the exposures: {chosen.doubt}."
    if options.unsuitable == "fail":
        raise InputError(f"{words} Train one on such exposures, or set unsuitable to 'flag' or 'fit'.")
    if options.unsuitable == "fit":
        _LOG.warning("%s A small one is fitted to the patch instead.", words)
        return dataclasses.replace(_fit(reader, calibration, generator, callback), doubt=chosen.doubt)
    _LOG.warning("%s", words)
    return chosen


def _check(
    model: RestorationModel, reader: TileReader, calibration: ExposureCalibration, generator: torch.Generator
) -> ChosenNetwork:
    """Compare conditions with the trained range, and predictions with those of
    the prior, from which a fit starts.
    """
    # The model is the caller's, or that of all restorations of the process.
    network = copy.deepcopy(model.network).to(reader.device)
    doubt, loss = "", math.nan
    with torch.no_grad():
        # The last box is the one with two exposures or more, if there is any.
        for clean in _read_boxes(reader, calibration, 1, generator):
            weights = clean.tile_data.stack.good / clean.variances
            number = int(clean.tile_data.stack.good.any(dim=(1, 2)).sum())
            linear = LinearEstimator(clean.tile_data.model, weights)
            ratios = log_noise_ratios(*bank_noise(linear, network.penalty_weights))
            doubt = doubt or model.trained_range.find_departure(ratios, number, reader.target_fwhm)
            # One fold has pixels enough: they tell losses apart to a tenth of
            # what is noticeable.
            samples = _make_samples(clean, network.penalty_weights, calibration, generator, most=1)
            if samples:
                loss = _mean_loss(network, samples, calibration)
                reference = _mean_loss(mix_by_prior, samples, calibration)
                # An error e of all pixels in sigma of the coadd adds e^2 / 2n.
                if loss - reference > 0.5 * _NOTICEABLE_ERROR**2 / number:
                    doubt = doubt or (
                        f"it predicts held-out exposures worse, with a loss of {loss:.4f} a pixel, than "
                        f"linear filters, with {reference:.4f}"
                    )
    return ChosenNetwork(network, model.identity, loss, doubt, FitHistory())


def _fit(
    reader: TileReader,
    calibration: ExposureCalibration,
    generator: torch.Generator,
    callback: ProgressCallback | None,
) -> ChosenNetwork:
    """Fit a small network to samples of the patch."""
    options = calibration.options
    network = MixingNetwork(options.network)
    network.initialize(generator)
    network.to(reader.device)
    samples: list[TrainingSample] = []
    most = 0
    with torch.no_grad():
        for clean in _read_boxes(reader, calibration, options.fit.num_samples, generator):
            most = max(most, int(clean.tile_data.stack.good.any(dim=(1, 2)).sum()))
            samples += _make_samples(clean, network.penalty_weights, calibration, generator)
    if not samples:
        reason = "one exposure" if most < 2 else "exposures do not overlap"
        history = FitHistory(stop_reason=f"{reason}: nothing to hold out, filters mixed as initialised")
    else:
        history = fit_network(network, samples, options.fit, generator=generator, callback=callback)
    loss = history.validation_loss[history.best_epoch] if history.loss else math.nan
    return ChosenNetwork(network, FITTED, loss, "", history)


def _read_boxes(
    reader: TileReader, calibration: ExposureCalibration, number: int, generator: torch.Generator
) -> Iterator[CleanTile]:
    """Yield boxes of the patch at random that have data, some of them with
    two exposures or more.
    """
    found = 0
    for rows, columns in sample_boxes(reader.source.shape, calibration.options.fit.sample_size, generator):
        try:
            tile_data = reader.read(Tile(rows, columns, rows, columns))
        except InputError:
            continue  # Its tile logs why.
        if tile_data is None or not calibration.has_data(tile_data):
            continue
        yield calibration.clean(tile_data)
        found += len(tile_data.exposures) > 1
        if found == number:
            return


def _make_samples(
    clean: CleanTile,
    penalty_weights: tuple[float, ...],
    calibration: ExposureCalibration,
    generator: torch.Generator,
    most: int | None = None,
) -> list[TrainingSample]:
    """Return samples of a box, each exposure held out of one at most."""
    stack, model = clean.tile_data.stack, clean.tile_data.model
    weights = stack.good / clean.variances
    if len(weights) < 2:
        return []
    return make_samples(stack, weights, model, penalty_weights, calibration.options.fit, generator, most)


def _mean_loss(
    network: Callable[[FilterBank], torch.Tensor],
    samples: Sequence[TrainingSample],
    calibration: ExposureCalibration,
) -> float:
    """Return the mean Huber loss a pixel over all samples."""
    total = number = 0.0
    for sample in samples:
        loss, used = held_out_loss(network, sample, calibration.options.fit.huber_delta)
        total, number = total + float((loss * used).sum()), number + float(used.sum())
    return total / max(number, 1.0)
