"""CLIP or BLIP: the default small CLIP and a BLIP of the same make, trained alike on phantoms, judged alike.

    python benchmarks/clip_or_blip.py --dataset-dir medclip_data/phantom [--train 2400] [--epochs 7] [--out FILE]

The phantom must be there: the default training makes it. Both networks see the first patients of each split, through
the transforms of `train.json`, in equal batches, for equally many epochs, with one optimizer; `--equal-cpu` adds a
second CLIP, trained for as many epochs as fill the BLIP's CPU time. The last epoch's weights are judged, so nothing is
chosen while training. The prompt rule is chosen on validation, for each way of scoring.

BLIP's mismatches are drawn at random (`--hardness 0`), not by similarity (1, as in the paper): on phantoms many
reports that the embeddings find as likely as the right one are as right. BLIP is judged twice: by its embeddings, as a
CLIP (ITC), and by its matching head (ITM), which re-ranks the first `--top` images of every text. CPU seconds of the
process, one thread: on a busy machine steadier than wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from monai_medclip.cli import bundle_root
from monai_medclip.data import read_manifest
from monai_medclip.engines import Embeddings, cosine_with_warmup, embed, evaluate_zero_shot
from monai_medclip.losses import ContrastiveLoss
from monai_medclip.metrics import ClassificationReport, DirectionReport, classification, retrieval
from monai_medclip.networks import CLIP, PROMPT_RULES, SmallViT, TransformersTextEncoder, parameter_groups
from monai_medclip.networks.blip import BLIPMatcher
from monai_medclip.outputs import TokenBatch
from monai_medclip.transforms import ReportTokenizer, collate_reports

MAX_LENGTH = 128
WIDTH = 128

Batch = dict[str, Any]
Losses = Callable[[Any, Batch], Tensor]


class Data(NamedTuple):
    """Loaders of the three splits, the findings of their labels, and the tokenizer of the training reports."""

    train: DataLoader
    val: DataLoader
    test: DataLoader
    findings: list[str]
    tokenizer: ReportTokenizer


class Training(NamedTuple):
    epochs: int
    cpu_seconds: float
    seconds_per_step: float
    losses: tuple[float, ...]  # means of the last epoch: contrastive, and for BLIP matching


class Row(NamedTuple):
    """One line of the table."""

    name: str
    parameters: int
    training: Training
    rule: str
    auc: float
    auc_interval: Sequence[float]
    recall: DirectionReport | None  # text to image, tie-aware; None: all pairs were not scored
    embedding_seconds: float  # per image
    query_seconds: float  # one text over the gallery, its encoding included


def load_data(options: argparse.Namespace) -> Data:
    """The bundle's own transforms around the first patients of each split."""
    parser = ConfigParser()
    parser.read_config(str(Path(str(bundle_root())) / "configs" / "train.json"))
    findings = parser["findings"]
    items = read_manifest(options.dataset_dir / "manifest.csv", findings=findings, empty_labels="negative")
    sides = {
        side: [item for item in items if item["split"] == side][: getattr(options, side)]
        for side in ("train", "val", "test")
    }
    tokenizer = ReportTokenizer.train([item["text"] for item in sides["train"]], max_length=MAX_LENGTH)
    parser["tokenizer"] = tokenizer
    for side, part in (("train", "train"), ("val", "validate"), ("test", "test")):
        parser[f"{part}#dataset#data"] = sides[side]
        parser[f"{part}#dataset#rejected_csv"] = None
    datasets = {part: parser.get_parsed_content(f"{part}#dataset") for part in ("train", "validate", "test")}
    common = {"batch_size": options.batch, "collate_fn": collate_reports}
    train = DataLoader(datasets["train"], shuffle=True, drop_last=True, **common)
    return Data(train, *(DataLoader(datasets[part], **common) for part in ("validate", "test")), findings, tokenizer)


def default_clip(vocab_size: int) -> CLIP:
    """The network of `train.json`."""
    text = TransformersTextEncoder.small(
        vocab_size, width=WIDTH, max_length=MAX_LENGTH, pooling="mean", dropout=0.0, from_words=True
    )
    return CLIP(SmallViT(128, width=WIDTH), text, embed_dim=WIDTH)


def clip_losses(network: CLIP, batch: Batch) -> Tensor:
    """(1,): contrastive; chance is ln B."""
    output = network(batch["image"], batch["input_ids"], batch["attention_mask"])
    return ContrastiveLoss()(output, batch["positives"]).unsqueeze(0)


