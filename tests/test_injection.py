# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Injection of sources into visit images, with analytic truths."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.table import Table

from lsst.astroclearnet.adapters import UnusableExposureError
from lsst.astroclearnet.simulation import draw_injections, inject_sources, make_injection_catalogue
from lsst.astroclearnet.tasks import InjectSourcesConfig, InjectSourcesTask
from lsst.astroclearnet.tests import make_patch_geometry, make_projection, make_visit_image
from lsst.images import VisitImage
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections

SHAPE = (121, 131)
FWHM = 3.8
PROJECTION = make_projection(SHAPE, rotation=25.0, visit=7)
MAGNITUDE = 20.0
FLUX = 10.0 ** (-0.4 * (MAGNITUDE - 31.4))
ROWS, COLUMNS = np.indices(SHAPE)


def catalogue(x: float, y: float, **columns: float | str) -> Table:
    """Return one source at a pixel: a star, if nothing else is said."""
    sky = PROJECTION.pixel_to_sky(x=x, y=y)
    star = {"source_type": "DeltaFunction", "mag": MAGNITUDE, "n": 1.0, "half_light_radius": 0.0}
    values = {"ra": sky.ra.deg, "dec": sky.dec.deg, **star, "q": 1.0, "beta": 0.0, **columns}
    return Table({name: [value] for name, value in values.items()})


def blank(level: float = 0.0, **changes: Any) -> VisitImage:
    """Return a visit image without sources."""
    return make_visit_image(np.full(SHAPE, level), PROJECTION, fwhm=FWHM, **changes)


def inject(image: VisitImage, table: Table, seed: int = 1, **options: float) -> VisitImage:
    """Return an image with sources."""
    return inject_sources(image, table, rng=np.random.default_rng(seed), **options).visit_image


