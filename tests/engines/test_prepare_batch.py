import pytest
import torch
from monai.data import MetaTensor

from monai_medclip.engines import ContrastivePrepareBatch, LabelPrepareBatch


def batch(image_key: str = "image") -> dict:
    return {
        image_key: MetaTensor(torch.rand(2, 1, 4, 6)),
        "positives": torch.tensor([7, 7]),
        "input_ids": torch.tensor([[1, 2], [1, 0]]),
        "attention_mask": torch.tensor([[1, 1], [1, 0]]),
        "id": ["a", "b"],
    }


@pytest.mark.parametrize("image_key", ["image", "features"])
def test_gives_network_and_loss_their_arguments(image_key: str) -> None:
    data = batch(image_key)
    image, target, arguments, keywords = ContrastivePrepareBatch(image_key)(data, "cpu")
    assert type(image) is torch.Tensor  # a MetaTensor would make the loss one too
    assert torch.equal(image, data[image_key].as_tensor())
    assert target.tolist() == [7, 7]
    assert [tuple(tensor.shape) for tensor in arguments] == [(2, 2), (2, 2)]
    assert keywords == {}


def test_a_missing_entry_is_named_with_what_makes_it() -> None:
    data = batch()
    del data["input_ids"]
    with pytest.raises(KeyError, match=r"no 'input_ids'.*TokenizeReportd"):
        ContrastivePrepareBatch()(data)


@pytest.mark.parametrize("image_key", ["image", "features"])
def test_gives_a_classifier_its_image_and_its_loss_the_labels(image_key: str) -> None:
    data = batch(image_key) | {"label": torch.tensor([[1, 0, 1], [0, 0, 1]])}
    image, label = LabelPrepareBatch(image_key)(data, "cpu")
    assert type(image) is torch.Tensor
    assert torch.equal(image, data[image_key].as_tensor())
    assert label.dtype is torch.float32
    assert label.tolist() == [[1, 0, 1], [0, 0, 1]]


def test_unknown_labels_stay_unknown() -> None:
    label = MetaTensor(torch.tensor([[1.0, float("nan")], [0.0, 1.0]], dtype=torch.float64))
    _, target = LabelPrepareBatch()(batch() | {"label": label})
    assert type(target) is torch.Tensor
    assert target.isnan().tolist() == [[False, True], [False, False]]


def test_items_without_labels_are_refused() -> None:
    with pytest.raises(KeyError, match=r"no 'label'.*of the findings they are given"):
        LabelPrepareBatch()(batch())
