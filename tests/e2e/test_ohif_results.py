"""DICOM results in plain OHIF: the picture, the Parametric Map and the Segmentation, of a radiograph and of a CT."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="pip install 'monai-medclip[label]', or run .ci/e2e")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")

import SimpleITK as sitk  # noqa: N813 - its usual name

from . import ohif
from .browser import chromium, colored, overlap, picture, save_screenshot, settled
from .cases import at
from .conftest import Site, Stored
from .requests_to import bands, float_map
from .servers import Archive, Server, viewer_site


@pytest.fixture(scope="module")
def viewer(archive: Archive, chromium_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    dist = Path(os.environ.get("MEDCLIP_OHIF_DIST", ""))
    if not (dist / "app-config.js").is_file():
        pytest.skip("no OHIF: npm pack @ohif/app, unpack it, and set MEDCLIP_OHIF_DIST to its package/dist")
    with viewer_site(dist, archive, tmp_path_factory.mktemp("ohif")) as site:
        yield site


def where_ohif_shows_it(image: sitk.Image, result: Stored, modality: str) -> sitk.Image:
    """An answer's grid in the viewer's space: films without geometry lie at zero there, in their pixels' size."""
    if modality == "CT":
        return image
    header = result.seen.case.header
    rows_mm, columns_mm = (float(mm) for mm in header.get("PixelSpacing") or header.ImagerPixelSpacing)
    flat = sitk.GetImageFromArray(sitk.GetArrayFromImage(image))
    flat.SetSpacing([columns_mm, rows_mm, columns_mm])
    return flat


def hottest(image: sitk.Image) -> tuple[float, ...]:
    values = sitk.GetArrayViewFromImage(image)
    index = np.unravel_index(values.argmax(), values.shape)
    return image.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]])


def test_the_picture_is_shown_as_it_was_drawn(
    viewer: Server, stored: dict[str, Stored], modality: str, tmp_path: Path, screenshots: Path | None
) -> None:
    result, drawn = stored[modality], stored[modality].objects["capture"].pixel_array
    with chromium(tmp_path / "profile") as page:
        ohif.open_study(page, viewer.url, str(result.seen.case.header.StudyInstanceUID))
        ohif.open_series(page, str(result.objects["capture"].SeriesDescription), actors=1)
        ohif.wait_for_instance(page, str(result.objects["capture"].SOPInstanceUID))
        shown = settled(page, ohif.box_of(page, ohif.VIEWPORT))
        column, row = ohif.pixel_centers(page, *shown.shape[:2])
        whole = picture(page)
    inside = (column >= 0) & (row >= 0) & (column < drawn.shape[1]) & (row < drawn.shape[0])
    expected = drawn[np.clip(row, 0, drawn.shape[0] - 1), np.clip(column, 0, drawn.shape[1] - 1)]
    distance = np.abs(shown.astype(int) - expected).max(axis=-1)[inside]
    assert inside.mean() > 0.3
    assert np.median(distance) <= 8
    assert (distance < 60).mean() > 0.9  # but for edges, and the viewer's own words over it
    assert colored(drawn).mean() > 0.005  # there is heat in it
    if screenshots and modality == "DX":
        save_screenshot(whole, screenshots / "ohif_xray_capture.png")


def test_the_parametric_map_is_seen_where_it_is_hot(
    viewer: Server,
    archive_sites: dict[str, Site],
    stored: dict[str, Stored],
    modality: str,
    tmp_path: Path,
    screenshots: Path | None,
) -> None:
    result = stored[modality]
    header = result.seen.case.header
    raw = float_map(archive_sites[modality].server, str(header.SeriesInstanceUID), result.seen.case.finding)
    raw = where_ohif_shows_it(raw, result, modality)
    with chromium(tmp_path / "profile") as page:
        ohif.open_study(page, viewer.url, str(header.StudyInstanceUID))
        ohif.open_series(page, str(result.objects["parametric_map"].SeriesDescription), actors=2)
        ohif.wait_for_volumes(page)
        ohif.look_at(page, hottest(raw), ohif.VIEWPORT)
        shown = settled(page, ohif.box_of(page, ohif.VIEWPORT))
        points = ohif.plane_of(page, ohif.VIEWPORT).points(*shown.shape[:2])
        whole = picture(page)
    share = at(raw, points, outside=np.nan) / sitk.GetArrayViewFromImage(raw).max()
    assert (share > 0.5).sum() > 500
    assert colored(shown)[share > 0.5].mean() > 0.9
    assert colored(shown)[share < 0.02].mean() < 0.1  # the viewer's interpolation reaches a little beyond
    if screenshots and modality == "CT":
        save_screenshot(whole, screenshots / "ohif_ct_map.png")


def test_the_segmentation_is_seen_where_the_bands_are(
    viewer: Server, archive_sites: dict[str, Site], stored: dict[str, Stored], modality: str, tmp_path: Path
) -> None:
    result = stored[modality]
    header = result.seen.case.header
    expected = bands(archive_sites[modality].server, str(header.SeriesInstanceUID), result.seen.case.finding)
    raw = float_map(archive_sites[modality].server, str(header.SeriesInstanceUID), result.seen.case.finding)
    expected, raw = (where_ohif_shows_it(image, result, modality) for image in (expected, raw))
    with chromium(tmp_path / "profile") as page:
        ohif.open_study(page, viewer.url, str(header.StudyInstanceUID))
        ohif.open_series(page, str(result.objects["segmentation"].SeriesDescription), actors=2)
        page.get_by_role("button", name="Yes").click()
        ohif.look_at(page, hottest(raw), ohif.VIEWPORT)
        shown = settled(page, ohif.box_of(page, ohif.VIEWPORT))
        points = ohif.plane_of(page, ohif.VIEWPORT).points(*shown.shape[:2])
    band = at(expected, points, outside=-1)
    assert (band > 0).sum() > 500
    assert overlap(colored(shown) & (band >= 0), band > 0) > 0.75  # outlines lie half outside
