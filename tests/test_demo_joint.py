# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The demonstration of bands that are restored together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lsst.astroclearnet.commands._demonstration import _demo, _joint
from lsst.astroclearnet.commands._demonstration._patch import Patch
from lsst.astroclearnet.repository import create_repository
from lsst.daf.butler import Butler

SIGMA = 2.0
TRUTH = np.repeat([0.0, 1.0 * SIGMA, 10.0 * SIGMA], 4000).reshape(120, 100)
"""Sky, faint and bright light in nJy."""


def make_patch(band: str, seed: int, error: float) -> Patch:
    """Return a patch with errors of so many sky sigmas."""
    noise = np.random.default_rng(seed).normal(0.0, error * SIGMA, TRUTH.shape)
    image = TRUTH + noise
    image[:5] = np.nan
    coadd = SimpleNamespace(variance=np.full(TRUTH.shape, SIGMA**2))
    return cast(Patch, SimpleNamespace(band=band, restored=SimpleNamespace(image=image), coadd=coadd))


def test_errors_against_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the demonstration shows a gain that is none."""
    # Patches of g halve their errors together, that of i keeps them.
    patches = [make_patch("i", 1, 0.2), make_patch("g", 2, 0.2), make_patch("g", 3, 0.4)]
    factors = {id(patch): 0.5 if patch.band == "g" else 1.0 for patch in patches}

    def usable_joint(butler: Any, patch: Patch) -> Any:
        return TRUTH + factors[id(patch)] * (np.asarray(patch.restored.image) - TRUTH)

    monkeypatch.setattr(_joint, "_usable_joint", usable_joint)
    monkeypatch.setattr(_joint, "truth_panel", lambda patch: TRUTH)
    table = _joint.compare_joint(cast(Butler, None), patches)
    assert list(table["band"]) == ["g", "i"]
    assert list(table["num_patches"]) == [2, 1]
    for light in ("sky", "faint", "bright"):
        np.testing.assert_allclose(table[f"{light}_ratio"], [0.5, 1.0])
        # The mean of the squares of 0.2 and 0.4.
        np.testing.assert_allclose(table[f"{light}_alone"], [np.sqrt(0.1), 0.2], rtol=0.05)
    columns = [str(column.header) for column in _joint.joint_table(table).columns]
    assert len(columns) == 2 + 3 * 3


def test_patches_are_restored_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, the demonstration repeats what is done, or does not name
    the command.
    """
    create_repository(str(tmp_path / "repo"))
    found: dict[str, list[Any]] = {
        name: [SimpleNamespace(dataId={"tract": 0, "patch": patch, "band": "i"}) for patch in (0, 1)]
        for name in ("restored_coadd", "restored_coadd_joint_detection")
    }
    commands: list[Sequence[str]] = []
    said: list[str] = []
    monkeypatch.setattr(_demo, "find_datasets", lambda butler, name, collection: found[name])
    monkeypatch.setattr(_demo, "run_command", commands.append)
    _demo._restore_joint(tmp_path / "repo", "m", 3, said.append)
    assert commands == []
    assert "already" in said[0]
    found["restored_coadd_joint_detection"].pop()
    _demo._restore_joint(tmp_path / "repo", "m", 3, said.append)
    (command,) = commands
    words = " ".join(command)
    assert "RestoreCoaddBandsWithoutStack.yaml#restoreBands -i HSC-Sim/defaults -o u/demo/joint" in words
    fields = ("target_fwhm=0.53", "do_plot=False", "restoration.noise.num_draws=3")
    assert " ".join(f"-c restoreCoaddBands:{field}" for field in fields) + " -j 3" in words
    assert "RestoreCoaddBandsWithoutStack" in said[1]
