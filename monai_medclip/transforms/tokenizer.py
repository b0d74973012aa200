"""Reports to token ids with character spans: one face for transformers, open_clip and trained tokenizers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from monai_medclip.outputs import TokenBatch
from monai_medclip.transforms.wordpiece import train_wordpiece

__all__ = ["EncodedReport", "ReportTokenizer", "pad_tokens"]

_UNLIMITED = 1_000_000  # transformers writes "no limit known" as 1e30


class EncodedReport(NamedTuple):
    """One report as tokens."""

    input_ids: Tensor  # (N,) int64
    token_spans: Tensor  # (N, 2) int64, [start, end) characters of the text; (-1, -1) for special tokens


class TokenizerBackend(Protocol):
    """What a library's tokenizer must offer to `ReportTokenizer`."""

    vocab_size: int
    pad_id: int
    max_length: int

    def encode(self, text: str, max_length: int | None) -> EncodedReport:
        """Token ids and spans of one text, truncated to max_length tokens; None keeps all of them."""

    def tokens(self, input_ids: Sequence[int]) -> list[str]:
        """The vocabulary entries behind the ids."""

    def save(self, folder: Path) -> None:
        """Write what `ReportTokenizer.load` needs."""


class ReportTokenizer:
    """Turns reports into token ids, and every token into the characters it came from.

    Build one with `load` (a transformers or open_clip tokenizer, by folder or name), `train` (WordPiece learned from
    the training reports) or `load_or_train`.

    Attributes:
        vocab_size: entries of the vocabulary; a text encoder's `vocab_size` must not be smaller.
        pad_id: id that fills the end of shorter texts of a batch.
        max_length: tokens at most, special tokens included; longer texts are cut at the end.
    """

    def __init__(self, backend: TokenizerBackend, *, max_length: int | None = None) -> None:
        """Wrap a library's tokenizer; max_length defaults to its own."""
        self.backend = backend
        self.vocab_size = backend.vocab_size
        self.pad_id = backend.pad_id
        self.max_length = min(max_length or backend.max_length, backend.max_length)

    @classmethod
    def load(cls, source: str | Path, *, max_length: int | None = None) -> ReportTokenizer:
        """Load a tokenizer by folder, file or name; a local folder and a hub name go the same way.

        Args:
            source: a transformers tokenizer (folder or hub name), a `tokenizer.json` or `vocab.txt` file, or an
                open_clip model (its name, `hf-hub:owner/name`, or a folder that holds `open_clip_config.json`).
            max_length: tokens at most; None takes the tokenizer's own limit.

        Raises:
            FileNotFoundError: source looks like a path and is not there.
            ValueError: the tokenizer has no character offsets.
        """
        from monai_medclip.transforms.open_clip_tokenizer import is_open_clip, load_open_clip_backend
        from monai_medclip.transforms.siglip_tokenizer import SiglipBackend, siglip_config

        path = Path(source).expanduser()
        if is_open_clip(str(source)):
            return cls(load_open_clip_backend(str(source)), max_length=max_length)
        if not path.exists() and (path.is_absolute() or str(source).startswith((".", "~")) or path.suffix):
            raise FileNotFoundError(
                f"{path}: no such tokenizer. Train one with ReportTokenizer.train(texts, path=...)."
            )
        siglip = None if path.is_file() else siglip_config(path if path.exists() else source)
        if siglip is not None:
            return cls(SiglipBackend(path if path.exists() else source, siglip), max_length=max_length)
        return cls(FastBackend(_load_fast(path if path.exists() else str(source))), max_length=max_length)

    @classmethod
    def train(
        cls, texts: Iterable[str], *, path: str | Path | None = None, vocab_size: int = 4096, max_length: int = 512
    ) -> ReportTokenizer:
        """Learn a WordPiece vocabulary from the training reports: equal texts give an equal vocabulary, always.

        Args:
            texts: reports of the training split only; a vocabulary learned from test reports leaks.
            path: folder to save into (a transformers tokenizer folder); None keeps it in memory.
            vocab_size: entries at most.
            max_length: tokens at most.
        """
        tokenizer = cls(FastBackend(_wrap(train_wordpiece(texts, vocab_size=vocab_size), max_length)))
        if path is not None:
            tokenizer.save(path)
        return tokenizer

    @classmethod
    def load_or_train(
        cls, path: str | Path, texts: Iterable[str], *, vocab_size: int = 4096, max_length: int = 512
    ) -> ReportTokenizer:
        """Load the tokenizer at `path` where there is one, else learn it from the texts and save it there."""
        if (Path(path) / "tokenizer.json").is_file():
            return cls.load(path, max_length=max_length)
        return cls.train(texts, path=path, vocab_size=vocab_size, max_length=max_length)

    def encode(self, text: str, *, max_length: int | None = None) -> EncodedReport:
        """Tokenize one report.

        Args:
            text: a report, not empty.
            max_length: tokens at most; None takes the tokenizer's.

        Returns:
            Ids (N,) and spans (N, 2) into `text`, special tokens included, no padding.

        Raises:
            ValueError: the text is empty or holds only white space.
        """
        if not text.strip():
            raise ValueError("An empty report cannot be tokenized. Drop the case, or choose sections that it has.")
        return self.backend.encode(text, min(max_length or self.max_length, self.max_length))

    def __call__(self, texts: Sequence[str], *, max_length: int | None = None) -> TokenBatch:
        """Tokenize several texts and pad them to the longest.

        Returns:
            input_ids (B, N) and attention_mask (B, N).
        """
        return pad_tokens([self.encode(text, max_length=max_length).input_ids for text in texts], self.pad_id)

    def count(self, text: str) -> int:
        """Tokens of a text before any truncation, special tokens included."""
        return len(self.backend.encode(text, None).input_ids)

    def tokens(self, input_ids: Tensor | Sequence[int]) -> list[str]:
        """The vocabulary entries behind ids (N,)."""
        return self.backend.tokens([int(index) for index in input_ids])

    def save(self, path: str | Path) -> None:
        """Write a folder that `load` reads back."""
        Path(path).mkdir(parents=True, exist_ok=True)
        self.backend.save(Path(path))


