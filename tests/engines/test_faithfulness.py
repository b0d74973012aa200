"""Masking the hottest places: known answers on a classifier that adds up one corner."""

from __future__ import annotations

import pytest
import torch

from monai_medclip.engines import faithfulness


@pytest.mark.parametrize("spatial", [(10, 10), (4, 5, 10)])
def test_a_map_on_what_counts_supports_and_one_beside_it_does_not(spatial: tuple[int, ...]) -> None:
    corner = torch.zeros(spatial)
    corner.view(-1)[: corner.numel() // 10] = 1.0
    image = 3 * corner[None]  # the mean is 0.3

    def classifier(batch: torch.Tensor) -> torch.Tensor:
        total = (batch[:, 0] * corner).flatten(1).sum(1)
        return torch.stack([-total, total], dim=1)

    on = faithfulness(classifier, image, corner, 1, score=7.0)
    count = corner.sum().item()
    assert on.score == 7.0
    assert on.hottest_masked == pytest.approx(0.3 * count)
    assert on.elsewhere_masked == pytest.approx(3 * count)
    assert on.supports
    away = corner.roll([size // 2 for size in spatial], list(range(len(spatial))))
    assert not faithfulness(classifier, image, away, 1, score=7.0).supports
