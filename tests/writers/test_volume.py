"""A hot voxel of a volume is where it should be in every view, with the patient upright."""

from __future__ import annotations

import numpy as np
import pytest

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.heat import Heat
from monai_medclip.writers.overlay import OverlayStyle, overlay
from monai_medclip.writers.truth import Truth
from monai_medclip.writers.volume import chosen_slices, montage_figure, orthogonal_figure, peak_voxel

from .drawn import cut_texts, pictures, words

SHAPE = (12, 16, 22)  # slices, rows, columns
PEAK = (9, 3, 17)  # near the head, in front, at the patient's left


def heat(peak=PEAK, prompt: str = "nodule") -> Heat:
    values = np.zeros(SHAPE)
    values[peak] = 4.0
    return Heat(values, prompt, "Chefer", 1.5)


def volume() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=SHAPE)


def tinted(picture: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns that are not gray."""
    return [tuple(place) for place in np.argwhere(np.ptp(picture, axis=-1) > 1e-9)]


def test_the_three_views_cross_in_the_peak_with_the_head_up():
    figure = orthogonal_figure(volume(), heat())
    axial, coronal, sagittal = pictures(figure)[:3]
    assert axial.shape[:2] == (16, 22)
    assert coronal.shape[:2] == (12, 22)
    assert sagittal.shape[:2] == (12, 16)
    assert tinted(axial) == [(3, 17)]
    assert tinted(coronal) == [(12 - 1 - 9, 17)]  # slices run from feet to head, pictures from the top
    assert tinted(sagittal) == [(12 - 1 - 9, 3)]
    for axes, (row, column) in zip(figure.axes, [(3, 17), (2, 17), (2, 3)]):
        across, down = axes.lines
        assert across.get_ydata()[0] == row
        assert down.get_xdata()[0] == column
    letters = [{text.get_text() for text in axes.texts} for axes in figure.axes[:3]]
    assert letters == [set("RLAP"), set("RLHF"), set("APHF")]


def test_letters_stand_where_the_array_runs():
    axial, coronal, sagittal = orthogonal_figure(volume(), heat()).axes[:3]
    at = {text.get_text(): text.get_position() for text in coronal.texts}
    assert at["H"][1] > at["F"][1]
    assert at["L"][0] > at["R"][0]  # columns run from the patient's right to left
    at = {text.get_text(): text.get_position() for text in axial.texts}
    assert at["A"][1] > at["P"][1]  # rows run from front to back
    at = {text.get_text(): text.get_position() for text in sagittal.texts}
    assert at["P"][0] > at["A"][0]


def test_a_given_voxel_is_cut_instead_of_the_peak():
    figure = orthogonal_figure(volume(), heat(), voxel=(0, 1, 2))
    assert [tinted(picture) for picture in pictures(figure)[:3]] == [[], [], []]
    assert "given voxel (slice 0, row 1, column 2), heat 0" in words(figure)
    with pytest.raises(ValueError, match="outside the volume"):
        orthogonal_figure(volume(), heat(), voxel=(12, 0, 0))


def test_proportions_follow_the_spacing():
    figure = orthogonal_figure(volume(), heat(), spacing_mm=(5.0, 0.5, 0.8))
    assert [axes.get_aspect() for axes in figure.axes[:3]] == pytest.approx([0.5 / 0.8, 5 / 0.8, 5 / 0.5])
    montage = montage_figure(volume(), heat(), spacing_mm=(5.0, 0.5, 0.8))
    assert montage.axes[0].get_aspect() == pytest.approx(0.5 / 0.8)


def test_the_montage_shows_the_peak_on_one_scale():
    figure = montage_figure(volume(), heat(), count=4)
    titles = [axes.get_title() for axes in figure.axes[:4]]
    shown = [int(title.split()[1]) for title in titles]
    assert shown == sorted(shown)
    assert [title for title in titles if "peak" in title] == ["slice 9 (peak) · heat 4"]
    for picture, index in zip(pictures(figure), shown):
        expected = overlay(volume()[index], heat().values[index], OverlayStyle(limit=4.0))
        np.testing.assert_allclose(picture, expected)
    assert "4 of 12 slices" in words(figure)
    assert RESEARCH_USE in words(figure)


@pytest.mark.parametrize(("total", "count", "peak"), [(100, 12, 0), (100, 12, 99), (5, 12, 3), (1, 1, 0), (40, 1, 17)])
def test_chosen_slices_are_different_sorted_and_hold_the_peak(total, count, peak):
    chosen = chosen_slices(total, count, peak)
    assert len(chosen) == len(set(chosen)) == min(count, total)
    assert chosen == sorted(chosen)
    assert peak in chosen
    assert 0 <= chosen[0] <= chosen[-1] < total


def test_peak_is_slice_row_column():
    assert peak_voxel(heat().values) == PEAK


def test_the_truth_is_cut_like_the_volume():
    mask = np.zeros(SHAPE, bool)
    mask[8:11, 2:5, 16:19] = True
    coronal = orthogonal_figure(volume(), heat(), truth=Truth(mask)).axes[1]
    outline = coronal.lines[0].get_xydata()
    np.testing.assert_allclose(outline.min(0), [15.5, 0.5])  # slices 8 to 10 from the feet: rows 1 to 3 from the head
    np.testing.assert_allclose(outline.max(0), [18.5, 3.5])
    with pytest.raises(ValueError, match="boxes have no slices"):
        orthogonal_figure(volume(), heat(), truth=Truth(boxes=((0, 0, 2, 2),)))
    with pytest.raises(ValueError, match="one grid"):
        montage_figure(volume(), heat(), truth=Truth(mask[1:]))


def test_no_text_is_cut():
    long = heat(prompt="a small solid nodule with spiculated margins in the left upper lobe of the lung, " * 2)
    assert cut_texts(orthogonal_figure(volume(), long)) == []
    assert cut_texts(montage_figure(volume(), long, count=1)) == []
    assert cut_texts(montage_figure(volume(), long, count=12)) == []
