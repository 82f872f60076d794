# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.


"""Samples, folds and validation blocks of a fit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsst.astroclearnet.core import ExposureStack, FitOptions, RestoreOptions
from lsst.astroclearnet.core.calibration import ExposureCalibration
from lsst.astroclearnet.core.estimate import TrainingSample, make_samples, sample_boxes
from lsst.astroclearnet.core.estimate._samples import _deal_folds
from lsst.astroclearnet.core.exposures import StackSource, TileGrid
from lsst.astroclearnet.core.forward import ForwardModel, TileReader
from lsst.astroclearnet.core.tiles import make_generator
from lsst.astroclearnet.core.tiles._choose_network import _make_samples, _read_boxes
from lsst.astroclearnet.tests import make_exposure_stack

PENALTY_WEIGHTS = (1e-4, 1e-2)


def samples_of(
    stack: ExposureStack, options: FitOptions | None = None, seed: int = 2
) -> list[TrainingSample]:
    """Return the samples of a stack of unit variance."""
    model = ForwardModel.from_stack(stack, 3.6)
    weights = stack.good / stack.variances
    return make_samples(stack, weights, model, PENALTY_WEIGHTS, options or FitOptions(), make_generator(seed))


@settings(max_examples=20, deadline=None)
@given(number=st.integers(2, 9), folds=st.integers(2, 9), seed=st.integers(0, 1000))
def test_each_exposure_is_held_out_once(number: int, folds: int, seed: int) -> None:
    """If it fails, the network predicts what it sees and copies noise."""
    folds_of = _deal_folds(number, folds, make_generator(seed))
    assert len(folds_of) == min(number, folds)
    assert torch.cat([held_out for _, held_out in folds_of]).sort().values.tolist() == list(range(number))
    for seen, held_out in folds_of:
        assert len(seen) > 0
        assert sorted(seen.tolist() + held_out.tolist()) == list(range(number))
    sizes = [len(held_out) for _, held_out in folds_of]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=40, deadline=None)
@given(height=st.integers(20, 400), width=st.integers(20, 400), size=st.integers(32, 150))
def test_boxes_cover_the_patch(height: int, width: int, size: int) -> None:
    """If it fails, parts of a patch can never be fitted to, or boxes reach
    beyond it.
    """
    boxes = sample_boxes((height, width), size, make_generator(0))
    assert len({(r.start, c.start) for r, c in boxes}) == len(boxes)
    whole = height * width <= 2 * size**2
    covered = torch.zeros(height, width, dtype=torch.bool)
    for rows, columns in boxes:
        assert 0 <= rows.start < rows.stop <= height
        assert 0 <= columns.start < columns.stop <= width
        assert rows.stop - rows.start == (height if whole else min(size, height))
        assert columns.stop - columns.start == (width if whole else min(size, width))
        covered[rows, columns] = True
    assert bool(covered.all())


def test_boxes_are_drawn() -> None:
    """If it fails, always the same corner of a patch is fitted."""
    first = {str(sample_boxes((400, 300), 64, make_generator(seed))[0]) for seed in range(5)}
    assert len(first) > 1


def test_samples_hold_what_they_say() -> None:
    """If it fails, predictions are compared with the wrong pixels."""
    stack = make_exposure_stack((40, 50), (3.2, 4.0, 4.6, 3.8, 4.2))
    stack.good[1, 20, 30] = False
    pair = samples_of(stack, FitOptions(num_folds=2))
    assert len(pair) == 2
    assert torch.equal(pair[0].validation[0], pair[1].validation[0])
    for sample in pair:
        assert sample.model.shape == (40, 50)
        assert sample.validation.shape == sample.images.shape
        assert torch.equal(sample.images, stack.images[sample.held_out])
        torch.testing.assert_close(sample.inverse_sigma, stack.good[sample.held_out].float())


def test_number_of_samples_is_limited() -> None:
    """If it fails, the check of a trained network takes as long as a fit."""
    stack = make_exposure_stack((40, 50), (3.2, 4.0, 4.6, 3.8, 4.2))
    model = ForwardModel.from_stack(stack, 3.6)
    weights = stack.good / stack.variances
    one, every = (
        make_samples(stack, weights, model, PENALTY_WEIGHTS, FitOptions(), make_generator(2), most)
        for most in (1, None)
    )
    assert (len(one), len(every)) == (1, 4)
    assert torch.equal(one[0].held_out, every[0].held_out)


def test_some_of_many_exposures_are_drawn() -> None:
    """If it fails, predictions are compared with other exposures."""
    stack = make_exposure_stack((40, 50), (3.2, 4.0, 4.6, 3.8, 4.2))
    sample = samples_of(stack, FitOptions(num_folds=2))[0]
    number = len(sample.held_out)
    assert sample.draw(number, make_generator(1)) is sample
    drawn = [sample.draw(1, make_generator(seed)) for seed in range(6)]
    assert len({int(some.held_out) for some in drawn}) > 1
    for some in drawn:
        assert some.bank is sample.bank
        assert torch.equal(some.images, stack.images[some.held_out])
        assert some.inverse_sigma.shape == some.validation.shape == some.images.shape


def test_bank_does_not_see_what_is_held_out() -> None:
    """If it fails, the fit rewards copying noise."""
    stack = make_exposure_stack((40, 50), (3.2, 4.0, 4.6))
    before = samples_of(stack)
    changed = stack.images.clone()
    changed[before[0].held_out] += 100.0
    after = samples_of(stack.replace(images=changed))
    assert torch.equal(after[0].bank.features, before[0].bank.features)
    assert not torch.equal(after[0].images, before[0].images)
    assert not torch.equal(after[1].bank.features, before[1].bank.features)


def test_validation_blocks() -> None:
    """If it fails, the stop follows the pixels that are fitted."""
    stack = make_exposure_stack((70, 90), (3.2, 4.0))
    shares = []
    for seed in range(12):
        validation = samples_of(stack, seed=seed)[0].validation[0]
        shares.append(float(validation.float().mean()))
        # Blocks of 8 x 8 pixels, cut at the lower and right edge.
        blocks = validation[:64, :88].reshape(8, 8, 11, 8).permute(0, 2, 1, 3).reshape(8, 11, 64)
        assert torch.equal(blocks.all(dim=-1), blocks.any(dim=-1))
    # A fifth of 9 x 12 blocks: each share scatters by 0.04.
    assert sum(shares) / len(shares) == pytest.approx(0.2, abs=0.04)


def test_tiny_patch() -> None:
    """If it fails, cells at the edge of the sky cannot be restored."""
    stack = make_exposure_stack((5, 9), (3.2, 4.0), stars=[(2.0, 4.0, 50.0)], psf_size=9)
    samples = samples_of(stack)
    assert len(samples) == 2
    assert samples[0].images.shape == (1, 5, 9)


def test_cut_outs_without_partners_are_left_out() -> None:
    """If it fails, the network is fitted to cut-outs it sees nothing of."""
    stack = make_exposure_stack((40, 50), (3.2, 4.0))
    stack.good[1] = False
    assert samples_of(stack) == []


@pytest.mark.parametrize("number", [1, 2])
def test_samples_come_from_boxes_with_data(number: int) -> None:
    """If it fails, the network is fitted to more or less than is asked for."""
    options = RestoreOptions(fit=FitOptions(sample_size=32, num_samples=number, num_folds=2))
    stack = make_exposure_stack((64, 96), (3.2, 4.0, 4.6))
    rows, columns = sample_boxes((64, 96), 32, make_generator(3))[0]
    stack.good[:, rows, columns] = False
    reader = TileReader(StackSource(stack), TileGrid.cover((64, 96), 1024).tiles, 3.6, torch.device("cpu"))
    calibration = ExposureCalibration.unknown(3, options)
    with torch.no_grad():
        boxes = list(_read_boxes(reader, calibration, number, make_generator(3)))
        samples = [
            s for box in boxes for s in _make_samples(box, PENALTY_WEIGHTS, calibration, make_generator(3))
        ]
    assert (len(boxes), len(samples)) == (number, 2 * number)
    assert all(bool((sample.inverse_sigma > 0).any()) for sample in samples)
