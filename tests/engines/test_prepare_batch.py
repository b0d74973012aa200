import pytest
import torch
from monai.data import MetaTensor

from monai_medclip.engines import ContrastivePrepareBatch


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
