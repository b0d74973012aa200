"""BLIP: image and text in one space, as in a CLIP, and a head that reads both together and says whether they match."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BlipConfig, BlipForImageTextRetrieval, DynamicCache, EncoderDecoderCache

from monai_medclip.findings import Finding
from monai_medclip.networks.attention import split_heads
from monai_medclip.networks.blip_encoder import BLIPImageEncoder, StemEmbedding
from monai_medclip.networks.checkpoints import check_missing
from monai_medclip.networks.matching_classifier import MatchingClassifier
from monai_medclip.networks.small_vit import ConvStem, Standardized
from monai_medclip.networks.transformers_encoder import image_statistics
from monai_medclip.networks.zero_shot import Tokenizer
from monai_medclip.outputs import CLIPOutput, TokenBatch

__all__ = ["BLIPMatcher", "ImageMemory", "MatchingBatch", "Reranked"]

MAX_LOG_SCALE = math.log(100.0)  # CLIP's limit
EASY = 1e-4  # weight that keeps every other pair of a batch a possible negative, as in BLIP's code


class ImageMemory(NamedTuple):
    """What texts attend to of M images: the keys and values of every cross-attention, made once per image."""

    keys: tuple[Tensor, ...]  # (M, H, N, dh) per layer of the text side
    values: tuple[Tensor, ...]  # (M, H, N, dh) per layer


class MatchingBatch(NamedTuple):
    """What both losses of a training step need: the batch's embeddings, and pairs that match or do not."""

    output: CLIPOutput  # of the B pairs, for a contrastive loss
    logits: Tensor  # (P,) float32, of B matching pairs and up to 2 B mismatches, B <= P <= 3 B
    match: Tensor  # (P,) float32, 1 for a match and 0 for a mismatch


class Reranked(NamedTuple):
    """Candidates in the order of the matching head."""

    order: Tensor  # (Q, k) int64 numbers of gallery images, best first
    logits: Tensor  # (Q, k) float32 matching logits, falling


