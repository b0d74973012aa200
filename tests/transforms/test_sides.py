"""A mirrored film gets a mirrored report, and both find their way back."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from monai_medclip.transforms import DisplayOrderd, MappedText, RandSwapSidesd, swap_sides


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("Left effusion, RIGHT nodule.", "Right effusion, LEFT nodule."),
        ("left-sided port, leftward shift, bright lung", "right-sided port, rightward shift, bright lung"),
        ("Bilateral opacities", "Bilateral opacities"),
    ],
)
def test_words_change_sides(text, swapped):
    out = swap_sides(MappedText.original(text))
    assert out.text == swapped
    assert len(out.offsets) == len(swapped)
    assert swap_sides(out).text == text


@pytest.mark.parametrize("orientation", ["L\\F", "F\\L", ""])
@pytest.mark.parametrize("shown_first", [True, False])
def test_the_patients_sides_are_exchanged_in_picture_and_words(orientation, shown_first):
    film = torch.zeros(1, 6, 4)  # (x, y), upright unless it is stored lying down
    film[0, 0, 0] = 1
    image = MetaTensor(film, meta={"PatientOrientation": orientation})
    swap, order = RandSwapSidesd("image", prob=1.0), DisplayOrderd("image")
    upright = order({"image": image.clone()})["image"]
    pipeline = Compose([order, swap] if shown_first else [swap, order])
    out = pipeline({"image": image.clone(), "text": "Right apical nodule."})
    assert torch.equal(out["image"].as_tensor(), upright.as_tensor().flip(2))  # columns, whichever way it was stored
    assert out["text"] == "Left apical nodule."
    assert out["text_original"] == "Right apical nodule."
    start, end = out["text_offsets"][0], out["text_offsets"][3]
    assert out["text_original"][start : end + 1] == "Righ"  # four characters of "Left" stand on "Right"'s first four
    back = Invertd("image", transform=pipeline, orig_keys="image")(out)["image"]
    assert torch.equal(back.as_tensor(), image.as_tensor())


def test_most_items_stay_as_they_are_and_are_invertible():
    swap = RandSwapSidesd("image", prob=0.3)
    swap.set_random_state(0)
    film = torch.arange(12.0).view(1, 4, 3)
    swapped = 0
    for _ in range(200):
        out = swap({"image": MetaTensor(film.clone()), "text": "left"})
        mirrored = not torch.equal(out["image"].as_tensor(), film)
        assert (out["text"] == "right") == mirrored
        assert torch.equal(swap.inverse(out)["image"].as_tensor(), film)
        swapped += mirrored
    assert 40 < swapped < 80