class FastBackend:
    """A transformers tokenizer that knows character offsets."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Wrap it; refuse one without offsets or padding."""
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"{tokenizer.name_or_path}: a slow tokenizer has no character offsets. Save its fast version with "
                "AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(folder)."
            )
        self.tokenizer = tokenizer
        self.vocab_size = len(tokenizer)
        self.pad_id = int(tokenizer.pad_token_id or 0)
        limit = int(tokenizer.model_max_length)
        self.max_length = limit if limit < _UNLIMITED else 512

    def encode(self, text: str, max_length: int | None) -> EncodedReport:
        """Ids and spans, special tokens marked by (-1, -1)."""
        encoded = self.tokenizer(
            text,
            truncation=max_length is not None,
            max_length=max_length,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        spans = torch.tensor(encoded["offset_mapping"], dtype=torch.int64).view(-1, 2)
        spans[torch.tensor(encoded["special_tokens_mask"], dtype=torch.bool)] = -1
        return EncodedReport(torch.tensor(encoded["input_ids"], dtype=torch.int64), spans)

    def tokens(self, input_ids: Sequence[int]) -> list[str]:
        """Vocabulary entries."""
        return list(self.tokenizer.convert_ids_to_tokens(list(input_ids)))

    def save(self, folder: Path) -> None:
        """A transformers tokenizer folder."""
        self.tokenizer.backend_tokenizer.no_truncation()  # the last call's truncation is no part of the tokenizer
        self.tokenizer.save_pretrained(str(folder))


def pad_tokens(sequences: Sequence[Tensor], pad_id: int = 0) -> TokenBatch:
    """Stack id sequences (N_i,) into input_ids and attention_mask (B, max N_i)."""
    input_ids = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=pad_id)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    attention_mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()  # (B, N)
    return TokenBatch(input_ids, attention_mask)


def _load_fast(source: str | Path) -> PreTrainedTokenizerFast:
    if isinstance(source, Path) and source.suffix == ".json":
        return _wrap(Tokenizer.from_file(str(source)), 512)
    if isinstance(source, Path) and source.is_file():
        from transformers import BertTokenizerFast

        return BertTokenizerFast(vocab=str(source), model_max_length=512)
    return AutoTokenizer.from_pretrained(str(source), use_fast=True, trust_remote_code=False)


def _wrap(tokenizer: Tokenizer, max_length: int) -> PreTrainedTokenizerFast:
    known = tokenizer.get_vocab()
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    special = {role: token for role, token in names.items() if token in known}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **special)