class BLIPMatcher(nn.Module):
    """An image side, a text side, and texts that look at images: transformers' BlipForImageTextRetrieval.

    The text side runs in two ways with the same self-attention. Alone it gives an embedding, compared with the image's
    as in a CLIP (image-text contrast, ITC). With cross-attention to the image's tokens after every self-attention it
    ends in a matching head of two classes, 0 for no match and 1 for a match (image-text matching, ITM). Captioning,
    BLIP's third part, is a decoder of its own and is not here.

    Cost: an embedding is computed once per image and once per text. Matching runs the text side once per PAIR, so
    P prompts over N images take P N passes; only the keys and values of an image (`ImageMemory`) are made once.

    It has what a CLIP has (``encode_image``, ``encode_text``, ``embed_features``, ``logit_scale``): where one is asked
    for (`embed`, `evaluate_zero_shot`, `ZeroShotClassifier`), its contrastive half answers.

    Args:
        model: transformers' model; its parts are shared, not copied.
        image_size: (rows, columns) or one number; None for the model's own.
        mean, std: statistics per channel of images scaled to [0, 1].
        temperature: initial tau of the contrast, learned; transformers keeps none in its checkpoints.

    References:
        Li et al., BLIP: Bootstrapping Language-Image Pre-training, ICML 2022, section 3.2;
        Li et al., Align before Fuse (ALBEF), NeurIPS 2021, section 3.2 (hard negatives).
    """

    logit_bias: Tensor

    def __init__(
        self,
        model: Any,
        *,
        image_size: int | Sequence[int] | None = None,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
        temperature: float = 0.07,
    ) -> None:
        """See the class."""
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} must be positive: BLIP starts at 0.07")
        self.image_encoder = BLIPImageEncoder(model.vision_model, image_size=image_size, mean=mean, std=std)
        self.text_encoder: Any = model.text_encoder
        self.image_projection: Any = model.vision_proj
        self.text_projection: Any = model.text_proj
        self.matching_head: Any = model.itm_head
        self.embed_dim = int(model.config.image_text_hidden_size)
        self.max_length = int(model.config.text_config.max_position_embeddings)
        self.vocab_size = int(model.config.text_config.vocab_size)
        self.log_scale = nn.Parameter(torch.tensor(min(-math.log(temperature), MAX_LOG_SCALE)))
        self.register_buffer("logit_bias", torch.tensor(0.0), persistent=False)

    @classmethod
    def load(cls, source: str | Path, *, image_size: int | Sequence[int] | None = None) -> BLIPMatcher:
        """Pretrained weights, such as ``Salesforce/blip-itm-base-coco``, with the statistics that lie beside them.

        Its texts start with [CLS] in both halves, as in transformers.

        Args:
            source: hub name or local folder (config, weights).
            image_size: (rows, columns) or one number; None for the model's own.

        Raises:
            ValueError: the checkpoint lacks weights, as one for captioning lacks the matching head.
        """
        model, report = BlipForImageTextRetrieval.from_pretrained(
            str(source), dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
        check_missing(report["missing_keys"], source, model)
        mean, std = image_statistics(source, 3)
        return cls(model, image_size=image_size, mean=mean, std=std)

    @classmethod
    def small(
        cls,
        vocab_size: int,
        *,
        image_size: int = 128,
        stride: int = 8,
        width: int = 128,
        image_layers: int = 1,
        text_layers: int = 2,
        max_length: int = 128,
    ) -> BLIPMatcher:
        """A small BLIP from scratch, of the make of `SmallViT` and `TransformersTextEncoder.small(from_words=True)`.

        As in SmallViT the pooled image is standardized over the batch in training, before its projection.

        Args:
            vocab_size: token ids.
            image_size: rows and columns, a multiple of the stride; transformers' BLIP takes squares. One gray channel.
            stride: pixels per image token, a power of two, at least 4; tokens come from a convolutional stem.
            width: channels of both sides and of the shared space, a multiple of 64; 32 per attention head.
            image_layers, text_layers: transformer blocks; the MLPs are two and four times as wide.
            max_length: tokens per text at most.
        """
        common = {"hidden_size": width, "num_attention_heads": width // 32, "initializer_range": width**-0.5}
        vision = {"num_hidden_layers": image_layers, "intermediate_size": 2 * width, "patch_size": stride}
        text = {"num_hidden_layers": text_layers, "intermediate_size": 4 * width, "max_position_embeddings": max_length}
        config = BlipConfig(
            vision_config={**common, **vision, "image_size": image_size},
            text_config={**common, **text, "vocab_size": vocab_size, "bos_token_id": None, "sep_token_id": None},
            image_text_hidden_size=width,
            initializer_range=width**-0.5,
        )
        model: Any = BlipForImageTextRetrieval(config)
        _start_apart(model, ConvStem((image_size, image_size), stride, 1, width))
        return cls(model)

    @property
    def logit_scale(self) -> Tensor:
        """The cosine's factor 1 / tau: () tensor in (0, 100] after every training step's forward pass."""
        return self.log_scale.exp()

    def encode_image(self, image: Tensor) -> Tensor:
        """Unit embeddings (B, E), float32, of images (B, C, rows, columns): of the CLS token alone."""
        return self.embed_features(self.image_encoder(image))

    def embed_features(self, features: Tensor) -> Tensor:
        """Unit embeddings (B, E), float32, of the image encoder's features (B, N D)."""
        cls = self.image_encoder.tokens_of(features)[:, 0]
        return F.normalize(self.image_projection(cls).float(), dim=-1)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit embeddings (B, E), float32, of tokenized texts (B, N) that see no image."""
        self._check_length(input_ids)
        hidden = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return F.normalize(self.text_projection(hidden[:, 0]).float(), dim=-1)

    def memory(self, features: Tensor) -> ImageMemory:
        """What texts attend to, of the image encoder's features (M, N D)."""
        tokens = self.image_encoder.tokens_of(features)
        attentions = [layer.crossattention.self for layer in self.text_encoder.encoder.layer]
        keys, values = (
            tuple(split_heads(getattr(one, name)(tokens), one.num_attention_heads) for one in attentions)
            for name in ("key", "value")
        )
        return ImageMemory(keys, values)

    def match(
        self, memory: ImageMemory, input_ids: Tensor, attention_mask: Tensor, images: Tensor | None = None
    ) -> Tensor:
        """Matching logits (P,), float32: log-odds that text p describes the image that it looks at.

        The head's logit for a match minus its logit for none, so its softmax is this one's sigmoid.

        Args:
            memory: of M images.
            input_ids, attention_mask: (P, N).
            images: (P,) int64, which image each text looks at; None where P = M and text p looks at image p.
        """
        self._check_length(input_ids)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for number, (keys, values) in enumerate(zip(*memory, strict=True)):
            chosen = (keys, values) if images is None else (keys[images], values[images])
            cache.cross_attention_cache.update(*chosen, number)
            cache.is_updated[number] = True  # so transformers projects no image tokens again, pair by pair
        hidden = self.text_encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=memory.keys[0],  # not None: look at images; their tokens themselves are not read
            past_key_values=cache,
        ).last_hidden_state
        mismatch, match = self.matching_head(hidden[:, 0]).float().unbind(-1)
        return match - mismatch

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> CLIPOutput:
        """The contrastive half of a batch of pairs."""
        return self._contrast(self.image_encoder(image), input_ids, attention_mask)

    def training_batch(
        self,
        image: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        positives: Tensor,
        *,
        hardness: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MatchingBatch:
        """Embeddings, and matching logits of the pairs and of mismatches drawn from the same batch.

        For each image one wrong text, and for each text one wrong image, is drawn with probabilities proportional to
        exp(hardness * logit scale * cosine). What has no wrong partner in the batch gives no mismatch. The sum of
        `ContrastiveLoss` of ``output`` and of binary cross-entropy of ``logits`` against ``match`` is BLIP's loss
        without captioning, momentum encoder and queue.

        Args:
            image: (B, C, rows, columns).
            input_ids, attention_mask: (B, N).
            positives: (B,) int64; items with the same number are no mismatch for each other.
            hardness: 1 is BLIP's; 0 draws at random, for texts of which many are true of many images: there the wrong
                text that the embeddings find likeliest is often as true as the right one.
            generator: draws the mismatches, on the CPU; None takes torch's own.
        """
        features = self.image_encoder(image)
        output = self._contrast(features, input_ids, attention_mask)
        similarity = (hardness * output.logit_scale * output.image @ output.text.T).detach().cpu()  # (B, B)
        wrong = (positives[:, None] != positives).cpu()
        own = torch.arange(len(image))
        asked, texts = _drawn(similarity, wrong, generator)
        telling, images = _drawn(similarity.T, wrong, generator)
        of_image = torch.cat([own, asked, images]).to(features.device)
        of_text = torch.cat([own, texts, telling]).to(features.device)
        logits = self.match(self.memory(features), input_ids[of_text], attention_mask[of_text], of_image)
        return MatchingBatch(output, logits, (torch.arange(len(logits), device=logits.device) < len(image)).float())

    @torch.no_grad()
    def rerank(self, features: Tensor, texts: TokenBatch, candidates: Tensor) -> Reranked:
        """Look again, with the matching head, at the images that the embeddings ranked first.

        Args:
            features: (N, N_tokens D) of the gallery, from the image encoder; 1.8 MB per image for the base model.
            texts: Q queries.
            candidates: (Q, k) int64 numbers of gallery images for each query.

        Returns:
            The same candidates in the order of their matching logits; BLIP's own code adds the cosine to these.
        """
        rows = []
        for ids, mask, row in zip(texts.input_ids, texts.attention_mask, candidates, strict=True):
            seen = self.memory(features[row])
            rows.append(self.match(seen, ids.expand(len(row), -1), mask.expand(len(row), -1)))
        logits, places = torch.stack(rows).sort(dim=1, descending=True, stable=True)
        return Reranked(candidates.gather(1, places), logits)

    def classifier(
        self,
        findings: Sequence[Finding | str | Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        rule: str = "positive",
        normal_prompts: Sequence[str] | None = None,
    ) -> MatchingClassifier:
        """A zero-shot classifier by the matching head that shares this network's weights; see MatchingClassifier."""
        return MatchingClassifier(self, findings, tokenizer, rule=rule, normal_prompts=normal_prompts)

    def _contrast(self, features: Tensor, input_ids: Tensor, attention_mask: Tensor) -> CLIPOutput:
        if self.training:
            with torch.no_grad():
                self.log_scale.clamp_(max=MAX_LOG_SCALE)
        text = self.encode_text(input_ids, attention_mask)
        return CLIPOutput(self.embed_features(features), text, self.logit_scale, self.logit_bias.clone())

    def _check_length(self, input_ids: Tensor) -> None:
        if input_ids.shape[1] > self.max_length:
            raise ValueError(
                f"Texts of {input_ids.shape[1]} tokens do not fit this BLIP's {self.max_length}. "
                f"Set max_length={self.max_length} where they are tokenized."
            )


def _drawn(similarity: Tensor, wrong: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Rows that have a wrong column, and one for each, drawn by softmax of the row's similarity: (R,) and (R,)."""
    rows = wrong.any(dim=1).nonzero().flatten()
    if not len(rows):
        return rows, rows
    weights = (similarity[rows].softmax(dim=1) + EASY) * wrong[rows]
    return rows, torch.multinomial(weights, 1, generator=generator).flatten()


@torch.no_grad()
def _start_apart(model: Any, stem: ConvStem) -> None:
    """Tokens from a stem, words that differ and positions that hardly do: inputs start apart, as in the small CLIP."""
    vision, words = model.vision_model.embeddings, model.text_encoder.embeddings
    vision.patch_embedding = StemEmbedding(*stem.stem)
    for quiet in (vision.position_embedding, vision.class_embedding, words.position_embeddings.weight):
        nn.init.normal_(quiet, std=0.02)
    nn.init.normal_(words.word_embeddings.weight, std=1.0)
    model.vision_proj = nn.Sequential(Standardized(model.vision_proj.in_features), model.vision_proj)
