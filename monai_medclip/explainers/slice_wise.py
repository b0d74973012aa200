"""Slice by slice: any method of 2D images on a volume that a 2D encoder reads; which slice, then where in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_medclip.explainers.base import Explainer
from monai_medclip.explainers.chefer import Chefer, relevance
from monai_medclip.networks import Classifier, SliceClassifier

__all__ = ["SliceWise"]


class SliceWise(Explainer):
    """A method's map of every slice, of the volume's own score, times the relevance of the slice.

    Which slice: `Chefer` through the attention over slices, A * dS/dA of each, scaled to a maximum of 1 per map. The
    same method, or any other that reads attention, shows that alone where it explains the volume's classifier itself.
    Where in it: the method on `SliceClassifier`, a slice's share in the volume's score with the other slices held
    fixed. Slices pass a few at a time, after one pass for the features of all, so that memory holds activations of one
    chunk and the map itself, whatever the volume; all findings share the passes.

    Without the first, maps of methods that multiply by the score's gradient or measure the score (Grad-ECLIP, Chefer,
    Grad-CAM, propagation, M2IB, integrated gradients, occlusion and other perturbations) compare across slices in
    principle. In practice hundreds of patches that owe nothing to the finding leave one that is as hot by chance. On
    a toy with one marked slice of ten (two findings, two trainings, 113 maps) the maximum of Grad-ECLIP lay in that
    slice in 0.61 and 0.58 of the maps, Chefer's in 0.52 and 0.61, of conservative propagation in 0.54 and 0.98, of
    occlusion in all; times the relevance, in 0.98 or more for each. The pooling's weights gave 0.74 and 0.78: a slice
    may count by what it says. Maps that do not know the score (`AttentionRollout`, baselines) or are weighted by what
    is scaled within one image (`MedGradECLIP`'s entropy) say little about slices without it.

    Args:
        explainer: of 2D images; its target is explained, and it is verified, see `Explainer`, where it asks for that.
        chunk: slices per pass of the method.
        by_relevance: multiply by the relevance of slices. A map is zero where no slice speaks for the finding.

    Raises:
        ValueError: a chunk below 1.
        TypeError: when it is to explain a classifier that does not read a volume slice by slice, or whose slices
            ``explainer`` refuses.

    Example:
        ``SliceWise(GradECLIP()).explain(CLIP(SliceEncoder(...), ...).classifier(prompts, tokenizer), volume)``
    """

    def __init__(self, explainer: Explainer, *, chunk: int = 8, by_relevance: bool = True) -> None:
        """See the class."""
        super().__init__(target=explainer.target, verify=explainer.verify)
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: at least one slice must be explained at a time.")
        self.explainer = explainer
        self.chunk = chunk
        self.by_relevance = by_relevance
        self.name = f"{explainer.name} slice by slice"
        self.explains_own_score = explainer.explains_own_score
        self.slices = Chefer(target=explainer.target, verify=explainer.verify)

    def _check(self, classifier: Classifier) -> None:
        view: Any = SliceClassifier(classifier)  # its further inputs are context
        self.explainer.check(view)

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        walk = self.slices.walk(classifier, image, context)  # its tokens are the slices' features (B, S, D)
        view, features = SliceClassifier(classifier), walk.tokens.detach()
        maps = image.new_zeros(*walk.scores.shape, *image.shape[2:], dtype=torch.float32)  # (B, F, S, rows, columns)
        for number, of_volume in enumerate(maps):
            fixed = {"slice_features": features, **context}
            for places in self._shown(image[number]).split(self.chunk):
                same = {name: value[number].expand(len(places), *value.shape[1:]) for name, value in fixed.items()}
                slices = image[number, :, places].movedim(1, 0)  # (chunk, C, rows, columns)
                found = self.explainer.explain(view, slices, slice_index=places, **same)
                if self.explains_own_score:
                    self._compare(classifier, found.scores, walk.scores[number].expand_as(found.scores))
                of_volume[:, places] = found.heatmap.movedim(0, 1)
        if self.by_relevance:
            shares = relevance(walk).detach()  # (B, F, S)
            maps *= (shares / shares.amax(-1, keepdim=True).clamp_min(1e-12))[..., None, None]
        return maps, walk.scores

    def _shown(self, volume: Tensor) -> Tensor:
        """Which slices the method is asked about: all, but padding where a method refuses images without contrast."""
        every = torch.arange(volume.shape[1], device=volume.device)
        if not self.explainer.needs_contrast:
            return every
        low, high = volume.flatten(2).aminmax(dim=2)  # (C, S)
        varied = (high > low).any(dim=0)
        return every[varied] if bool(varied.any()) else every
