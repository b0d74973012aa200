"""Small data sets on disk, with reports in sections, whose embeddings can be counted by hand: for the questions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch.nn import functional as F

from monai_medclip.engines import EmbeddingStore
from monai_medclip.findings import Finding
from monai_medclip.networks import CLIP
from monai_medclip.transforms import BadInputError, CheckedDataset, PositivesFromTextd

from .bag_of_words import WIDTH, WORDS, counting_clip, tokenizer

__all__ = ["FINDINGS", "NAMES", "Read", "case", "clip", "counted", "forwards", "patients", "store", "tokenizer"]

FINDINGS = (Finding("nodule", ("spot",), ("no spot",)), Finding("mass", ("lump",), ("no lump",)))
NAMES = ("nodule", "mass")


def clip() -> CLIP:
    """Embeddings are word counts; its images can be drawn."""
    network = counting_clip()
    encoder = network.image_encoder
    encoder.spatial_dims, encoder.mean, encoder.std = 2, (0.0,), (1.0,)
    return network.eval()


class Read(Transform):
    """Cleans and tokenizes: unknown words are dropped, and a text of nothing else is refused."""

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        words = [word for word in re.findall(r"[a-z]+", item["text"].lower()) if word in WORDS]
        if not words:
            raise BadInputError(item["id"], "the report is empty after cleaning", "Leave it out.")
        ids = torch.tensor([WORDS.index(word) for word in words])
        return {**item, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Load(Transform):
    """Reads the image; another shift is another preprocessing."""

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        if not Path(item["image"]).is_file():
            raise BadInputError(item["image"], "there is no such file", "Leave it out.")
        return {**item, "image": MetaTensor(torch.from_numpy(np.load(item["image"])).roll(self.shift, dims=-1))}


def counted(words: str) -> torch.Tensor:
    """The unit embedding of an image or text of these words."""
    counts = sum(F.one_hot(torch.tensor(WORDS.index(word)), WIDTH) for word in words.split())
    return F.normalize(counts.float(), dim=0)


def case(folder: Path, name: str, seen: str, text: str, label: Sequence[float] = (), **others: Any) -> dict[str, Any]:
    """An item whose image shows some words and whose report says others."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = sum(F.one_hot(torch.tensor(WORDS.index(word)), WIDTH) for word in seen.split()).float()
    path = folder / f"{name}.npy"
    np.save(path, counts.reshape(1, 2, WIDTH // 2).numpy())
    item = {"id": name, "patient_id": f"p{name}", "study_id": f"s{name}", "image": str(path), "text": text}
    return {**item, "label": list(label), **others}


def patients(folder: Path, split: str, count: int) -> list[dict[str, Any]]:
    """Two images each of patients, every fifth of whom looks the opposite of what is known."""
    items = []
    for number in range(count):
        sick = [bool(number % 2), bool(number // 2 % 2)]
        told = [("spot" if sick[0] else "no spot"), ("lump" if sick[1] else "no lump")]
        sections = {"indication": "Heart." if number % 3 else "XXXX.", "findings": f"{told[0]}. {told[1]}."}
        shown = [not one for one in sick] if number % 5 == 4 else sick
        for view in ("pa", "lateral"):
            words = ["lungs", *(word for word, there in zip(("spot", "lump"), shown) if there)]
            words += [word for bit, word in enumerate(("clear", "heart", "normal")) if number // 4 >> bit & 1]
            words += ["no"] if view == "lateral" else []
            items.append(
                case(
                    folder,
                    f"{split}{number}{view}",
                    " ".join(words),
                    " ".join(sections.values()),
                    [float(one) for one in sick],
                    patient_id=f"{split}{number}",
                    study_id=f"{split}{number}",
                    view=view,
                    labels=[name for name, one in zip(NAMES, sick) if one],
                    sections=sections,
                    meta={"sex": "fm"[number // 3 % 2]},
                )
            )
    return items


def store(folder: Path, items: Mapping[str, Sequence[Any]], network: CLIP | None = None, **others: Any) -> Any:
    """A store of these items; ``shift`` is a preprocessing, ``on_error`` the dataset's."""
    transform = [Load(others.pop("shift", 0)), PositivesFromTextd(), Read()]
    checking = {"on_error": others.pop("on_error", "raise"), "rejected_csv": folder / "rejected.csv"}
    make = partial(CheckedDataset, transform=transform, progress=False, **checking)
    options = {"read_report": Read(), "batch_size": 2, "progress": False, **others}
    return EmbeddingStore(network or clip(), items, make, folder / "embeddings", **options)


def forwards(module: torch.nn.Module) -> list[int]:
    """Grows by the batch size whenever the module is run."""
    sizes: list[int] = []
    module.register_forward_hook(lambda _, inputs, output: sizes.append(len(inputs[0])))
    return sizes
