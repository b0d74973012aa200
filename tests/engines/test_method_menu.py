"""The menu of methods: only those that explain this network, the recommended one first."""

from __future__ import annotations

import pytest

from monai_medclip.engines import method_menu
from monai_medclip.explainers import SliceWise, TokenGradCAM
from monai_medclip.networks import CLIP, SliceEncoder, SmallCNN, SmallViT

from ..networks.toys import BagOfWords, tokenize


def test_a_network_without_attention_gets_what_reads_feature_maps() -> None:
    clip = CLIP(SmallCNN(32), BagOfWords(), embed_dim=16)
    assert list(method_menu(clip.classifier(["nodule"], tokenize))) == ["recommended", "Grad-CAM"]


def test_a_vision_transformer_gets_what_reads_attention() -> None:
    clip = CLIP(SmallViT(32, width=64, depth=2, num_heads=2), BagOfWords(), embed_dim=16)
    menu = method_menu(clip.classifier(["nodule"], tokenize), cls="include")
    assert next(iter(menu)) == "recommended"
    assert {"Grad-ECLIP", "MedGrad E-CLIP", "Chefer"} < set(menu)
    prefix = menu["Grad-CAM (patch tokens)"]
    assert isinstance(prefix, TokenGradCAM)
    assert prefix.include_prefix


def test_through_slices_every_method_goes_slice_by_slice() -> None:
    encoder = SliceEncoder(SmallViT(32, width=64, depth=2, num_heads=2), slices=3)
    menu = method_menu(CLIP(encoder, BagOfWords(), embed_dim=16).classifier(["nodule"], tokenize))
    assert all(isinstance(method, SliceWise) for method in menu.values())


def test_another_word_for_the_class_token_is_refused() -> None:
    clip = CLIP(SmallViT(32, width=64, depth=2, num_heads=2), BagOfWords(), embed_dim=16)
    with pytest.raises(ValueError, match="cls='maybe'"):
        method_menu(clip.classifier(["nodule"], tokenize), cls="maybe")
