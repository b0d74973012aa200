"""Heatmaps as MONAI's evaluators and Invertd want them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, Invertd
from PIL import Image
from torch import Tensor

from monai_medclip.explainers import Explainer, GradECLIP
from monai_medclip.inferers import HeatmapInferer
from monai_medclip.networks import ZeroShotClassifier
from monai_medclip.transforms import DisplayOrderd, FitImaged, LoadRadiographd

from ..networks.toys import tiny_clip, tokenize


class Brightness(Explainer):
    """The image itself as the map of every finding: where it ends up is known."""

    name = "brightness"

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        scores = classifier(image)
        return image[:, :1].expand(-1, scores.shape[1], *image.shape[2:]), scores


@pytest.fixture
def classifier() -> ZeroShotClassifier:
    torch.manual_seed(0)
    return tiny_clip().classifier(["nodule", "mass"], tokenize).eval()


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """40 rows x 60 columns, a bright square in the upper right corner."""
    pixels = np.random.default_rng(0).integers(0, 60, (40, 60), np.uint8)
    pixels[2:8, 50:56] = 255
    Image.fromarray(pixels).save(tmp_path / "marked.png")
    return tmp_path / "marked.png"


def prepared() -> Compose:
    return Compose(
        [
            LoadRadiographd(keys="image"),
            FitImaged(keys="image", spatial_size=(32, 32)),
            DisplayOrderd(keys="image"),
        ]
    )


def test_maps_come_back_to_the_files_own_grid_through_an_evaluator(
    marked: Path, classifier: ZeroShotClassifier
) -> None:
    transforms = prepared()
    loader = DataLoader(Dataset([{"image": str(marked)}], transforms), batch_size=1)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=classifier,
        inferer=HeatmapInferer(Brightness()),
        prepare_batch=lambda batch, device, non_blocking: (batch["image"].to(device), batch["image"]),
        decollate=False,
    )
    evaluator.run()
    heatmap = evaluator.state.output["pred"]
    assert isinstance(heatmap, MetaTensor)
    assert heatmap.shape == (1, 2, 32, 32)
    row, column = divmod(int(heatmap[0, 0].argmax()), 32)
    assert (row < 16, column > 16) == (True, True)  # (rows, columns), upper right

    (item,) = decollate_batch({"image": evaluator.state.batch["image"], "pred": heatmap})
    back = Invertd(keys="pred", transform=transforms, orig_keys="image")(item)["pred"]
    assert back.shape == (2, 60, 40)  # (x, y) as MONAI reads it
    x, y = divmod(int(back[0].argmax()), 40)
    assert 49 <= x <= 56
    assert 1 <= y <= 8


def test_a_plain_tensor_stays_plain_and_equals_the_explainers_map(classifier: ZeroShotClassifier) -> None:
    image = torch.rand(2, 1, 32, 32)
    heatmap = HeatmapInferer(GradECLIP())(image, classifier)
    assert not isinstance(heatmap, MetaTensor)
    torch.testing.assert_close(heatmap, GradECLIP()(classifier, image))


def test_a_network_of_its_own_is_explained_instead(classifier: ZeroShotClassifier) -> None:
    torch.manual_seed(1)
    other = tiny_clip().classifier(["nodule"], tokenize).eval()
    image = torch.rand(1, 1, 32, 32)
    found = HeatmapInferer(GradECLIP(), network=other).explain(image, classifier)
    torch.testing.assert_close(found.scores, other(image))


def test_positional_context_is_refused(classifier: ZeroShotClassifier) -> None:
    with pytest.raises(TypeError, match="by name"):
        HeatmapInferer(GradECLIP())(torch.rand(1, 1, 32, 32), classifier, torch.zeros(1, 4))