def blip_losses(network: BLIPMatcher, batch: Batch, hardness: float) -> Tensor:
    """(2,): contrastive, and matching; the latter's chance is 0.637, as a third of the pairs match."""
    inputs = (batch[key] for key in ("image", "input_ids", "attention_mask", "positives"))
    step = network.training_batch(*inputs, hardness=hardness)
    contrast = ContrastiveLoss()(step.output, batch["positives"])
    return torch.stack([contrast, F.binary_cross_entropy_with_logits(step.logits, step.match)])


def train(
    network: nn.Module, losses_of: Losses, loader: DataLoader, epochs: int, options: argparse.Namespace
) -> Training:
    """The steps are timed one by one; loading and augmenting are not counted."""
    set_determinism(options.seed)
    optimizer = torch.optim.AdamW(parameter_groups(network, options.lr, 0.05), fused=True)
    scheduler = cosine_with_warmup(optimizer, loader, max_epochs=epochs, warmup=0.05)
    network.train()
    seconds, losses = [], []
    for _ in tqdm(range(epochs), type(network).__name__):
        for batch in loader:
            start = time.process_time()
            found = losses_of(network, batch)
            found.sum().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            seconds.append(time.process_time() - start)
            losses.append(found.detach())
    network.eval()
    last = torch.stack(losses[-len(loader) :]).mean(dim=0)
    return Training(epochs, sum(seconds), median(seconds), tuple(last.tolist()))


def judge_embeddings(name: str, network: Any, training: Training, data: Data, queries: int) -> Row:
    """A network by its two embeddings; they are also where matching starts from."""
    val, test = (embed(network, loader) for loader in (data.val, data.test))
    asked = evaluate_zero_shot(network, val, test, data.findings, data.tokenizer)
    found = retrieval(test.image, test.text, test.positives, patients=np.array(test.patients), bootstrap=1000)
    images = next(iter(data.test))["image"]
    texts = text_batch(data.test)

    def query(number: int) -> Tensor:
        return network.encode_text(*one_text(texts, number)) @ test.image.T

    return Row(
        name,
        sum(parameter.numel() for parameter in network.parameters()),
        training,
        asked.rule,
        asked.report.macro_auc,
        asked.report.macro_auc_interval,
        found.tie_aware.text_to_image,
        cpu_seconds(lambda _: network.encode_image(images), 5) / len(images),
        cpu_seconds(query, queries),
    )


def judge_matching(row: Row, matcher: BLIPMatcher, data: Data, top: int, queries: int) -> tuple[Row, Row]:
    """The same network by its matching head: as a classifier and over the whole gallery, and as a re-ranker."""
    sides = {"val": embed(matcher, data.val), "test": embed(matcher, data.test)}
    features = {"val": features_of(matcher, data.val), "test": features_of(matcher, data.test)}

    def reports(side: str, rule: str, bootstrap: int) -> ClassificationReport:
        classifier = matcher.classifier(data.findings, data.tokenizer, rule=rule)
        with torch.no_grad():
            logits = torch.cat([classifier.score_features(part) for part in features[side].split(32)])
        one = sides[side]
        return classification(logits, one.label, data.findings, groups=np.array(one.patients), bootstrap=bootstrap)

    validation = {rule: reports("val", rule, 0).macro_auc for rule in PROMPT_RULES}
    rule = max(validation, key=lambda name: validation[name])
    judged = reports("test", rule, 1000)
    texts, test = text_batch(data.test), sides["test"]
    candidates = (test.text @ test.image.T).topk(top).indices  # (N, top)

    def over_all(number: int) -> Tensor:
        every = torch.arange(len(features["test"])).unsqueeze(0)
        return matcher.rerank(features["test"], one_text(texts, number), every).order

    def over_top(number: int) -> Tensor:
        text = one_text(texts, number)
        first = (matcher.encode_text(*text) @ test.image.T).topk(top).indices
        return matcher.rerank(features["test"], text, first).order

    by_matching = row._replace(
        name="BLIP, matching",
        rule=rule,
        auc=judged.macro_auc,
        auc_interval=judged.macro_auc_interval,
        recall=None,
        query_seconds=cpu_seconds(over_all, min(queries, 5)),
    )
    recall = report_of(matcher.rerank(features["test"], texts, candidates).order, test)
    reranked = by_matching._replace(
        name=f"BLIP, first {top} matched", recall=recall, query_seconds=cpu_seconds(over_top, queries)
    )
    return by_matching, reranked


def features_of(matcher: BLIPMatcher, loader: Iterable[Batch]) -> Tensor:
    """All tokens of all images, (N, N_tokens D)."""
    with torch.no_grad():
        return torch.cat([matcher.image_encoder(batch["image"]) for batch in loader])


def text_batch(loader: DataLoader) -> TokenBatch:
    """All texts of a split as one batch."""
    rows = [row for batch in loader for row in zip(batch["input_ids"], batch["attention_mask"])]
    return TokenBatch(*(nn.utils.rnn.pad_sequence(list(part), batch_first=True) for part in zip(*rows)))


