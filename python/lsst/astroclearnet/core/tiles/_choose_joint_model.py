# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Which joint network restores bands together, and whether it suits them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from .._errors import InputError
from .._options import RestoreOptions
from ..estimate import RestorationModel, load_packaged_model
from ..joint import JointModel, load_packaged_joint_model
from ._choose_network import FITTED, ChosenNetwork

_LOG = logging.getLogger(__name__)


def choose_joint_model(
    bands: Collection[str],
    model: JointModel | None,
    options: RestoreOptions,
    models: Mapping[str, RestorationModel] | None,
) -> JointModel | None:
    """Return the joint model of some bands, before their exposures are read.

    Parameters
    ----------
    bands
        The bands.
    model
        The one that is given; by default that of the package.
    options
        Settings.
    models
        Trained network of each band, if they are given.

    Returns
    -------
    model : `JointModel` or `None`
        The joint model; `None` for a single band.

    Raises
    ------
    InputError
        If what is known of the networks of the bands forbids it.
    """
    if len(bands) < 2:
        return None
    model = model if model is not None else load_packaged_joint_model()
    expected = {band: _expect_network(band, options, models) for band in bands}
    _require_penalty_weights(model, {band: weights for band, (_, weights) in expected.items()})
    # One at a time: how many bands can be restored is not known yet.
    for identity in sorted({identity for identity, _ in expected.values()}):
        _find_doubt(model, [identity], options)
    return model


def check_joint_model(model: JointModel, chosen: Mapping[str, ChosenNetwork], options: RestoreOptions) -> str:
    """Return why a joint model may not suit bands; nothing if it does.

    Parameters
    ----------
    model
        The joint model.
    chosen
        Network of each band.
    options
        Settings.

    Raises
    ------
    InputError
        If penalty weights differ between bands, it takes another number of
        them, or it does not suit the networks and the options say that this
        is an error.
    """
    _require_penalty_weights(model, {band: each.network.penalty_weights for band, each in chosen.items()})
    doubt = _find_doubt(model, [each.identity for each in chosen.values()], options)
    if doubt:
        _LOG.warning("%s", _describe(model, doubt))
    return doubt


def _expect_network(
    band: str, options: RestoreOptions, models: Mapping[str, RestorationModel] | None
) -> tuple[str, tuple[float, ...]]:
    """Return identity and penalty weights of the network that the options ask
    for.
    """
    if options.model.source == "fit":
        return FITTED, options.network.penalty_weights
    model = load_packaged_model() if models is None else models[band]
    return model.identity, model.network.penalty_weights


def _require_penalty_weights(model: JointModel, found: Mapping[str, tuple[float, ...]]) -> None:
    """Refuse networks whose penalty weights are too many, too few, or not
    those of all bands.
    """
    number = model.network.num_penalty_weights
    for band, weights in found.items():
        if len(weights) != number:
            raise InputError(
                f"The network of band {band} has {len(weights)} penalty weights, and the joint network "
                f"{model.identity} takes {number}."
            )
    # Linear estimates of bands are averaged one by one.
    if len(set(found.values())) > 1:
        shown = "; ".join(f"{band} {weights}" for band, weights in sorted(found.items()))
        raise InputError(
            f"The networks of all bands must have the same penalty weights, not {shown}: train them with the "
            "same ones."
        )


def _find_doubt(model: JointModel, identities: Collection[str], options: RestoreOptions) -> str:
    """Return why it may not suit networks; raise if that is an error."""
    doubt = model.find_departure(list(identities))
    if doubt and options.model.unsuitable == "fail":
        raise InputError(f"{_describe(model, doubt)} Train one, or set unsuitable to 'flag'.")
    return doubt


def _describe(model: JointModel, doubt: str) -> str:
    """Return the doubt in a sentence."""
    return f"The joint network {model.identity} may not suit the bands: {doubt}."
