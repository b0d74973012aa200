"""Probes: small heads trained on embeddings that stay as they are, by what they may read, with few cases or all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from ..audits import STRENGTHS, fit_logistic
from ..metrics.classification import (
    column_means,
    patient_numbers,
    patient_resamples,
    percentile_interval,
    resampled_figures,
)
from ..networks import PROBE_HEADS, MLPHead, ProbeClassifier
from ..writers import FewShot
from .embedding_store import EmbeddingStore

__all__ = ["FittedProbe", "ProbeInput", "few_shot", "fit_mlp", "fit_probe", "probe_features"]

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

SHOTS = (1, 5, 10, 50)


class ProbeInput(NamedTuple):
    """What a probe reads."""

    image: bool
    sections: tuple[str, ...]  # of the report, joined and embedded as one text; ("text",) is the whole report

    @classmethod
    def named(cls, name: str) -> ProbeInput:
        """``"image"``, ``"text"``, ``"indication"``, ``"indication+findings"``, ``"image+text"`` and so on.

        Raises:
            ValueError: nothing is named.
        """
        parts = [part.strip() for part in name.split("+") if part.strip()]
        if not parts:
            raise ValueError(f"a probe's input {name!r} names nothing: write 'image', 'text' or sections, with '+'.")
        return cls("image" in parts, tuple(part for part in parts if part != "image"))

    def __str__(self) -> str:
        """Its name, as a config writes it."""
        return "+".join(["image"] * self.image + list(self.sections))


class FittedProbe(NamedTuple):
    """A trained head with its logits."""

    input: ProbeInput
    kind: str  # of head: "logistic" or "mlp"
    head: nn.Module
    settings: dict[str, float]  # such as {"nodule C": 0.01}
    val_logits: Array  # (V, F)
    test_logits: Array  # (N, F)

    @property
    def name(self) -> str:
        """Input and head."""
        return f"{self.input}, {self.kind}"

    def classifier(self, store: EmbeddingStore, findings: Sequence[str]) -> ProbeClassifier | None:
        """The probe as a classifier of images; None for one that reads no image."""
        if not self.input.image:
            return None
        with_text = bool(self.input.sections)
        return ProbeClassifier(store.clip, self.head, findings, with_text=with_text, space=store.space)


def probe_features(store: EmbeddingStore, split: str, given: ProbeInput) -> Tensor:
    """What a probe reads of every item of a split: (N, width), the image's embedding before the report's."""
    parts = [store[split].image] if given.image else []
    if given.sections:
        parts.append(store.texts(split, given.sections))
    return torch.cat(parts, dim=1)


def fit_probe(
    store: EmbeddingStore, findings: Sequence[str], given: ProbeInput, kind: str = "logistic", *, seed: int = 0
) -> FittedProbe:
    """Trains a head on the training split.

    Args:
        store: embeddings of ``train``, ``val`` and ``test``.
        findings: F names in the order of the labels.
        given: what it reads.
        kind: ``"logistic"``, its strength chosen by cross-validation over the training patients, or ``"mlp"``, the
            paper's with its settings.
        seed: of folds, weights and batches.

    Raises:
        ValueError: labels that do not fit, or a finding without two training patients of each class.
    """
    train = store["train"]
    if train.label.shape[1] != len(findings):
        raise ValueError(
            f"The items have {train.label.shape[1]} labels each for {len(findings)} findings {list(findings)}: read "
            "the manifest with the same findings."
        )
    features = {split: probe_features(store, split, given) for split in ("train", "val", "test")}
    head: nn.Module
    if kind == "logistic":
        patients = np.array(train.patients)
        fit = fit_logistic(features["train"].numpy(), train.label.numpy(), findings, groups=patients, seed=seed)
        head = _as_linear(fit.weight, fit.bias)
        settings = {f"{name} C": value for name, value in zip(fit.names, fit.strength, strict=True)}
    else:
        if kind not in PROBE_HEADS:
            raise ValueError(f"no probe head {kind!r}: choose from {', '.join(PROBE_HEADS)}.")
        head = fit_mlp(features["train"], train.label, findings, seed=seed, progress=store.progress)
        settings = {}  # the paper's
    with torch.no_grad():
        val, test = (head(features[split]).double().numpy() for split in ("val", "test"))
    return FittedProbe(given, kind, head.eval(), settings, val, test)


def fit_mlp(
    features: Tensor,
    labels: Tensor,
    findings: Sequence[str],
    *,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
    epochs: int = 25,
    seed: int = 0,
    progress: bool = False,
) -> MLPHead:
    """The paper's probe with the paper's settings: AdamW, the last epoch, nothing chosen.

    Args:
        features: (N, width).
        labels: (N, F) of 1, 0 or NaN (unknown: not trained on).
        findings: F names.
        learning_rate: of AdamW.
        batch_size: items per step.
        epochs: passes over the items.
        seed: of weights and order.
        progress: show a progress bar.

    Raises:
        ValueError: a finding without a training item of each class.
    """
    for f, name in enumerate(findings):
        counts = {value: int((labels[:, f] == value).sum()) for value in (1, 0)}
        if not all(counts.values()):
            raise ValueError(f"finding {name!r} has {counts[1]} positive and {counts[0]} negative training items.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = MLPHead(features.shape[1], len(findings)).train()
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(features, labels), batch_size=batch_size, shuffle=True, generator=order)
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate)
    for _ in tqdm(range(epochs), desc="training the MLP probe", leave=False, disable=not progress):
        for rows, truth in loader:
            known = ~truth.isnan()
            if not known.any():
                continue
            loss = F.cross_entropy(head.pairs(rows)[known], truth[known].long())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return head


def few_shot(
    store: EmbeddingStore,
    findings: Sequence[str],
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = 10,
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, tuple[FewShot, ...]]:
    """AUC on the test images of logistic probes of the image, fitted on few training patients of each class.

    Nothing is chosen: the strength is scikit-learn's C = 1, as there are no cases to choose it with, and features are
    standardized by all training images, which needs no label. For all patients cross-validation chooses the strength.

    Args:
        store: embeddings of ``train`` and ``test``.
        findings: F names.
        shots: patients per class; numbers that a finding does not have are left out.
        draws: random draws of each number.
        bootstrap: resamples of test patients for the 95 % interval of the mean over draws; 0 gives none.
        seed: of the draws, the folds and the resamples.

    Returns:
        Finding -> one entry per number of cases, the last one (None) of all; findings that the test items lack a class
        of are left out.
    """
    generator = np.random.default_rng(seed)
    label, patients = store["train"].label.numpy(), np.array(store["train"].patients)
    numbers = patient_numbers(store["test"].patients, len(store["test"].ids))
    counts = patient_resamples(numbers, bootstrap, seed)  # (R, N)
    found = {}
    for f, name in enumerate(findings):
        if not {0.0, 1.0} <= set(store["test"].label[:, f].tolist()):
            continue
        curve = []
        for number in shots:
            drawn = [_drawn(label[:, f], patients, number, generator) for _ in range(draws)]
            scores = [_scores(store, f, name, rows, (1.0,), seed) for rows in drawn if rows is not None]
            curve += [_few(store, f, number, scores, counts)] if scores else []
        everyone = np.flatnonzero(~np.isnan(label[:, f]))
        curve.append(_few(store, f, None, [_scores(store, f, name, everyone, STRENGTHS, seed)], counts))
        found[name] = tuple(curve)
    return found


def _scores(
    store: EmbeddingStore, f: int, name: str, rows: NDArray[np.int_], strengths: Sequence[float], seed: int
) -> Array:
    """Scores (N,) of the test items by a probe of one finding that was fitted on some training rows."""
    train = store["train"]
    image, truth, patients = train.image.numpy(), train.label.numpy()[rows, f : f + 1], np.array(train.patients)[rows]
    fit = fit_logistic(image[rows], truth, [name], groups=patients, strengths=strengths, scale_by=image, seed=seed)
    return fit.scores(store["test"].image.numpy())[:, 0]


def _few(store: EmbeddingStore, f: int, number: int | None, scores: Sequence[Array], counts: Array) -> FewShot:
    """AUC of every draw, and the interval of their mean over resampled test patients."""
    truth = store["test"].label[:, f].double().numpy()
    known = ~np.isnan(truth)
    aucs = [float(roc_auc_score(truth[known], one[known])) for one in scores]
    means = column_means(np.array([resampled_figures(one, truth, counts)[0] for one in scores]))
    return FewShot(number, aucs, percentile_interval(means))


def _drawn(
    label: NDArray[np.float32], patients: NDArray[np.str_], number: int, generator: np.random.Generator
) -> NDArray[np.int_] | None:
    """One item each of ``number`` patients per class; None where a class has fewer."""
    rows = []
    for value in (1, 0):
        of_class = np.flatnonzero(label == value)
        shuffled = generator.permutation(of_class)
        _, first = np.unique(patients[shuffled], return_index=True)
        chosen = shuffled[np.sort(first)][:number]
        if len(chosen) < number:
            return None
        rows.append(chosen)
    return np.concatenate(rows)


def _as_linear(weight: Array, bias: Array) -> nn.Linear:
    head = skip_init(nn.Linear, weight.shape[1], weight.shape[0])  # draws nothing from the global generator
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head