def one_text(texts: TokenBatch, number: int) -> TokenBatch:
    """One text without padding."""
    mask = texts.attention_mask[number : number + 1]
    return TokenBatch(texts.input_ids[number : number + 1, : int(mask.sum())], mask[:, : int(mask.sum())])


def report_of(order: Tensor, test: Embeddings) -> DirectionReport:
    """Tie-aware retrieval of images by texts whose first images (N, k) were put in a new order.

    Against a gallery of one-hot images a dot product is the score itself, so ranks can be handed to `retrieval`.
    """
    ranks = (test.text @ test.image.T).argsort(dim=1, descending=True).argsort(dim=1)  # (N, N), 0 is best
    ranks = ranks.scatter(1, order, torch.arange(order.shape[1]).expand_as(order))
    scores, patients = (len(ranks) - ranks).float(), np.array(test.patients)
    found = retrieval(torch.eye(len(ranks)), scores, test.positives, patients=patients, bootstrap=1000)
    return found.tie_aware.text_to_image


@torch.no_grad()
def cpu_seconds(call: Callable[[int], object], times: int) -> float:
    """Median CPU seconds of a call with 0, 1, 2, ..., after one that is not counted."""
    seconds = []
    for number in range(times + 1):
        start = time.process_time()
        call(number)
        seconds.append(time.process_time() - start)
    return median(seconds[1:])


def figure(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def table(rows: Sequence[Row], gallery: int) -> str:
    titles = (
        "",
        "parameters",
        "epochs",
        "training, CPU s",
        "s per step",
        "prompt rule",
        "zero-shot macro AUC [95 %]",
        "text to image R@5 [95 %]",
        "ms per image",
        f"ms per query over {gallery}",
    )
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        cells = (
            row.name,
            f"{row.parameters / 1e6:.2f} M",
            str(row.training.epochs),
            f"{row.training.cpu_seconds:.0f}",
            f"{row.training.seconds_per_step:.3f}",
            row.rule,
            figure(row.auc, row.auc_interval),
            "" if row.recall is None else figure(row.recall.recall[5], row.recall.recall_interval[5]),
            f"{1000 * row.embedding_seconds:.1f}",
            f"{1000 * row.query_seconds:.1f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-dir", type=Path, required=True)
    for side, patients in (("train", 2400), ("val", 200), ("test", 400)):
        parser.add_argument(f"--{side}", type=int, default=patients, help="patients of this split, the first ones")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--hardness", type=float, default=0.0, help="of BLIP's mismatches: 0 random, 1 as in the paper")
    parser.add_argument("--top", type=int, default=20, help="images per text that the matching head looks at again")
    parser.add_argument("--queries", type=int, default=20, help="texts that are timed")
    parser.add_argument("--equal-cpu", action="store_true", help="train a second CLIP for the BLIP's CPU time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(options)
    vocabulary = data.tokenizer.vocab_size

    def trained(build: Callable[[int], Any], losses: Losses, epochs: int) -> tuple[Any, Training]:
        set_determinism(options.seed)
        network = build(vocabulary)
        return network, train(network, losses, data.train, epochs, options)

    with_hardness = partial(blip_losses, hardness=options.hardness)
    matcher, of_blip = trained(BLIPMatcher.small, with_hardness, options.epochs)
    clip, of_clip = trained(default_clip, clip_losses, options.epochs)
    rows = [judge_embeddings("CLIP", clip, of_clip, data, options.queries)]
    if options.equal_cpu:
        epochs = round(of_blip.cpu_seconds / of_clip.cpu_seconds * options.epochs)
        longer = trained(default_clip, clip_losses, epochs)
        rows.append(judge_embeddings("CLIP, for BLIP's CPU time", *longer, data, options.queries))
    contrast = judge_embeddings("BLIP, embeddings", matcher, of_blip, data, options.queries)
    rows += [contrast, *judge_matching(contrast, matcher, data, options.top, options.queries)]
    print(f"\n{table(rows, len(data.test.dataset))}\n")
    print(f"R@5 is tie-aware; chance is {contrast.recall.chance[5]:.3f}. Losses of the last epoch:")
    for row in rows[: 2 + options.equal_cpu]:
        print(f"  {row.name}: " + ", ".join(f"{value:.3f}" for value in row.training.losses))
    print(f"Chance is ln {options.batch} = {np.log(options.batch):.2f}, and 0.637 for matching.")
    print(f"torch {torch.__version__}, {vars(options)}")
    if options.out:
        options.out.write_text(json.dumps([row._asdict() for row in rows], indent=2, default=str))


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:  # threads that wait must sleep: spinning would count as CPU time
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    main()
