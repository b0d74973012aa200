"""Epoch metrics on MONAI's own SupervisedEvaluator."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_medclip.metrics import ClassificationMetric, RetrievalMetric, classification, retrieval
from monai_medclip.outputs import CLIPOutput


class Pair(nn.Module):
    """Gives the first half of its input as image and the second as text embedding."""

    def forward(self, x: torch.Tensor) -> CLIPOutput:
        image, text = x.chunk(2, dim=1)
        return CLIPOutput(image, text, torch.tensor(10.0), torch.tensor(0.0))


def evaluator(batches, network, metric, name):
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=batches,
        network=network,
        key_val_metric={name: metric},
        decollate=False,
        metric_cmp_fn=lambda now, best: now > best,
    )


def test_retrieval_over_uneven_batches_equals_retrieval_at_once():
    pairs, positives = torch.randn(23, 12), torch.randint(0, 9, (23,))
    batches = [{"image": MetaTensor(x), "label": y} for x, y in zip(pairs.split(5), positives.split(5), strict=True)]
    name = "tie_aware_text_to_image_recall@5"
    run = evaluator(batches, Pair(), RetrievalMetric(name, also=["strict_image_to_text_mrr"]), name)
    for _ in range(2):  # the second epoch starts afresh
        run.run()
    expected = retrieval(pairs[:, :6], pairs[:, 6:], positives).as_dict()
    assert run.state.metrics[name] == pytest.approx(expected[name])
    assert run.state.metrics["strict_image_to_text_mrr"] == pytest.approx(expected["strict_image_to_text_mrr"])
    assert run.state.best_metric == run.state.metrics[name]
    assert run.state.metric_details[name] == pytest.approx(expected)


def test_classification_of_an_epoch():
    logits, labels = torch.randn(20, 2), torch.randint(0, 2, (20, 2)).float()
    labels[3, 1] = torch.nan
    batches = [{"image": x, "label": y} for x, y in zip(logits.split(6), labels.split(6), strict=True)]
    run = evaluator(batches, nn.Identity(), ClassificationMetric(["nodule", "mass"], also=["mass_auc"]), "auc")
    run.run()
    report = classification(logits, labels, ["nodule", "mass"])
    assert run.state.metrics["auc"] == pytest.approx(report.macro_auc)
    assert run.state.metrics["mass_auc"] == pytest.approx(report.findings[1].auc)


def test_a_wrong_name_is_told_with_the_right_ones():
    batches = [{"image": torch.randn(4, 4), "label": torch.arange(4)}]
    run = evaluator(batches, Pair(), RetrievalMetric("recall@5"), "recall@5")
    with pytest.raises(ValueError, match=r"no figure \['recall@5'\]; it has .*tie_aware_text_to_image_recall@5"):
        run.run()


def test_an_epoch_without_batches_is_an_error():
    with pytest.raises(ValueError, match="validation set is empty"):
        RetrievalMetric().compute()
