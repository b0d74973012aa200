"""One patient of the phantom, in memory: radiograph, CT, report and findings, with or without any of them."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np

from monai_medclip.data.phantom_anatomy import Anatomy, sample_anatomy
from monai_medclip.data.phantom_ct import CT, render_ct
from monai_medclip.data.phantom_lesions import Lesion, sample_lesions
from monai_medclip.data.phantom_report import write_report
from monai_medclip.data.phantom_xray import XRay, render_xray

__all__ = ["PHANTOM_VERSION", "PhantomPatient"]

PHANTOM_VERSION = 5  # raise it when a patient changes: folders of another version are not reused


class PhantomPatient:
    """Patient ``index`` of the phantom ``seed``: the same whoever asks, whatever the number of patients."""

    def __init__(self, seed: int, index: int) -> None:
        """Name the patient; anatomy and findings are drawn when asked for."""
        self.seed, self.index = seed, index

    @cached_property
    def anatomy(self) -> Anatomy:
        """The healthy thorax."""
        return sample_anatomy(np.random.default_rng([self.seed, self.index, 0]))

    @cached_property
    def findings(self) -> tuple[Lesion, ...]:
        """What the patient has."""
        return sample_lesions(self.anatomy, self.seed, self.index)

    def ct(self, shape: tuple[int, int, int] = (64, 128, 128), without: Collection[str] = ()) -> CT:
        """The chest CT of the same thorax, (slices, rows, columns)."""
        return render_ct(self.anatomy, self._shown(without), shape=shape, seed=(self.seed, self.index))

    @property
    def report(self) -> str:
        """The report: sections FINDINGS and IMPRESSION."""
        return self.report_without()

    def report_without(self, without: Collection[str] = ()) -> str:
        """The report that the patient would have without some findings: they are denied or unmentioned."""
        return write_report(self.anatomy, self._shown(without), (self.seed, self.index))

    def _shown(self, without: Collection[str]) -> tuple[Lesion, ...]:
        return tuple(lesion for lesion in self.findings if lesion.finding not in without)

    def xray(self, image_size: int = 128, without: Collection[str] = ()) -> XRay:
        """The frontal radiograph."""
        return render_xray(
            self.anatomy, self.findings, self._shown(without), image_size=image_size, seed=(self.seed, self.index)
        )
