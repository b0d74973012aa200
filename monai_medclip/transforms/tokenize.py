"""Report text becomes token ids in an item, and items become a padded batch."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import list_data_collate
from monai.transforms import MapTransform
from torch import Tensor

from monai_medclip.transforms.rejects import BadInputError
from monai_medclip.transforms.tokenizer import ReportTokenizer, pad_tokens

__all__ = ["TokenLengths", "TokenizeReportd", "collate_reports", "token_length_report"]

logger = logging.getLogger(__name__)


class TokenizeReportd(MapTransform):
    """Add `input_ids`, `attention_mask` and `token_spans` to an item that holds a report.

    Spans point into the ORIGINAL report: where cleaning left `text_offsets` (one original character index per cleaned
    character) in the item, they are followed back through it.

    Args:
        keys: key of the report text.
        tokenizer: how to tokenize.
        max_length: tokens at most; None takes the tokenizer's.
        offsets_key: key of the offsets that cleaning left.
        allow_missing_keys: pass items without the text.
    """

    def __init__(
        self,
        keys: KeysCollection,
        tokenizer: ReportTokenizer,
        max_length: int | None = None,
        *,
        offsets_key: str = "text_offsets",
        allow_missing_keys: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"TokenizeReportd takes one text key, got {self.keys}: an item has one report.")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.offsets_key = offsets_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Item in, item with tokens out.

        Raises:
            BadInputError: the report is empty; the item is named.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            if not str(item[key]).strip():
                remedy = "Drop the case, or choose sections that it has."
                raise BadInputError(_name(item), "An empty report cannot be tokenized", remedy)
            encoded = self.tokenizer.encode(item[key], max_length=self.max_length)
            item["input_ids"] = encoded.input_ids
            item["attention_mask"] = torch.ones_like(encoded.input_ids)
            item["token_spans"] = _to_original(encoded.token_spans, item.get(self.offsets_key))
        return item


def collate_reports(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Batch items: tokens padded to the longest, lists and dicts kept per item, everything else as MONAI collates it.

    Args:
        batch: items with `input_ids` (N_i,), `attention_mask` (N_i,) and, optionally, `token_spans` (N_i, 2), or
            without any of them.

    Returns:
        input_ids and attention_mask (B, N), token_spans (B, N, 2) filled with -1; strings, lists, dicts and
        `text_offsets` as lists of length B; tensors and numbers stacked.
    """
    items = [
        dict(item) for item in (part for entry in batch for part in (entry if isinstance(entry, list) else [entry]))
    ]
    collated: dict[str, Any] = {}
    if all("input_ids" in item for item in items):
        collated.update(pad_tokens([item.pop("input_ids") for item in items])._asdict())
        masks = [item.pop("attention_mask", None) for item in items]
        if all(mask is not None for mask in masks):
            collated["attention_mask"] = pad_tokens([mask for mask in masks if mask is not None]).input_ids
    if all("token_spans" in item for item in items):
        spans = [item.pop("token_spans") for item in items]
        collated["token_spans"] = torch.nn.utils.rnn.pad_sequence(spans, batch_first=True, padding_value=-1)
    ragged = {key for item in items for key, value in item.items() if _is_ragged(key, value)}
    for key in ragged:
        collated[key] = [item.pop(key, None) for item in items]
    if any(items):
        collated.update(list_data_collate(items))
    return collated


class TokenLengths(NamedTuple):
    """How long reports are in tokens, special tokens included, before truncation."""

    texts: int  # reports counted
    mean: float
    median: float
    p95: float  # 95th percentile
    longest: int
    max_length: int  # where reports are cut
    truncated: int  # reports longer than max_length
    truncated_fraction: float  # of the texts, in [0, 1]


def token_length_report(
    texts: Sequence[str], tokenizer: ReportTokenizer, max_length: int | None = None
) -> TokenLengths:
    """Measure token lengths and warn where reports are cut: what is cut cannot be learned or explained.

    Args:
        texts: reports, none empty.
        tokenizer: how they will be tokenized.
        max_length: tokens at most; None takes the tokenizer's.

    Raises:
        ValueError: there are no texts.
    """
    if not texts:
        raise ValueError("No reports to measure: the list is empty.")
    limit = min(max_length or tokenizer.max_length, tokenizer.max_length)
    lengths = np.array([tokenizer.count(text) for text in texts])
    truncated = int((lengths > limit).sum())
    if truncated:
        logger.warning(
            "%d of %d reports (%.1f %%) are longer than %d tokens and lose their end; use a longer context "
            "or fewer sections.",
            truncated,
            len(texts),
            100 * truncated / len(texts),
            limit,
        )
    return TokenLengths(
        texts=len(texts),
        mean=float(lengths.mean()),
        median=float(np.median(lengths)),
        p95=float(np.percentile(lengths, 95)),
        longest=int(lengths.max()),
        max_length=limit,
        truncated=truncated,
        truncated_fraction=truncated / len(texts),
    )


def _to_original(spans: Tensor, offsets: Any) -> Tensor:
    if offsets is None:
        return spans
    to_original = torch.as_tensor(np.asarray(offsets), dtype=torch.int64)
    starts, ends = spans.unbind(1)
    real = ends > starts
    mapped = torch.full_like(spans, -1)
    mapped[real, 0] = to_original[starts[real]]
    mapped[real, 1] = to_original[ends[real] - 1] + 1  # the last character's own index, so that the end stays exclusive
    return mapped


def _is_ragged(key: str, value: Any) -> bool:
    return key == "text_offsets" or value is None or isinstance(value, str | list | dict)


def _name(item: Mapping[Hashable, Any]) -> str:
    for key in ("id", "study_id", "image"):
        if isinstance(item.get(key), str):
            return str(item[key])
    return "report without id"
