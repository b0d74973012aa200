"""The overlay figure shows image and tint upright, a legend in the map's units, and where the finding really is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.figure import overlay_figure
from monai_medclip.writers.heat import Heat, min_max_scaled
from monai_medclip.writers.overlay import OverlayStyle
from monai_medclip.writers.saving import save_figure
from monai_medclip.writers.truth import Truth

from .drawn import cut_texts, pictures, words

ROWS, COLUMNS = 24, 40
LONG = (
    "radiograph of a chest with a small nodule in the left upper lung zone, seen for $5 & <b>bold</b> _ ^ \\alpha " * 2
)


def heat(prompt: str = "nodule") -> Heat:
    values = np.zeros((ROWS, COLUMNS))
    values[:5, :9] = 1.6  # top left
    return Heat(values, prompt, "Grad-ECLIP", 2.345)


def test_image_and_tint_stand_side_by_side_and_upright():
    image = np.zeros((ROWS, COLUMNS))
    image[-3:, -4:] = 1  # bottom right
    figure = overlay_figure(image, heat())
    plain, tinted = pictures(figure)
    np.testing.assert_array_equal(plain, np.repeat(image[..., None], 3, axis=2))
    assert ((tinted != plain).any(-1) == (heat().values > 0)).all()
    for axes in figure.axes[:2]:
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        assert right > left  # columns run to the right
        assert bottom > top  # rows run down


def test_the_legend_covers_the_map_in_its_units():
    figure = overlay_figure(np.zeros((ROWS, COLUMNS)), heat(), style=OverlayStyle(threshold=0.5))
    bar = figure.axes[2]
    assert bar.get_ylim() == (0, 1.6)
    assert bar.get_ylabel() == "heat (logit)"
    assert [line.get_ydata()[0] for line in bar.lines] == [0.8]


def test_everything_is_said():
    said = words(overlay_figure(np.zeros((ROWS, COLUMNS)), heat()))
    for fact in ("nodule: score 2.35 logit", "Grad-ECLIP", "raw, in logit", "plasma", "from 0.4", RESEARCH_USE):
        assert fact in said
    scaled = words(overlay_figure(np.zeros((ROWS, COLUMNS)), min_max_scaled(heat())))
    assert "min-max scaled" in scaled
    assert "raw" not in scaled


def test_the_outline_follows_mask_and_box():
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[18:24, 30:40] = True  # touches two edges of the image
    figure = overlay_figure(np.zeros((ROWS, COLUMNS)), heat(), truth=Truth(mask, ((2, 3, 6, 8),)))
    for axes in figure.axes[:2]:
        box, outline = axes.lines[1].get_xydata(), axes.lines[3].get_xydata()
        assert (box.min(0) == [1.5, 2.5]).all()
        assert (box.max(0) == [5.5, 7.5]).all()
        np.testing.assert_allclose(outline.min(0), [29.5, 17.5])
        np.testing.assert_allclose(outline.max(0), [39.5, 23.5])
        np.testing.assert_allclose(outline[0], outline[-1])  # closed, also at the image's edge
    assert "ground truth" in words(figure)
    assert "ground truth" not in words(overlay_figure(np.zeros((ROWS, COLUMNS)), heat()))


def test_an_empty_mask_has_no_outline_and_a_wrong_one_is_refused():
    empty = Truth(np.zeros((ROWS, COLUMNS), bool))
    assert "ground truth" not in words(overlay_figure(np.zeros((ROWS, COLUMNS)), heat(), truth=empty))
    with pytest.raises(ValueError, match="one grid"):
        overlay_figure(np.zeros((ROWS, COLUMNS)), heat(), truth=Truth(np.zeros((COLUMNS, ROWS), bool)))


@pytest.mark.parametrize("shape", [(24, 40), (90, 30), (20, 120), (50, 50)])
def test_no_title_is_cut_for_any_shape_and_prompt(shape):
    figure = overlay_figure(np.zeros(shape), heat(LONG)._replace(values=np.ones(shape)))
    assert cut_texts(figure) == []


def test_the_png_carries_the_notice(tmp_path):
    path = save_figure(overlay_figure(np.zeros((ROWS, COLUMNS)), heat()), tmp_path / "new" / "nodule.png")
    assert Image.open(path).text["Disclaimer"] == RESEARCH_USE
    assert [file.name for file in path.parent.iterdir()] == ["nodule.png"]
    with pytest.raises(ValueError, match="must end in"):
        save_figure(overlay_figure(np.zeros((ROWS, COLUMNS)), heat()), tmp_path / "nodule.pdf")
