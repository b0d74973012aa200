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
