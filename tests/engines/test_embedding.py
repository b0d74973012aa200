from types import ModuleType

import pytest
import torch
from monai.data import DataLoader, Dataset

from monai_medclip.engines import ContrastivePrepareBatch, embed


def test_every_item_once_in_order_with_its_facts(training: ModuleType) -> None:
    network, items = training.TinyCLIP(), training.tiny_items(7, 3)
    found = embed(network, DataLoader(Dataset(items), batch_size=3))
    assert found.ids == found.patients == tuple(item["id"] for item in items)
    assert torch.equal(found.label, torch.stack([item["label"] for item in items]))
    assert torch.equal(found.positives, torch.stack([item["positives"] for item in items]))
    assert found.image.shape == found.text.shape == (7, training.WIDTH)
    assert torch.allclose(found.image.norm(dim=1), torch.ones(7))
    alone = embed(network, DataLoader(Dataset(items[4:5]), batch_size=1))
    assert torch.allclose(alone.image[0], found.image[4], atol=1e-6)


def test_the_network_is_given_back_as_it_was(training: ModuleType) -> None:
    network = training.TinyCLIP().train()
    loader = training.tiny_loader("val")
    first, second = embed(network, loader), embed(network, loader)
    assert torch.equal(first.image, second.image)  # no dropout
    assert not first.image.requires_grad
    assert network.training
    network.words.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="12 of 12 embeddings are not finite"):
        embed(network, loader)
    assert network.training
    assert torch.is_grad_enabled()


def test_bfloat16_is_close_and_returned_as_float32(training: ModuleType) -> None:
    network, loader = training.TinyCLIP(), training.tiny_loader("val")
    exact, half = embed(network, loader), embed(network, loader, amp=True)
    assert half.image.dtype is torch.float32
    assert 0 < (half.image - exact.image).abs().max() < 0.02


def test_features_may_be_fed_as_the_image_and_labels_may_be_absent(training: ModuleType) -> None:
    items = [{**item, "features": item["image"].flatten()} for item in training.tiny_items(4, 3)]
    whole = embed(training.TinyCLIP(), DataLoader(Dataset(items), batch_size=4))
    items = [{key: entry for key, entry in item.items() if key not in ("image", "label", "id")} for item in items]
    found = embed(
        training.TinyCLIP(),
        DataLoader(Dataset(items), batch_size=3),
        prepare_batch=ContrastivePrepareBatch("features"),
    )
    assert found.ids == ("0", "1", "2", "3")
    assert found.label.shape == (4, 0)
    assert found.image.shape == whole.image.shape


def test_nothing_to_embed_is_an_error(training: ModuleType) -> None:
    with pytest.raises(ValueError, match="the loader is empty"):
        embed(training.TinyCLIP(), [])