def moments(light: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Return centre (x, y) and second moments of an image."""
    x, y = ((light * axis).sum() / light.sum() for axis in (COLUMNS, ROWS))
    offsets = np.array([COLUMNS - x, ROWS - y])
    return x, y, np.einsum("iyx,jyx,yx->ij", offsets, offsets, light) / light.sum()


def test_star_has_its_flux_place_and_psf() -> None:
    image = inject(blank(3.0), catalogue(60.3, 58.8)).image.array - 3.0
    sigma = FWHM * gaussian_fwhm_to_sigma
    expected = np.exp(-0.5 * ((COLUMNS - 60.3) ** 2 + (ROWS - 58.8) ** 2) / sigma**2)
    expected *= FLUX / (2.0 * np.pi * sigma**2)
    assert image.sum() == pytest.approx(FLUX, rel=1e-3)
    # The stamp of the PSF ends at 12 pixels.
    assert np.abs(image - expected).max() < 1.5e-3 * expected.max()


@pytest.mark.parametrize(("q", "beta"), [(1.0, 0.0), (0.5, 0.0), (0.4, 30.0)])
def test_galaxy_has_the_moments_of_its_profile(q: float, beta: float) -> None:
    """If it fails, sizes, axis ratios or angles are not those of
    source_injection.
    """
    radius = 0.5
    galaxy = catalogue(61.0, 59.0, source_type="Sersic", half_light_radius=radius, q=q, beta=beta)
    image = inject(blank(), galaxy).image.array.astype(float)
    x, y, found = moments(image)
    assert image.sum() == pytest.approx(FLUX, rel=3e-3)
    assert (x, y) == pytest.approx((61.0, 59.0), abs=0.02)
    # An exponential has the variance 3 (r / 1.678)^2 on each axis; q and
    # beta, from east to north, are at constant area.
    variance = 3.0 * (radius / 1.6783) ** 2
    along, north = np.array([np.cos(np.radians(beta)), np.sin(np.radians(beta))])
    major = np.array([along, north])
    minor = np.array([-north, along])
    on_sky = variance * (np.outer(major, major) / q + np.outer(minor, minor) * q)
    # Columns of the map are steps of one pixel along x and y.
    sky = PROJECTION.pixel_to_sky(x=np.array([61.0, 62.0, 61.0]), y=np.array([59.0, 59.0, 60.0]))
    east = (sky.ra - sky.ra[0]).to_value("arcsec") * np.cos(sky.dec[0].rad)
    to_sky = np.array([east[1:], (sky.dec - sky.dec[0]).to_value("arcsec")[1:]])
    to_pixels = np.linalg.inv(to_sky)
    expected = to_pixels @ on_sky @ to_pixels.T + np.eye(2) * (FWHM * gaussian_fwhm_to_sigma) ** 2
    # The stamps leave out a little light, far from the centre.
    np.testing.assert_allclose(found, expected, atol=0.05 * np.trace(expected) / 2.0)


def test_light_is_clipped_at_the_edge() -> None:
    image = inject(blank(), catalogue(0.0, 60.0)).image.array
    assert image[:, 0].sum() > image[:, 1].sum() > 0.0
    # Of a symmetric star on the first column, that and half of the rest.
    assert image.sum() == pytest.approx(0.5 * (FLUX + image[:, 0].sum()), rel=2e-3)
    assert inject_sources(blank(), catalogue(-40.0, 60.0), rng=np.random.default_rng(1)).num_sources == 0


def test_photon_noise_follows_the_variance_plane() -> None:
    """If it fails, bright injected sources are too clean to be real."""
    slope = 4.0
    rng = np.random.default_rng(3)
    expected = np.where((COLUMNS // 20 + ROWS // 20) % 2, 2000.0, 0.0)
    image = blank(variance=slope * expected + 900.0)
    image.image.array[...] = expected + rng.normal(0.0, 30.0, SHAPE)
    injected = inject_sources(image, catalogue(60.0, 60.0), rng=rng)
    assert injected.njy_per_electron == pytest.approx(slope, rel=0.03)
    # A plane that was made from the counts follows their noise, too.
    np.testing.assert_allclose(
        injected.visit_image.variance.array - image.variance.array,
        injected.njy_per_electron * (injected.visit_image.image.array - image.image.array),
        atol=1e-3 * slope * FLUX,
    )
    given = [inject(blank(), catalogue(60.0, 60.0), seed=s, njy_per_electron=slope) for s in range(40)]
    light = np.array([each.image.array for each in given], dtype=float)
    rise = np.array([each.variance.array for each in given], dtype=float) - 1.0
    bright = light.mean(axis=0) > 100.0
    # Poisson noise has the variance slope * light; 1,500 values.
    assert light.var(axis=0, ddof=1)[bright].sum() == pytest.approx(
        slope * light.mean(axis=0)[bright].sum(), rel=0.15
    )
    np.testing.assert_array_equal(rise, rise[:1].repeat(40, axis=0))
    assert rise[0].sum() == pytest.approx(slope * FLUX, rel=5e-3)


def test_no_noise_is_invented_where_the_gain_is_not_known() -> None:
    image = blank()
    injected = inject_sources(image, catalogue(60.0, 60.0), rng=np.random.default_rng(1))
    assert np.isnan(injected.njy_per_electron)
    np.testing.assert_array_equal(injected.visit_image.variance.array, image.variance.array)
    np.testing.assert_array_equal(
        injected.visit_image.image.array, inject(image, catalogue(60.0, 60.0), seed=2).image.array
    )
    assert not image.image.array.any()


def test_pixels_without_a_calibration_are_refused() -> None:
    with pytest.raises(UnusableExposureError, match="cannot be converted to nJy"):
        inject(blank(unit=u.adu), catalogue(60.0, 60.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_type": "Stamp"}, "types .*Stamp"),
        ({"mag": np.nan}, "Row 0 .* no value of mag"),
        ({"source_type": "Sersic", "half_light_radius": 0.5, "n": 9.0}, "n=9.0.* cannot be drawn"),
        ({"source_type": "Sersic", "half_light_radius": 0.5, "q": np.nan}, "no value of q"),
    ],
)
def test_sources_that_cannot_be_drawn_are_refused(changes: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inject(blank(), catalogue(60.0, 60.0, **changes))


def test_missing_columns_are_named() -> None:
    table = catalogue(60.0, 60.0)
    table.remove_column("mag")
    with pytest.raises(ValueError, match=r"lacks the columns \['mag'\]"):
        inject(blank(), table)
    # Stars need no shapes.
    star = catalogue(60.0, 60.0)["ra", "dec", "source_type", "mag"]
    assert inject(blank(), star).image.array.sum() == pytest.approx(FLUX, rel=1e-3)


def test_catalogue_is_a_jittered_grid() -> None:
    geometry = make_patch_geometry().patch(3, 0)
    options: dict[str, Any] = {"spacing": 3.0, "magnitudes": (22.0, 26.0), "half_light_radii": (0.3, 0.9)}
    table = make_injection_catalogue(geometry.projection, geometry.bbox, **options, seed=4)
    assert len(table) == len(table[table["source_type"] == "Sersic"]) * 2
    np.testing.assert_array_equal(
        table["ra"], make_injection_catalogue(geometry.projection, geometry.bbox, **options, seed=4)["ra"]
    )
    pixels = geometry.projection.sky_to_pixel(table_sky(table))
    inside = geometry.bbox.contains(x=pixels.x, y=pixels.y)
    assert np.all(inside)
    separation = table_sky(table)[:, None].separation(table_sky(table)[None]).arcsec
    np.fill_diagonal(separation, np.inf)
    assert separation.min() > 0.49 * 3.0
    assert 22.0 <= table["mag"].min() < table["mag"].max() <= 26.0
    galaxies = table[table["source_type"] == "Sersic"]
    assert 0.3 <= galaxies["half_light_radius"].min() <= galaxies["half_light_radius"].max() <= 0.9
    with pytest.raises(ValueError, match="leaves no place"):
        make_injection_catalogue(geometry.projection, geometry.bbox, spacing=1e4, magnitudes=(22.0, 26.0))
    with pytest.raises(ValueError, match="in order"):
        make_injection_catalogue(geometry.projection, geometry.bbox, spacing=3.0, magnitudes=(26.0, 22.0))


def table_sky(table: Table) -> SkyCoord:
    """Return the positions of a catalogue."""
    return SkyCoord(ra=table["ra"], dec=table["dec"])


def test_far_sources_do_not_come_back_through_the_distortion() -> None:
    projection = make_projection(SHAPE, distortion=0.3)
    image = make_visit_image(np.zeros(SHAPE), projection)
    sky = projection.pixel_to_sky(x=60.0, y=60.0)
    # Where the inverse polynomial of a distortion cannot be trusted.
    angles = np.linspace(0.0, 2.0 * np.pi, 60)
    for radius in (0.2, 0.5, 1.0, 2.0):
        far = Table(
            {
                "ra": sky.ra.deg + radius * np.cos(angles),
                "dec": sky.dec.deg + radius * np.sin(angles),
                "source_type": ["Star"] * 60,
                "mag": np.full(60, 20.0),
            }
        )
        stamps = draw_injections(far, image.sky_projection, image.bbox, lambda x, y: np.ones((3, 3)))
        assert list(stamps) == []


def test_task_injects_into_every_image() -> None:
    connections: Any = InjectSourcesConfig.ConnectionsClass
    lintConnections(connections)
    task = InjectSourcesTask(config=InjectSourcesConfig())
    tables = [catalogue(60.0, 60.0), catalogue(20.0, 90.0, mag=21.0)]
    outputs = task.run(visit_image=blank(), injection_catalogs=tables)
    assertValidOutput(task, outputs)
    assert outputs.injected_image.image.array.sum() == pytest.approx(FLUX * (1.0 + 10.0**-0.4), rel=1e-3)
    assert task.metadata["num_sources"] == 2
    # One on which nothing falls is restored too.
    for nothing in ([catalogue(-90.0, 60.0)], []):
        empty = task.run(visit_image=blank(1.0), injection_catalogs=nothing)
        np.testing.assert_array_equal(empty.injected_image.image.array, 1.0)
    noisy = InjectSourcesConfig(njy_per_electron=4.0)
    images = [
        InjectSourcesTask(config=noisy).run(visit_image=blank(), injection_catalogs=tables).injected_image
        for _ in range(2)
    ]
    np.testing.assert_array_equal(images[0].image.array, images[1].image.array)
