"""All heat of a volume in three projections: the peak is where it should be, and nothing hot is hidden."""

from __future__ import annotations

import numpy as np
import pytest

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.heat import Heat
from monai_medclip.writers.mip import mip_figure, seen_through, strongest
from monai_medclip.writers.overlay import OverlayStyle, overlay
from monai_medclip.writers.truth import Truth

from .drawn import cut_texts, pictures, words

SHAPE = (12, 16, 22)  # slices, rows, columns
PEAK, OTHER = (9, 3, 17), (2, 12, 5)


def volume() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=SHAPE)


def heat(prompt: str = "nodule") -> Heat:
    values = np.zeros(SHAPE)
    values[PEAK], values[OTHER] = 4.0, 3.0
    return Heat(values, prompt, "Chefer", 1.5)


def tinted(picture: np.ndarray) -> list[tuple[int, ...]]:
    """Rows and columns that are not gray."""
    return [tuple(place) for place in np.argwhere(np.ptp(picture, axis=-1) > 1e-9).tolist()]


def test_every_hot_voxel_is_in_every_projection_with_the_head_up():
    axial, coronal, sagittal = pictures(mip_figure(volume(), heat()))[:3]
    assert tinted(axial) == [(3, 17), (12, 5)]
    assert tinted(coronal) == [(2, 17), (9, 5)]  # slices run from feet to head, pictures from the top
    assert tinted(sagittal) == [(2, 3), (9, 12)]


def test_the_ring_is_around_the_peak_in_all_views():
    figure = mip_figure(volume(), heat())
    for axes, (row, column) in zip(figure.axes, [(3, 17), (2, 17), (2, 3)]):
        for ring in axes.lines:
            assert ring.get_xydata().tolist() == [[column, row]]
    letters = [{text.get_text() for text in axes.texts} for axes in figure.axes[:3]]
    assert letters == [set("RLAP"), set("RLHF"), set("APHF")]
    assert "slice 9, row 3, column 17" in words(figure)
    assert RESEARCH_USE in words(figure)


def test_behind_the_heat_lies_the_mean_of_the_volume_on_the_full_scale():
    picture = pictures(mip_figure(volume(), heat()))[0]
    mean = volume().mean(axis=0)
    gray = (mean - mean.min()) / (mean.max() - mean.min())
    hottest = heat().values.max(axis=0)
    np.testing.assert_allclose(picture, overlay(gray, hottest, OverlayStyle(limit=4.0)))
    assert not seen_through(np.full(SHAPE, 0.5), 1).any()


def test_a_signed_projection_keeps_what_is_farthest_from_zero():
    values = np.array([[1.0, -3.0], [2.0, 1.0]])
    assert strongest(values, 0).tolist() == [2, 1]
    assert strongest(values, 0, signed=True).tolist() == [2, -3]
    against = Heat(-heat().values, "nodule", "occlusion", 0.5)
    assert tinted(pictures(mip_figure(volume(), against))[0]) == []
    signed = pictures(mip_figure(volume(), against, style=OverlayStyle(color_map="blue-white-orange")))[0]
    assert (12, 5) in tinted(signed)


def test_proportions_follow_the_spacing():
    figure = mip_figure(volume(), heat(), spacing_mm=(5.0, 0.5, 0.8))
    assert [axes.get_aspect() for axes in figure.axes[:3]] == pytest.approx([0.5 / 0.8, 5 / 0.8, 5 / 0.5])


def test_the_outline_is_that_of_the_truths_shadow():
    mask = np.zeros(SHAPE)
    mask[8:11, 2:5, 16:19] = 2  # a lesion's number
    coronal = mip_figure(volume(), heat(), truth=Truth(mask)).axes[1]
    outline = coronal.lines[0].get_xydata()
    np.testing.assert_allclose(outline.min(0), [15.5, 0.5])
    np.testing.assert_allclose(outline.max(0), [18.5, 3.5])
    with pytest.raises(ValueError, match="one grid"):
        mip_figure(volume()[1:], heat())


def test_no_text_is_cut():
    long = heat("a small solid nodule with spiculated margins in the left upper lobe of the lung, " * 2)
    assert cut_texts(mip_figure(volume(), long)) == []
