"""Methods below one another, prompts side by side, one scale per method, absent findings marked."""

from __future__ import annotations

import numpy as np
import pytest

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.grid import grid_figure
from monai_medclip.writers.heat import Heat
from monai_medclip.writers.overlay import OverlayStyle, overlay
from monai_medclip.writers.truth import Truth

from .drawn import cut_texts, pictures, words

PROMPTS = ["nodule", "pleural effusion", "a prompt so long that it needs several lines above its column of maps"]
METHODS = {"Grad-ECLIP": 1.0, "Chefer": 0.01, "Attention rollout with a long name": 50.0}
IMAGE = np.full((20, 32), 0.5)


def heats() -> list[list[Heat]]:
    """Map f is hot in row f, half as strong from one prompt to the next."""
    rows = []
    for method, strength in METHODS.items():
        row = []
        for index, prompt in enumerate(PROMPTS):
            values = np.zeros(IMAGE.shape)
            values[index] = strength / 2**index
            row.append(Heat(values, prompt, method, 1.0 - index))
        rows.append(row)
    return rows


def test_every_cell_is_its_methods_map_of_its_prompt_on_the_methods_scale():
    drawn = pictures(grid_figure(IMAGE, heats(), style=OverlayStyle(threshold=0.3)))
    for picture in drawn[:3]:
        np.testing.assert_array_equal(picture, 0.5)  # the image as it is
    shown = drawn[3 : 3 + len(METHODS) * len(PROMPTS)]
    for index, picture in enumerate(shown):
        heat = heats()[index // 3][index % 3]
        largest = list(METHODS.values())[index // 3]
        np.testing.assert_allclose(picture, overlay(IMAGE, heat.values, OverlayStyle(threshold=0.3, limit=largest)))
    assert (shown[2] == 0.5).all()  # a quarter of the row's scale is below the threshold


def test_each_row_has_its_legend_over_its_own_range():
    figure = grid_figure(IMAGE, heats())
    bars = [axes for axes in figure.axes if axes.get_ylabel().startswith("heat")]
    assert [bar.get_ylim() for bar in bars] == [(0, strength) for strength in METHODS.values()]


def test_absent_findings_are_named_and_framed_and_say_their_total_heat():
    figure = grid_figure(IMAGE, heats(), present=[True, False, True])
    said = words(figure)
    assert "nodule\npresent" in said
    assert "pleural effusion\nabsent" in said
    cells = figure.axes[3:12]
    framed = [cell.spines["left"].get_linewidth() > 1 for cell in cells]
    assert framed == [False, True, False] * 3
    assert cells[1].get_xlabel() == "score 0, total heat 16"  # 32 pixels of 0.5
    assert cells[4].get_xlabel() == "score 0, total heat 0.16"
    assert RESEARCH_USE in said
    assert "absent" not in words(grid_figure(IMAGE, heats()))


def test_outlines_belong_to_their_prompt():
    mask = np.zeros(IMAGE.shape, bool)
    mask[5:9, 5:9] = True
    figure = grid_figure(IMAGE, heats(), truths=[None, Truth(mask), None])
    assert [bool(cell.lines) for cell in figure.axes[:12]] == [False, True, False] * 4
    assert "ground truth" in words(figure)


def test_no_text_is_cut():
    assert cut_texts(grid_figure(IMAGE, heats(), present=[True, False, True])) == []
    assert cut_texts(grid_figure(IMAGE, [[row[0]] for row in heats()])) == []


def test_rows_that_do_not_match_are_refused():
    wrong = heats()
    with pytest.raises(ValueError, match="same prompts"):
        grid_figure(IMAGE, [wrong[0], wrong[1][::-1]])
    with pytest.raises(ValueError, match="same prompts"):
        grid_figure(IMAGE, [])
    with pytest.raises(ValueError, match="present has 2 entries for 3"):
        grid_figure(IMAGE, wrong, present=[True, False])
    with pytest.raises(ValueError, match="share a scale"):
        grid_figure(IMAGE, [[wrong[0][0], wrong[0][1]._replace(units="cosine"), wrong[0][2]]])


def volume_heats() -> list[list[Heat]]:
    """Each map's peak lies in a slice of its own."""
    rows = []
    for number, method in enumerate(METHODS):
        row = []
        for index, prompt in enumerate(PROMPTS):
            values = np.zeros((9, 20, 32))
            values[3 * number + index, 4, 5] = 1.0 + index
            row.append(Heat(values, prompt, method, 1.0))
        rows.append(row)
    return rows


def test_of_a_volume_each_cell_is_the_slice_through_its_maps_peak():
    volume = np.linspace(0.1, 0.9, 9)[:, None, None] * np.ones((1, 20, 32))  # each slice has a gray of its own
    mask = np.zeros(volume.shape)
    mask[1, 2:6, 3:9] = 1
    figure = grid_figure(volume, volume_heats(), truths=[None, Truth(mask), None], spacing_mm=(5, 1.0, 0.5))
    drawn = pictures(figure)
    for index in range(3):
        np.testing.assert_allclose(drawn[index], volume[index, ..., None] * np.ones(3))  # as the row below, untinted
    for cell, picture in enumerate(drawn[3:12]):
        values = volume_heats()[cell // 3][cell % 3].values[cell]
        np.testing.assert_allclose(picture, overlay(volume[cell], values, OverlayStyle(limit=3.0)))
        axes = figure.axes[3 + cell]
        assert axes.get_xlabel().startswith(f"slice {cell}, score 1")
        assert axes.get_aspect() == 2
        assert bool(axes.lines) == (cell == 1)  # the truth lies in slice 1 of the second prompt
    assert "the axial slice through its map's peak" in words(figure)
    assert cut_texts(figure) == []
