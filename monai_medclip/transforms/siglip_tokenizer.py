"""SigLIP's tokenizers from transformers, as its network was trained: cleaned text, the whole context filled."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from monai_medclip.transforms.tokenizer import EncodedReport, FastBackend

__all__ = ["SiglipBackend", "siglip_config"]

_PUNCTUATION = Regex("[" + "".join(f"\\{mark}" for mark in string.punctuation) + "]")
_LOWER: list[normalizers.Normalizer] = [normalizers.Lowercase()]
_CANONICAL: list[normalizers.Normalizer] = [
    normalizers.Lowercase(),
    normalizers.Replace(_PUNCTUATION, ""),
    normalizers.Replace(Regex(r"\s+"), " "),
    normalizers.Strip(),
]
# Published tokenizer files leave the cleaning to these classes. SigLIP's is slow (no character spans), Gemma's forgets
# to lower the case, so the files are read as they are and the cleaning goes before them.
CLEANING = {
    "SiglipTokenizer": _CANONICAL,
    "GemmaTokenizer": _LOWER,
    "GemmaTokenizerFast": _LOWER,
    "Siglip2Tokenizer": _LOWER,
}


def siglip_config(source: str | Path) -> dict[str, Any] | None:
    """The ``config.json`` of a SigLIP by hub name or folder; None where there is none, or another model's."""
    try:
        config: dict[str, Any] = PretrainedConfig.get_config_dict(str(source))[0]
    except OSError:  # a tokenizer alone
        return None
    return config if config.get("model_type") == "siglip" else None


class SiglipBackend(FastBackend):
    """SigLIP attends to its padding and reads the last position: a text is always the whole context long.

    Args:
        source: hub name or folder with ``tokenizer.json``.
        config: the model's; see siglip_config.

    Raises:
        ValueError: there is no ``tokenizer.json``.

    References:
        Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023 (code: big_vision, canonicalize_text).
    """

    def __init__(self, source: str | Path, config: dict[str, Any]) -> None:
        """Read the tokenizer's file and put the model's cleaning before it."""
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(source))
        except (ValueError, ImportError, OSError) as error:
            raise ValueError(
                f"{source} has no tokenizer.json that can be read: SigLIP's slow tokenizer (spiece.model) has no "
                "character offsets. Put the tokenizer.json of its hub page beside it."
            ) from error
        backend: Any = tokenizer.backend_tokenizer
        cleaning = CLEANING.get(get_tokenizer_config(str(source)).get("tokenizer_class", ""))
        if cleaning is not None:
            own = [] if backend.normalizer is None else [backend.normalizer]
            backend.normalizer = normalizers.Sequence([*cleaning, *own])
        super().__init__(tokenizer)
        self.max_length = int(config.get("text_config", {}).get("max_position_embeddings", 64))  # SigLIP's default

    def encode(self, text: str, max_length: int | None) -> EncodedReport:
        """Ids and spans, filled up to the context with padding that the network reads; None keeps the bare text."""
        ids, spans = super().encode(text, max_length)
        missing = 0 if max_length is None else self.max_length - len(ids)
        sides = (missing, 0) if self.tokenizer.padding_side == "left" else (0, missing)
        return EncodedReport(F.pad(ids, sides, value=self.pad_id), F.pad(spans, (0, 0, *sides), value=-1))

    def save(self, folder: Path) -> None:
        """The tokenizer with its cleaning, and what says that it belongs to a SigLIP."""
        super().save(folder)
        config = {"model_type": "siglip", "text_config": {"max_position_embeddings": self.max_length}}
        (folder / "config.json").write_text(json.dumps(config, indent=2))
