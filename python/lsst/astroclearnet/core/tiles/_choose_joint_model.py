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
    identities = set()
    for band in bands:
        identity, number = _expect_network(band, options, models)
        _require_size(model, band, number)
        identities.add(identity)
    # Of a band each: how many bands can be restored is not known yet.
    _find_doubt(model, identities, options)
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
        If it takes another number of penalty weights, or does not suit them
        and the options say that this is an error.
    """
    for band, each in chosen.items():
        _require_size(model, band, len(each.network.penalty_weights))
    doubt = _find_doubt(model, [each.identity for each in chosen.values()], options)
    if doubt:
        _LOG.warning("%s", _describe(model, doubt))
    return doubt


def _expect_network(
    band: str, options: RestoreOptions, models: Mapping[str, RestorationModel] | None
) -> tuple[str, int]:
    """Return identity and number of penalty weights of the network that the
    options ask for.
    """
    if options.model.source == "fit":
        return FITTED, len(options.network.penalty_weights)
    model = load_packaged_model() if models is None else models[band]
    return model.identity, len(model.network.penalty_weights)


def _require_size(model: JointModel, band: str, found: int) -> None:
    """Refuse a network of a band with another number of penalty weights."""
    number = model.network.num_penalty_weights
    if found != number:
        raise InputError(
            f"The network of band {band} has {found} penalty weights, and the joint network "
            f"{model.identity} takes {number}."
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
