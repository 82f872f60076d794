# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What is recorded of the network that restored a patch."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from ..core import RestorationResult

_FITTED = "fit"
"""Source and identity of a network that was fitted to the patch."""


@dataclasses.dataclass(frozen=True)
class JointRestoration:
    """What restored the bands of a patch together.

    Attributes
    ----------
    bands
        The bands.
    identity
        Identity of the joint network; empty if only one band has data.
    doubt
        Why it may not suit the bands; empty if nothing speaks against it.
    """

    bands: tuple[str, ...]
    identity: str
    doubt: str


def network_source(result: RestorationResult, wanted: str) -> str:
    """Return where the network that was used comes from.

    Parameters
    ----------
    result
        The restoration.
    wanted
        Where it should come from, as configured.

    Returns
    -------
    source : `str`
        ``packaged``, ``dataset`` or ``fit``.
    """
    return _FITTED if result.network == _FITTED else wanted


def describe_network(result: RestorationResult, wanted: str) -> str:
    """Return which network was used, in words.

    Parameters
    ----------
    result
        The restoration.
    wanted
        Where it should come from, as configured.

    Returns
    -------
    words : `str`
        Its source and identity, or what its fit did.
    """
    history = result.history
    if result.network == _FITTED:
        return f"a network fitted in {history.num_epochs} epochs ({history.stop_reason})"
    return f"the {wanted} network {result.network}"


def network_metrics(
    result: RestorationResult, wanted: str, seed: int, joint: JointRestoration | None = None
) -> dict[str, Any]:
    """Return the metrics of the network.

    Parameters
    ----------
    result
        The restoration.
    wanted
        Where the network should come from, as configured.
    seed
        Seed of everything random.
    joint
        What restored the band together with others, if it was.

    Returns
    -------
    network : `dict`
        Plain values: ``source``, ``identity``, ``doubt``, ``held_out_loss``,
        ``num_parameters``, ``astroclearnet_version``, ``device`` and ``seed``;
        with other bands also ``joint_bands``, ``joint_network`` and
        ``joint_doubt``; of a fit also ``num_epochs``, ``best_epoch``,
        ``stop_reason`` and ``converged``.
    """
    network: dict[str, Any] = {
        "source": network_source(result, wanted),
        "identity": result.network,
        "doubt": result.network_doubt,
        "held_out_loss": result.held_out_loss,
        "num_parameters": result.num_parameters,
        "astroclearnet_version": importlib.metadata.version("lsst-astroclearnet"),
        "device": result.device,
        "seed": seed,
    }
    if joint is not None:
        network |= {
            "joint_bands": list(joint.bands),
            "joint_network": joint.identity,
            "joint_doubt": joint.doubt,
        }
    if network["source"] == _FITTED:
        history = result.history
        network |= {
            "num_epochs": history.num_epochs,
            "best_epoch": history.best_epoch,
            "stop_reason": history.stop_reason,
            "converged": history.converged,
        }
    return network


def is_doubted(network: Mapping[str, Any]) -> bool:
    """Tell whether a trained network was used that may not suit the exposures.

    Parameters
    ----------
    network
        What `network_metrics` returned.

    Returns
    -------
    is_doubted : `bool`
        False for one that was fitted in its place, unless the joint network
        is in doubt.
    """
    own = bool(network["doubt"]) and network["source"] != _FITTED
    return own or bool(network.get("joint_doubt"))


def is_unconverged(network: Mapping[str, Any]) -> bool:
    """Tell whether a fit of the network ended before it converged.

    Parameters
    ----------
    network
        What `network_metrics` returned.

    Returns
    -------
    is_unconverged : `bool`
        False where nothing was fitted.
    """
    return network.get("num_epochs", 0) > 0 and not network["converged"]


def list_network_warnings(network: Mapping[str, Any]) -> list[str]:
    """List what speaks against the network.

    Parameters
    ----------
    network
        What `network_metrics` returned.

    Returns
    -------
    warnings : `list` [`str`]
        Sentences; none if all is well.
    """
    warnings = []
    if network["doubt"] and network["source"] == _FITTED:
        warnings.append(
            "A network was fitted to the patch, because the trained one may not suit the exposures: "
            f"{network['doubt']}."
        )
    elif network["doubt"]:
        warnings.append(
            f"The {network['source']} network {network['identity']} may not suit the exposures: "
            f"{network['doubt']}."
        )
    if network.get("joint_doubt"):
        warnings.append(
            f"The joint network {network['joint_network']} may not suit the bands: {network['joint_doubt']}."
        )
    if is_unconverged(network):
        warnings.append(f"The fit did not converge: it {network['stop_reason']}.")
    return warnings
