"""open_clip's tokenizers with character spans, which open_clip itself does not give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import open_clip
import torch

from monai_medclip.transforms.tokenizer import EncodedReport, FastBackend, TokenizerBackend

__all__ = ["is_open_clip", "load_open_clip_backend"]

CONFIG_FILE = "open_clip_config.json"


def is_open_clip(source: str) -> bool:
    """Whether a name or folder means an open_clip model: built-in, `hf-hub:`, `local-dir:` or a folder with one."""
    known = source.startswith(("hf-hub:", "local-dir:")) or (Path(source).expanduser() / CONFIG_FILE).is_file()
    return known or source in open_clip.list_models()


def load_open_clip_backend(source: str) -> TokenizerBackend:
    """The tokenizer that belongs to an open_clip model.

    Args:
        source: built-in model name, `hf-hub:owner/name`, `local-dir:folder` or a folder with `open_clip_config.json`.

    Raises:
        ValueError: the model's tokenizer puts a class token after the padding (CLIPS), which has no place here.
    """
    folder = Path(source).expanduser()
    name = f"local-dir:{folder}" if (folder / CONFIG_FILE).is_file() else source
    text_config = open_clip.factory.get_model_config(name)["text_cfg"]
    tokenizer = open_clip.get_tokenizer(name)
    if getattr(tokenizer, "tokenizer_mode", ""):
        raise ValueError(
            f"{source}: tokenizer mode {tokenizer.tokenizer_mode!r} is not supported; choose another model."
        )
    if isinstance(tokenizer, open_clip.tokenizer.SimpleTokenizer):
        return SimpleBackend(tokenizer, text_config)
    # SigLIP attends to its padding and reads the last position: there a text is always the whole context long.
    sees_padding = bool(text_config.get("no_causal_mask")) and text_config.get("pool_type") == "last"
    return HuggingFaceBackend(tokenizer, fixed_length=sees_padding, text_config=text_config)


class SimpleBackend:
    """open_clip's byte-pair tokenizer (OpenAI, LAION, ...)."""

    pad_id = 0

    def __init__(self, tokenizer: Any, text_config: dict[str, Any]) -> None:
        """Wrap an `open_clip.tokenizer.SimpleTokenizer`."""
        self.tokenizer = tokenizer
        self.text_config = text_config
        self.vocab_size = int(tokenizer.vocab_size)
        self.max_length = int(tokenizer.context_length)

    def encode(self, text: str, max_length: int | None) -> EncodedReport:
        """Ids with start and end token; the end token survives truncation."""
        cleaned = self.tokenizer.clean_fn(text)
        origin = align(text, cleaned)
        ids, spans = [self.tokenizer.sot_token_id], [(-1, -1)]
        for match in self.tokenizer.pat.finditer(cleaned):
            for piece, start, end in self._pieces(match.group()):
                ids.append(self.tokenizer.encoder[piece])
                spans.append((origin[match.start() + start], origin[match.start() + end - 1] + 1))
        kept = len(ids) if max_length is None else min(len(ids), max_length - 1)
        ids, spans = [*ids[:kept], self.tokenizer.eot_token_id], [*spans[:kept], (-1, -1)]
        return EncodedReport(torch.tensor(ids), torch.tensor(spans))

    def _pieces(self, word: str) -> list[tuple[str, int, int]]:
        """Byte-pair pieces of a word, with the characters [start, end) of the word that they touch."""
        character = [index for index, letter in enumerate(word) for _ in letter.encode()]  # character of every byte
        symbols = "".join(self.tokenizer.byte_encoder[byte] for byte in word.encode())
        pieces, position = [], 0
        for piece in self.tokenizer.bpe(symbols).split(" "):
            length = len(piece.removesuffix("</w>"))
            pieces.append((piece, character[position], character[position + length - 1] + 1))
            position += length
        return pieces

    def tokens(self, input_ids: Sequence[int]) -> list[str]:
        """Vocabulary entries."""
        return [self.tokenizer.decoder[index] for index in input_ids]

    def save(self, folder: Path) -> None:
        """An open_clip config that names this tokenizer: its vocabulary comes with open_clip."""
        text_config = {**self.text_config, "context_length": self.max_length}
        (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": {"text_cfg": text_config}}, indent=2))


class HuggingFaceBackend(FastBackend):
    """A transformers tokenizer behind open_clip's cleaning (BiomedCLIP, SigLIP, ...)."""

    def __init__(self, tokenizer: Any, *, fixed_length: bool, text_config: dict[str, Any]) -> None:
        """Wrap an `open_clip.tokenizer.HFTokenizer` (or `SigLipTokenizer`)."""
        super().__init__(tokenizer.tokenizer)
        self.clean = getattr(tokenizer, "clean_fn", _siglip_clean)
        self.strips_separator = bool(getattr(tokenizer, "strip_sep_token", False))
        self.max_length = int(tokenizer.context_length)
        self.fixed_length = fixed_length
        self.text_config = text_config

    def encode(self, text: str, max_length: int | None) -> EncodedReport:
        """Ids and spans; as long as the context where the model reads its padding."""
        cleaned = self.clean(text)
        ids, spans = super().encode(cleaned, max_length)
        if self.strips_separator:
            ids = torch.where(ids == self.tokenizer.sep_token_id, torch.zeros_like(ids), ids)
        origin = align(text, cleaned)
        mapped = [(origin[start], origin[end - 1] + 1) if end > start else (-1, -1) for start, end in spans.tolist()]
        missing = self.max_length - len(ids) if self.fixed_length and max_length is not None else 0
        ids = torch.cat([ids, ids.new_full((max(missing, 0),), self.pad_id)])
        return EncodedReport(ids, torch.tensor(mapped + [(-1, -1)] * missing).view(-1, 2))

    def save(self, folder: Path) -> None:
        """The transformers files and the open_clip config beside them."""
        super().save(folder)
        text_config = {**self.text_config, "context_length": self.max_length, "hf_tokenizer_name": str(folder)}
        (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": {"text_cfg": text_config}}, indent=2))


def align(text: str, cleaned: str) -> list[int]:
    """For every character of a cleaned text, the index of the character of the original that it came from.

    Cleaning may lower case, drop or merge characters and replace some (mojibake, HTML entities); a replaced character
    points at the place where its neighbors say it was.
    """
    lowered = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
    target = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in cleaned)
    origin = _align_by_skipping(lowered, target)
    if origin is not None:
        return origin
    origin = [-1] * len(target)
    for _, start, end, new_start, new_end in SequenceMatcher(None, lowered, target, autojunk=False).get_opcodes():
        for index in range(new_start, new_end):
            origin[index] = min(start + index - new_start, max(end - 1, start), len(text) - 1)
    return origin


def _align_by_skipping(text: str, cleaned: str) -> list[int] | None:
    """The same where cleaning only dropped characters and collapsed white space; None where it did more."""
    origin, position = [], 0
    for letter in cleaned:
        while position < len(text) and not (text[position] == letter or (letter == " " and text[position].isspace())):
            if not (text[position].isspace() or not text[position].isalnum()):
                return None
            position += 1
        if position == len(text):
            return None
        origin.append(position)
        position += 1
    return origin


def _siglip_clean(text: str) -> str:
    return str(open_clip.tokenizer.get_clean_fn("canonicalize")(text))
