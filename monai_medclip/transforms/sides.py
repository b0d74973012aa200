"""Left and right: a mirrored chest needs a mirrored report."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Flip, InvertibleTransform, MapTransform, RandomizableTransform
from monai.utils import TraceKeys

from monai_medclip.transforms.display_order import DisplayOrderd, radiograph_axis_order
from monai_medclip.transforms.mapped_text import MappedText

_SIDE = re.compile(r"\b(left|right)(?=\b|ward|sided)", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def _like(word: str, example: str) -> str:
    if example.isupper():
        return word.upper()
    return word.capitalize() if example[0].isupper() else word


def swap_sides(text: MappedText) -> MappedText:
    """Exchange the words left and right (also left-sided, leftward), keeping their case and the way to the original."""
    parts: list[MappedText] = []
    end = 0
    for match in _SIDE.finditer(text.text):
        word = match.group()
        side = text.cut(match.start(), match.end())
        parts += [text.cut(end, match.start()), side.renamed(_like(_OTHER[word.lower()], word))]
        end = match.end()
    return MappedText.concatenate([*parts, text.cut(end)])


class RandSwapSidesd(RandomizableTransform, MapTransform, InvertibleTransform):
    """Mirror a radiograph and exchange left and right in its report, with a probability. Off by default everywhere.

    The heart then lies on the patient's right: anatomy that hardly exists. Labels and boxes with sides are not changed.
    """

    def __init__(
        self, keys: KeysCollection, text_key: str = "text", *, prob: float = 0.5, allow_missing_keys: bool = False
    ) -> None:
        """Set the transform.

        Args:
            keys: images and masks (C, x, y), or (C, rows, columns) after `DisplayOrderd`.
            text_key: the report; must not be tokenized yet.
            prob: probability, 0 to 1.
            allow_missing_keys: do not raise when a key is missing.
        """
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.text_key = text_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item, mirrored or not."""
        item = dict(data)
        self.randomize(None)
        for key in self.key_iterator(item):
            axis = _column_axis(item[key])
            image = item[key]
            if self._do_transform:
                flip = Flip(axis)
                with flip.trace_transform(False):
                    image = flip(image)
            item[key] = self.push_transform(image, extra_info={"axis": axis})
        if self._do_transform:
            swap_sides(MappedText.from_item(item, self.text_key)).into_item(item, self.text_key)
        return item

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its images unmirrored; the report stays."""
        item = dict(data)
        for key in self.key_iterator(item):
            operation = self.pop_transform(item[key])
            if operation[TraceKeys.DO_TRANSFORM]:
                flip = Flip(int(operation[TraceKeys.EXTRA_INFO]["axis"]))
                with flip.trace_transform(False):
                    item[key] = flip(item[key])
        return item


def _column_axis(image: MetaTensor) -> int:
    """The spatial axis along which the displayed columns run."""
    if any(operation[TraceKeys.CLASS_NAME] == DisplayOrderd.__name__ for operation in image.applied_operations):
        return 1
    return radiograph_axis_order(image).source[1]
