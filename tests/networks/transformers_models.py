"""Tiny CLIPs and SigLIPs of transformers with their tokenizers, saved as on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
)

SENTENCES = [
    "There is a nodule in the left lung.",
    "No pleural effusion; the heart isn't enlarged (normal size).",
    "Mass, consolidation or pneumothorax: none. The lungs are clear.",
]
VISION = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CONTEXT = {"clip": 24, "siglip": 20}
STATISTICS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


def save_clip(folder: Path, *, texts: list[str] = SENTENCES, eos_token_id: int | None = None) -> CLIPModel:
    """A CLIP with OpenAI's kind of byte-pair tokenizer; ``eos_token_id=2`` is what early configs say."""
    tokenizer = _byte_pairs(texts)
    tokenizer.save_pretrained(folder)
    end = tokenizer.eos_token_id if eos_token_id is None else eos_token_id
    text = {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT["clip"], "eos_token_id": end}
    vision = {**VISION, "intermediate_size": 32}
    return _saved(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)), folder)


def save_siglip(
    folder: Path,
    *,
    texts: list[str] = SENTENCES,
    tokenizer_class: str = "SiglipTokenizer",
    context: int = CONTEXT["siglip"],
) -> SiglipModel:
    """A SigLIP with a sentence-piece tokenizer whose config names a class that would clean the text."""
    size = _sentence_pieces(texts, folder, tokenizer_class, context)
    text = {**TEXT, "vocab_size": size, "max_position_embeddings": context, "projection_size": 24}
    vision = {**VISION, "intermediate_size": 32}
    return _saved(SiglipModel(SiglipConfig(text_config=text, vision_config=vision)), folder)


def _saved(model: Any, folder: Path) -> Any:
    """With weights large enough that positions and padding matter, and a scale and bias of its own."""
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.logit_scale.fill_(3.0)
        if hasattr(model, "logit_bias"):
            model.logit_bias.fill_(-7.0)
    model.save_pretrained(folder)
    CLIPImageProcessor(**STATISTICS).save_pretrained(folder)
    assert isinstance(model, PreTrainedModel)
    return model.eval()


def _byte_pairs(texts: list[str]) -> CLIPTokenizer:
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    blank = CLIPTokenizer()
    learner.normalizer = blank.backend_tokenizer.normalizer
    learner.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(texts * 3, trainer)
    learned = json.loads(learner.to_str())["model"]
    vocabulary = dict(learned["vocab"])
    # The end token is the one with the highest number.
    for token in (*(f"{letter}</w>" for letter in sorted(alphabet)), "<|startoftext|>", "<|endoftext|>"):
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(pair) for pair in learned["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT["clip"])


def _sentence_pieces(texts: list[str], folder: Path, tokenizer_class: str, context: int) -> int:
    """Unigram pieces that keep letters as they are, as the published files do; returns their number."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=["<unk>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz"),
    )
    tokenizer.train_from_iterator([text.lower() for text in texts], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": tokenizer_class,
        "model_max_length": context,
        "model_input_names": ["input_ids"],
    }
    names = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **names}))
    return tokenizer.get_vocab_size()
