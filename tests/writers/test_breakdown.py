"""Bars are the rows' recalls, by covariate and value, with each row's own chance."""

from __future__ import annotations

import pytest
import torch

from monai_medclip.metrics import retrieval_breakdown, retrieval_ranks
from monai_medclip.writers.breakdown import breakdown_figure

from .drawn import cut_texts


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(20, 6, generator=generator)
    images = texts + torch.randn(20, 6, generator=generator)
    ranks = retrieval_ranks(images, texts, torch.arange(20))
    views = ["PA"] * 8 + ["lateral"] * 12
    findings = [["nodule", "pleural effusion"]] * 5 + [["normal"]] * 15
    return retrieval_breakdown(ranks, {"view": views, "finding": findings}, ks=(1, 5), bootstrap=50)


def test_bars_by_covariate_and_value(rows) -> None:
    figure = breakdown_figure(rows, k=5, title="IU")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["view", "PA (8)", "lateral (12)", "finding", "nodule (5)", "pleural effusion (5)", "normal (15)"]
    for axes, direction in zip(figure.axes, ("image_to_text", "text_to_image"), strict=True):
        reports = [getattr(row, direction) for row in rows]
        assert [bars[0].get_width() for bars in axes.containers] == [one.recall[5] for one in reports]
        across = [line.get_xdata() for line in axes.get_lines()]
        assert [line[0] for line in across[::2]] == [one.chance[5] for one in reports]
        assert [tuple(line) for line in across[1::2]] == [one.recall_interval[5] for one in reports]
        assert axes.get_xlabel() == "recall@5"
    assert cut_texts(figure) == []


def test_another_cut_off_is_refused(rows) -> None:
    with pytest.raises(ValueError, match=r"recall at \[1, 5\], not at k=10"):
        breakdown_figure(rows, k=10)
    with pytest.raises(ValueError, match="give rows"):
        breakdown_figure([], k=1)
