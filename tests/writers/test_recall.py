"""Bars are the report's recalls; chance, ceiling and intervals stand on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_medclip.metrics import retrieval
from monai_medclip.writers.recall import recall_figure

from .drawn import cut_texts, words


@pytest.fixture(scope="module")
def report():
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(0, 12, (30,), generator=generator)
    texts = torch.randn(12, 6, generator=generator)[groups]
    images = texts + torch.randn(30, 6, generator=generator)
    return retrieval(images, texts, groups, ks=(1, 5), patients=np.arange(30), bootstrap=50)


def test_bars_chance_and_ceiling_are_the_reports(report) -> None:
    figure = recall_figure(report, title="IU")
    for axes, direction in zip(figure.axes, ("image_to_text", "text_to_image"), strict=True):
        shown = [[bar.get_height() for bar in bars] for bars in axes.containers]
        assert shown == [[*getattr(both, direction).recall.values()] for both in report[:3]]
        levels = [[segment[0][1] for segment in lines.get_segments()] for lines in axes.collections]
        chances = [[*getattr(both, direction).chance.values()] for both in report[:3]]
        assert levels == [*chances, [*report.ceiling.values()]]
        intervals = [line.get_ydata() for line in axes.get_lines()]
        np.testing.assert_allclose(intervals[:2], [*getattr(report.strict, direction).recall_interval.values()])
        assert [label.get_text() for label in axes.get_xticklabels()] == ["recall@1", "recall@5"]
    said = words(figure)
    assert f"30 pairs, {report.unique_texts} different reports" in said
    assert "ceiling of strict recall" in said
    assert cut_texts(figure) == []


def test_without_a_bootstrap_there_are_no_intervals() -> None:
    plain = retrieval(torch.eye(4), torch.eye(4), ks=(1,))
    assert [axes.get_lines()[:] for axes in recall_figure(plain).axes] == [[], []]
