"""Embeddings through the store, over the plain forward passes they need; and reading what is kept, over making it.

    python benchmarks/embedding_speed.py [--dataset-dir FOLDER] [--items 1000] [--rounds 5] [--out FILE]

The default network of the bundle, from random weights, on phantom X-rays that have been prepared: in `plain`, batches
that lie in memory go through `encode_image` and `encode_text` one by one; in `store`, a new `EmbeddingStore` embeds the
same items and writes them to an empty folder; in `kept`, another store opens that folder and reads, which includes the
digest of the weights and the comparison of the first item. All take turns, in an order that changes every round. CPU
time of the process is steadier on a busy machine; wall time holds the waiting for the disk. Without `--dataset-dir`
phantoms are made in a scratch folder.

The store can be quicker than plain: on a CPU no more than 12 images are in the network at once, equal reports are
embedded once, and reports of similar length share a batch. `--batch-size 12` takes the first away, `--distinct` the
second (a number at the end of every report).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from monai_medclip.cli import bundle_root
from monai_medclip.data import make_phantom, read_manifest
from monai_medclip.engines import EmbeddingStore
from monai_medclip.networks import CLIP
from monai_medclip.transforms import CheckedDataset, ReportTokenizer, collate_reports

SAME = 1e-4  # between embeddings of one item, made in batches of other shapes

Item = dict[str, Any]
Made = tuple[Tensor, Tensor]  # (N, E) of the images and (N, E) of the reports


class Setting(NamedTuple):
    """What all three start from."""

    clip: CLIP
    items: list[Item]
    prepare: Callable[..., CheckedDataset]
    prepared: CheckedDataset  # of all items, in memory
    batches: list[dict[str, Any]]  # the same, collated
    batch_size: int

    def store(self, folder: Path) -> EmbeddingStore:
        """A store of the prepared items; the one item that it looks at in a finished folder is read from its file."""

        def make_dataset(data: Sequence[Item], **options: Any) -> CheckedDataset:
            return self.prepared if len(data) == len(self.items) else self.prepare(data=data, **options)

        options: dict[str, Any] = {"batch_size": self.batch_size, "progress": False}
        return EmbeddingStore(self.clip, {"test": self.items}, make_dataset, folder, **options)


class Spent(NamedTuple):
    """Seconds of one call."""

    cpu: float
    wall: float


def setting(options: argparse.Namespace, scratch: Path) -> Setting:
    """Items, transforms and network of the bundle."""
    folder = options.dataset_dir or scratch / "phantom"
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        manifest = make_phantom(folder, patients=options.items, image_size=128, splits={"test": 1.0})
    parser = ConfigParser()
    parser.read_config(str(Path(str(bundle_root())) / "configs" / "zero_shot.json"))
    items = read_manifest(manifest, findings=parser["findings"], empty_labels="negative")[: options.items]
    if options.distinct:
        items = [{**item, "text": f"{item['text']} Number {number}."} for number, item in enumerate(items)]
    parser["tokenizer"] = ReportTokenizer.train([item["text"] for item in items], max_length=parser["max_length"])
    parser["make_dataset#rejected_csv"] = None
    prepare = parser.get_parsed_content("make_dataset")
    prepared, size = prepare(data=items), options.batch_size or parser["batch_size"]
    cached = list(prepared.prepared())
    batches = [collate_reports(cached[first : first + size]) for first in range(0, len(cached), size)]
    clip = parser.get_parsed_content("network_def").eval()
    return Setting(clip, items, prepare, prepared, batches, size)


def plain(own: Setting) -> Made:
    """The forward passes alone."""
    images, texts = [], []
    with torch.no_grad():
        for batch in own.batches:
            images.append(own.clip.encode_image(batch["image"]))
            texts.append(own.clip.encode_text(batch["input_ids"], batch["attention_mask"]))
    return torch.cat(images), torch.cat(texts)


def through_store(own: Setting, folder: Path) -> Made:
    """Made if the folder is empty, read if it is finished."""
    found = own.store(folder)["test"]
    return found.image, found.text


def interleaved(own: Setting, scratch: Path, rounds: int) -> dict[str, list[Spent]]:
    """The first, uncounted round also checks that all give the same numbers."""
    finished = scratch / "finished"
    seconds: dict[str, list[Spent]] = {"plain": [], "store": [], "kept": []}
    expected = plain(own)
    through_store(own, finished)
    for number in range(-1, rounds):
        folder = scratch / f"round {number}"
        calls: dict[str, Callable[[], Made]] = {
            "plain": lambda: plain(own),
            "store": lambda folder=folder: through_store(own, folder),
            "kept": lambda: through_store(own, finished),
        }
        for name in random.Random(number).sample(list(calls), len(calls)):
            cpu, wall = time.process_time(), time.perf_counter()
            made = calls[name]()
            spent = Spent(time.process_time() - cpu, time.perf_counter() - wall)
            if number < 0:
                for one, other in zip(made, expected, strict=True):
                    torch.testing.assert_close(one, other, rtol=0, atol=SAME)
            else:
                seconds[name].append(spent)
        shutil.rmtree(folder)
    return seconds


def ratios(seconds: Mapping[str, Sequence[Spent]], name: str, over: str) -> dict[str, Any]:
    """Medians of the rounds' ratios, and their ranges."""
    found: dict[str, Any] = {"ratio": f"{name} / {over}"}
    for clock in Spent._fields:
        rounds = [
            getattr(one, clock) / getattr(other, clock) for one, other in zip(seconds[name], seconds[over], strict=True)
        ]
        found[clock] = {"median": median(rounds), "lowest": min(rounds), "highest": max(rounds)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-dir", type=Path, help="a phantom of 128 pixels; default: make one")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, help="default: the configuration's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--distinct", action="store_true", help="no two reports are equal")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        own = setting(options, Path(folder))
        seconds = interleaved(own, Path(folder), options.rounds)
    texts = len({item["input_ids"].numpy().tobytes() for item in own.prepared.prepared()})
    print(f"{len(own.items)} items, {texts} different reports, batches of {own.batch_size}, {options.threads} threads")
    for name, spent in seconds.items():
        cpu, wall = (median(getattr(one, clock) for one in spent) for clock in Spent._fields)
        print(f"{name:6s} {cpu:8.3f} CPU s  {wall:8.3f} s on the wall")
    found = [ratios(seconds, "store", "plain"), ratios(seconds, "kept", "store")]
    for one in found:
        told = ", ".join(
            "{0} {median:.3f} ({lowest:.3f} to {highest:.3f})".format(clock, **one[clock]) for clock in Spent._fields
        )
        print(f"{one['ratio']:14s} {told}")
    if options.out:
        facts = {"items": len(own.items), "different_reports": texts, "batch_size": own.batch_size}
        options.out.write_text(json.dumps({**facts, "seconds": seconds, "ratios": found}, indent=2))


if __name__ == "__main__":
    main()
