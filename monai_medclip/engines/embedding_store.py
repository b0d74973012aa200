"""Embeddings on disk: every image and every report is embedded once, and all questions are asked of what is kept."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader
from monai.networks.utils import eval_mode
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Subset
from tqdm import tqdm

from ..audits import report_text
from ..index import EmbeddingIndex
from ..transforms import CheckedDataset, bad_input_cause, collate_reports
from .autocast import AutocastInferer
from .embedding import Embeddings, check_finite
from .files import atomic_write, write_json
from .stored_embeddings import file_states, index_record, opened_index, weights_digest

__all__ = ["SPACES", "EmbeddingStore", "MissingTextError"]

logger = logging.getLogger(__name__)

SPACES = ("embedding", "pooled")
BLOCK = 512  # items between two writes: what a killed run loses at most
SAME = 1e-3  # cosine distance that rounding may make
# A CPU gains nothing by more images at once, and loses: what they need between layers leaves its caches, and is so
# large that the allocator gives it back to the system and gets it anew for every layer.
IMAGES_ON_CPU = 12
FACTS = ("id", "patient_id", "study_id", "view", "labels", "text", "features_sha256")  # of an item
KEPT = ("id", "positives", "input_ids", "attention_mask")  # of a prepared item, until its block is written

Item = Mapping[str, Any]


class MissingTextError(ValueError):
    """Sections of the report were asked for that no report has."""


class EmbeddingStore:
    """Embeds each split on first use and keeps the result in a folder, from where it is read ever after.

    A folder belongs to the weights, the precision and the items; with others, another folder is made beside it. A run
    that was killed goes on where it was. Before a folder is used, its first item is embedded again, and if the
    preprocessing has changed since, the folder is made anew.

    Reports are tokenized once, embedded in order of length, equal ones once.

    Args:
        clip: the network; it is moved to the device and its mode is restored.
        items: split name -> items with paths, as the data room makes them; ids are unique.
        make_dataset: ``make_dataset(data=items)`` -> `CheckedDataset` whose items hold the image, ``input_ids``,
            ``attention_mask`` and ``positives``; called only for splits that have to be read.
        folder: where the embeddings are kept.
        read_report: transform of ``{"text": str}`` that adds ``input_ids`` and ``attention_mask``, for `texts`.
        batch_size: images and reports at a time, at most.
        device: where the network runs.
        amp: bfloat16 inside the network.
        image_key: entry that is fed as the image.
        space: what stands for an image: ``"embedding"`` in the shared space, or ``"pooled"``, the image encoder's own
            features at unit length, which no projection has narrowed.
        num_workers: processes that read.
        progress: show progress bars.

    Raises:
        ValueError: for another space.
    """

    def __init__(
        self,
        clip: Any,
        items: Mapping[str, Sequence[Item]],
        make_dataset: Callable[..., CheckedDataset],
        folder: str | Path,
        *,
        read_report: Callable[[dict[str, Any]], Item] | None = None,
        batch_size: int = 24,
        device: str | torch.device = "cpu",
        amp: bool = False,
        image_key: str = "image",
        space: str = "embedding",
        num_workers: int = 0,
        progress: bool = True,
    ) -> None:
        """Nothing is read or computed yet."""
        if space not in SPACES:
            raise ValueError(f"space={space!r}: choose 'embedding' (the shared space) or 'pooled' (the encoder's own).")
        self.clip = clip.to(device)
        self.items = {name: list(found) for name, found in items.items()}
        self.make_dataset = make_dataset
        self.folder = Path(folder)
        self.read_report = read_report
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.amp = amp
        self.image_key = image_key
        self.space = space
        self.num_workers = num_workers
        self.progress = progress
        self.model = weights_digest(clip, str(amp), space)
        self._infer = AutocastInferer(enabled=amp)
        self._datasets: dict[str, CheckedDataset] = {}
        self._read: dict[str, Embeddings] = {}
        self._texts: dict[tuple[str, ...], Tensor] = {}

    def dataset(self, split: str) -> CheckedDataset:
        """The prepared items of a split, read on first use.

        Raises:
            ValueError: there is no such split, or it is empty.
        """
        if not self.items.get(split):
            raise ValueError(
                f"there are no items on the split {split!r}, only on {[s for s, one in self.items.items() if one]}: "
                "check the split column of the manifest."
            )
        if split not in self._datasets:
            self._datasets[split] = self.make_dataset(data=self.items[split])
        return self._datasets[split]

    def __getitem__(self, split: str) -> Embeddings:
        """Both sides of a split, in the order of its items.

        Raises:
            ValueError: an empty split, or embeddings that are not finite; the items are named.
        """
        if split not in self._read:
            image, text = self._indexes(split)
            self._read[split] = self._joined(split, image, text)
        return self._read[split]

    def index(self, split: str) -> EmbeddingIndex:
        """The index of a split's images, for searching."""
        return self._indexes(split)[0]

    def kept(self, split: str) -> list[Item]:
        """The items whose embeddings `store[split]` holds: all but those that could not be read, in their order."""
        ids = self[split].ids
        by_id = {str(item["id"]): item for item in self.items[split]}
        return [by_id[one] for one in ids]

    def share_images(self, other: EmbeddingStore) -> None:
        """Reads images once for two stores: this one takes the other's, if items and preprocessing are the same."""
        if self.make_dataset is other.make_dataset and self.items == other.items:
            self._datasets = other._datasets

    def require_shared_space(self, question: str) -> None:
        """Refuses a question that compares images with texts where images are kept as the encoder's own features.

        Raises:
            ValueError: for the space ``"pooled"``.
        """
        if self.space != "embedding":
            raise ValueError(
                f"{question} compares images with texts, and space={self.space!r} keeps the image encoder's own "
                "features, which no text shares: ask with space='embedding', or fit a probe."
            )

    def texts(self, split: str, sections: Sequence[str]) -> Tensor:
        """Embeddings of some sections of every report, joined.

        Args:
            split: name of the split.
            sections: such as ``("indication", "findings")``; ``("text",)`` is the whole report.

        Returns:
            (N, E) float32 in the order of ``store[split]``; zeros for reports that lack all of the sections, or in
            which cleaning leaves no word of them.

        Raises:
            MissingTextError: no report has one of the sections.
            ValueError: no transform to read a report with.
        """
        key = (split, *sections)
        if key not in self._texts:
            tokens = self._tokenized([report_text(item, sections) for item in self.kept(split)])
            if not any(tokens):
                raise MissingTextError(
                    f"none of the {len(tokens)} reports on {split!r} has text under {' or '.join(sections)}: choose "
                    "inputs that these reports have."
                )
            self._texts[key] = self._kept_texts("-".join(sections), tokens)
        return self._texts[key]

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings (B, E) of texts that are cleaned and tokenized as reports are; zeros where no word is left.

        Raises:
            ValueError: there is no transform to read them with.
        """
        return self._embedded_texts(self._tokenized(texts))

    def _tokenized(self, texts: Sequence[str]) -> list[Item | None]:
        """Texts as they are read; None for one that is empty, or of which cleaning leaves nothing, such as "XXXX"."""
        if self.read_report is None:
            raise ValueError("give read_report: the transform that cleans and tokenizes a report.")
        found: list[Item | None] = []
        for number, text in enumerate(texts):
            try:
                found.append(self.read_report({"id": str(number), "text": text}) if text.strip() else None)
            except Exception as error:
                if bad_input_cause(error) is None:
                    raise
                found.append(None)
        return found

    def _kept_texts(self, name: str, tokens: Sequence[Item | None]) -> Tensor:
        """Embeddings (N, E) of tokenized texts, from the file that belongs to the network and to these very tokens."""
        ids = [[] if one is None else one["input_ids"].tolist() for one in tokens]
        digest = hashlib.sha256(json.dumps([self.model, ids]).encode()).hexdigest()[:12]
        path = self.folder / f"text-{name}-{digest}.npy"
        if path.is_file():
            return torch.from_numpy(np.load(path))
        found = self._embedded_texts(tokens)
        with atomic_write(path) as file, file.open("wb") as stream:
            np.save(stream, found.numpy())
        return found

    def _embedded_texts(self, tokens: Sequence[Item | None]) -> Tensor:
        present = {number: one for number, one in enumerate(tokens) if one is not None}
        found = torch.zeros(len(tokens), self.clip.embed_dim)
        if present:
            with eval_mode(self.clip):
                found[list(present)] = self._encode_texts(list(present.values()))
        return found

    def _indexes(self, split: str) -> tuple[EmbeddingIndex, EmbeddingIndex]:
        if not self.items.get(split):
            self.dataset(split)  # says what is wrong
        facts = [[str(item.get(key, "")) for key in (*FACTS, self.image_key)] for item in self.items[split]]
        digest = hashlib.sha256(
            json.dumps([self.model, facts, file_states(self.items[split], self.image_key)]).encode()
        )
        folder = self.folder / f"{split}-{digest.hexdigest()[:12]}"
        image, text = self._opened(folder)
        begun = min(len(image), len(text))
        if begun and not self._still_holds(image, text, split):
            logger.warning("%s was made with another preprocessing: it is made anew.", folder)
            begun = 0
        if not begun:
            shutil.rmtree(folder)  # also what was killed within its first block
            image, text = self._opened(folder)
        done = folder / "complete.json"
        if not done.is_file():
            self._extract(split, image, text)
            write_json(done, {"items": len(image), "model": self.model})
        return image, text

    def _opened(self, folder: Path) -> tuple[EmbeddingIndex, EmbeddingIndex]:
        shared = int(self.clip.embed_dim)
        width = shared if self.space == "embedding" else int(self.clip.image_encoder.width)
        return opened_index(folder / "image", width, self.model), opened_index(folder / "text", shared, self.model)

    def _extract(self, split: str, image: EmbeddingIndex, text: EmbeddingIndex) -> None:
        dataset = self.dataset(split)
        raw = {str(item["id"]): item for item in self.items[split]}
        start = min(len(image), len(text))
        with eval_mode(self.clip):  # no gradients either
            for pictures, items in self._blocks(dataset, start, split):
                rows = [index_record(item, raw) for item in items]
                words = self._encode_texts(items)
                check_finite(pictures, words, [row["id"] for row in rows])
                # A killed run may have written a block's images and not its reports.
                for index, found in ((image, pictures), (text, words)):
                    known = len(index) - start
                    index.add(found[known:], rows[known:], model=self.model)
                start += len(rows)

    def _blocks(self, dataset: CheckedDataset, start: int, split: str) -> Iterator[tuple[Tensor, list[Item]]]:
        loader = DataLoader(
            Subset(dataset, range(start, len(dataset))),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=list,
        )
        pictures: list[Tensor] = []
        items: list[Item] = []
        with tqdm(total=len(dataset), initial=start, desc=f"embedding {split}", disable=not self.progress) as bar:
            for batch in loader:
                batch = [dict(item) for item in batch]
                images = torch.stack([torch.as_tensor(item.pop(self.image_key)).as_subclass(Tensor) for item in batch])
                pictures.append(self._encode_images(images))
                items += [{key: item[key] for key in KEPT} for item in batch]
                bar.update(len(batch))
                if len(items) >= BLOCK:
                    yield torch.cat(pictures), items
                    pictures, items = [], []
        if items:
            yield torch.cat(pictures), items

    def _encode_images(self, images: Tensor) -> Tensor:
        encode = self.clip.encode_image if self.space == "embedding" else self._pooled
        at_once = IMAGES_ON_CPU if self.device.type == "cpu" else len(images)
        parts = images.tensor_split(-(-len(images) // at_once))  # of equal size, give or take one
        return torch.cat([self._infer(part.to(self.device), encode).float().cpu() for part in parts])

    def _pooled(self, images: Tensor) -> Tensor:
        return F.normalize(self.clip.image_encoder(images).float(), dim=-1)

    def _encode_texts(self, items: Sequence[Item]) -> Tensor:
        """(B, E) of tokenized reports: equal ones are embedded once, and those of one batch are of similar length."""
        keys = [tuple(item["input_ids"].tolist()) for item in items]
        unique = dict(zip(keys, items, strict=True))
        ordered = sorted(unique, key=lambda key: (len(key), key))
        found: dict[tuple[int, ...], Tensor] = {}
        for first in range(0, len(ordered), self.batch_size):
            some = ordered[first : first + self.batch_size]
            tokens = collate_reports([{k: unique[key][k] for k in ("input_ids", "attention_mask")} for key in some])
            ids, mask = (tokens[name].to(self.device) for name in ("input_ids", "attention_mask"))
            found |= zip(some, self._infer(ids, self.clip.encode_text, mask).float().cpu(), strict=True)
        return torch.stack([found[key] for key in keys])

    def _still_holds(self, image: EmbeddingIndex, text: EmbeddingIndex, split: str) -> bool:
        """Whether the first item, read and embedded again, comes out as it is kept."""
        first = str(image.records([0])[0]["id"])
        item = next(one for one in self.items[split] if str(one["id"]) == first)
        dataset = self._datasets.get(split)
        prepared = next(
            iter((self.make_dataset(data=[item], progress=False) if dataset is None else dataset).prepared())
        )
        with eval_mode(self.clip):
            picture = torch.as_tensor(prepared[self.image_key]).as_subclass(Tensor)
            again = (self._encode_images(picture[None])[0], self._encode_texts([prepared])[0])
        return all(
            bool(F.normalize(one, dim=0) @ index.vectors([0])[0] > 1 - SAME)
            for one, index in zip(again, (image, text), strict=True)
        )

    def _joined(self, split: str, image: EmbeddingIndex, text: EmbeddingIndex) -> Embeddings:
        records = image.records(range(len(image)))
        by_id = {str(item["id"]): item for item in self.items[split]}
        ids = tuple(record["id"] for record in records)
        return Embeddings(
            torch.from_numpy(image.embeddings().copy()),
            torch.from_numpy(text.embeddings().copy()),
            torch.tensor([record["positives"] for record in records]),
            torch.tensor([list(by_id[one].get("label", ())) for one in ids], dtype=torch.float32),
            ids,
            tuple(record["patient_id"] for record in records),
        )
