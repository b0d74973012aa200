"""KernelSHAP and LIME: a linear model of what happens to the score when square cells of the image are removed."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import captum.attr
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import Tensor

from monai_medclip.explainers.perturbation import PerturbationExplainer, cell_grid

__all__ = ["LIME", "KernelSHAP"]

Judge = Callable[[Tensor], Tensor]


class _Surrogate(PerturbationExplainer):
    """One weight per cell, of a linear model of the score; captum samples the cells and fits.

    captum fits one image and one finding at a time and draws from the global generator. Here every fit starts from the
    same seed, so all images and findings meet the same samples and share their forward passes, and the global state
    stays as it was.
    """

    def __init__(
        self,
        *,
        cell: int | Sequence[int] = 16,
        samples: int = 1000,
        seed: int = 0,
        baseline: str | float = "blur",
        batch_size: int = 32,
        target: str = "logit",
        verify: bool = False,
    ) -> None:
        """See the subclasses."""
        super().__init__(baseline=baseline, batch_size=batch_size, target=target, verify=verify)
        self.cell = cell
        self.samples = samples
        self.seed = seed

    @abstractmethod
    def _method(self, judge: Judge) -> captum.attr.Lime:
        """captum's method over a function from samples of cells (P, M) to one score each (P,)."""

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        grid = self._grid(image)
        all_cells = image.new_ones(1, math.prod(grid))
        judge = self._shared(classifier, image, context, grid)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            scores = self._judge(classifier, image, context)
            pairs = itertools.product(range(scores.shape[0]), range(scores.shape[1]))
            weights = [self._fit(judge, pair, all_cells, self._copies(image)) for pair in pairs]
        return torch.stack(weights).reshape(*scores.shape, *grid).to(scores), scores

    def _shared(self, classifier: Any, image: Tensor, context: dict[str, Tensor], grid: tuple[int, ...]) -> Judge:
        """From P samples of cells (P, M), 1 kept and 0 removed, to scores (P, B, F); each set is judged only once."""
        removed = self._removed(classifier, image)
        known: dict[bytes, Tensor] = {}

        def judge(cells: Tensor) -> Tensor:
            key = cells.to(torch.uint8).cpu().numpy().tobytes()
            if key not in known:
                visible = cells.reshape(-1, 1, *grid)
                known[key] = self._judge_visible(classifier, image, removed, visible, context)
            return known[key]

        return judge

    def _fit(self, judge: Judge, pair: tuple[int, int], all_cells: Tensor, copies: int) -> Tensor:
        """Weights (M,) of the cells for one image and one finding."""

        def judge_pair(cells: Tensor) -> Tensor:
            return judge(cells)[(slice(None), *pair)]

        torch.default_generator.manual_seed(self.seed)  # captum draws on the CPU; the caller gives the state back
        weights: Tensor = self._method(judge_pair).attribute(
            all_cells, n_samples=self.samples, perturbations_per_eval=copies, return_input_shape=False
        )
        return weights.flatten()

    def _grid(self, image: Tensor) -> tuple[int, ...]:
        grid = cell_grid(image, self.cell)
        count = math.prod(grid)
        if count < 2:
            raise ValueError(
                f"cell={self.cell} leaves one cell in an image of {tuple(image.shape[2:])}: make it smaller."
            )
        if self.samples < count + 2:
            raise ValueError(
                f"samples={self.samples} cannot determine the weights of {count} cells: give at least {2 * count}, or "
                f"larger cells than {self.cell}."
            )
        return grid


class KernelSHAP(_Surrogate):
    """Shapley values of square cells: weights that add up to score(image) - score(baseline).

    Between cells the map is bilinear; at its centre a cell holds its value. Negative cells speak against the finding.

    Args:
        cell: pixels per cell and axis, one number or one per axis; axes are shared out evenly.
        samples: altered copies of each image; more than there are cells, ten times as many for values that hold still.
        seed: of the samples, for every call.
        baseline, batch_size, target, verify: see `PerturbationExplainer`.

    References:
        Lundberg and Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017, Theorem 2.
    """

    name = "KernelSHAP"

    def _method(self, judge: Judge) -> captum.attr.Lime:
        return captum.attr.KernelShap(judge)


class LIME(_Surrogate):
    """Weights of square cells in a ridge regression of the score, samples near the whole image counting most.

    Samples keep every cell with probability 1/2 and weigh exp(-d^2 / (2 w^2)), d the cosine distance between the kept
    cells and all cells. Negative cells speak against the finding.

    Args:
        kernel_width: w. The authors' code for images has 0.25.
        ridge: strength of the penalty. The authors' code has 1.
        cell, samples, seed, baseline, batch_size, target, verify: see `KernelSHAP`.

    References:
        Ribeiro et al., "Why Should I Trust You?", KDD 2016, Eq. 1-2, with square cells in place of superpixels.
    """

    name = "LIME"

    def __init__(
        self,
        *,
        kernel_width: float = 0.25,
        ridge: float = 1.0,
        cell: int | Sequence[int] = 16,
        samples: int = 1000,
        seed: int = 0,
        baseline: str | float = "blur",
        batch_size: int = 32,
        target: str = "logit",
        verify: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(
            cell=cell,
            samples=samples,
            seed=seed,
            baseline=baseline,
            batch_size=batch_size,
            target=target,
            verify=verify,
        )
        if kernel_width <= 0 or ridge < 0:
            raise ValueError(
                f"kernel_width={kernel_width}, ridge={ridge}: a width is positive, a penalty not negative."
            )
        self.kernel_width = kernel_width
        self.ridge = ridge

    def _method(self, judge: Judge) -> captum.attr.Lime:
        return captum.attr.Lime(
            judge, SkLearnRidge(alpha=self.ridge), get_exp_kernel_similarity_function("cosine", self.kernel_width)
        )
