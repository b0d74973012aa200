"""One explained case on paper: figures of every map, the grid of all of them, and pages with a prompt switcher."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from monai.data.utils import affine_to_spacing

from ..writers import (
    Heat,
    OverlayStyle,
    Panel,
    Truth,
    explanation_page,
    figure_panel,
    grid_figure,
    mip_figure,
    montage_figure,
    orthogonal_figure,
    overlay_figure,
    overlay_panel,
    save_figure,
    write_whole,
)
from ..writers.maps import ras_affine

__all__ = ["Case", "slug", "truths_of", "write_figures", "write_pages"]

_OF_VOLUMES: dict[str, Callable[..., Figure]] = {
    "slices": orthogonal_figure,
    "montage": montage_figure,
    "mip": mip_figure,
}


class Case(NamedTuple):
    """One prepared case and what is drawn over it."""

    folder: Path
    item: Mapping[Any, Any]
    picture: np.ndarray  # (*spatial) or (rows, columns, 3), 0 to 1
    heats: dict[str, list[Heat]]  # by method, one per prompt
    truths: list[Truth | None]  # one per prompt
    present: list[bool] | None  # one per prompt, if it is known of all

    @property
    def flat(self) -> bool:
        """Whether the image has rows and columns only."""
        return next(iter(self.heats.values()))[0].values.ndim == 2

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) from indices of a volume, as the network has it, to RAS mm."""
        return ras_affine(self.item["image"])

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Between slices, rows and columns of a volume; of a film 1, its pixels being square."""
        return (1.0, 1.0) if self.flat else tuple(float(mm) for mm in affine_to_spacing(self.affine))


def write_figures(case: Case, style: OverlayStyle) -> None:
    """Figures of every method and prompt; of volumes slices, a montage and a projection; ``grid.png`` of them all."""
    for name, heats in case.heats.items():
        for number, (heat, truth) in enumerate(zip(heats, case.truths, strict=True), start=1):
            stem = case.folder / f"{slug(name)}_{number:02d}_{slug(heat.prompt)}"
            if case.flat:
                save_figure(overlay_figure(case.picture, heat, style=style, truth=truth), f"{stem}.png")
                continue
            for kind, draw in _OF_VOLUMES.items():
                figure = draw(case.picture, heat, style=style, truth=truth, spacing_mm=case.spacing_mm)
                save_figure(figure, f"{stem}_{kind}.png")
    grid = grid_figure(
        case.picture,
        list(case.heats.values()),
        present=case.present,
        truths=case.truths,
        spacing_mm=case.spacing_mm,
        style=style,
    )
    save_figure(grid, case.folder / "grid.png")


def write_pages(case: Case, style: OverlayStyle) -> None:
    """``METHOD.html`` of every method, where a reader switches between the prompts."""
    for name, heats in case.heats.items():
        panels = [_panel(case, heat, truth, style) for heat, truth in zip(heats, case.truths, strict=True)]
        page = explanation_page(panels, title=f"{case.item['id']}: {name}")
        write_whole(case.folder / f"{slug(name)}.html", page.encode())


def _panel(case: Case, heat: Heat, truth: Truth | None, style: OverlayStyle) -> Panel:
    if case.flat:
        return overlay_panel(case.picture, heat, style=style, truth=truth)
    figure = orthogonal_figure(case.picture, heat, style=style, truth=truth, spacing_mm=case.spacing_mm)
    return figure_panel(heat, figure, style=style)


def truths_of(item: Mapping[Any, Any], names: Sequence[str]) -> list[Truth | None]:
    """The ground truth of each prompt, None where nothing is marked."""
    masks = item.get("truth")
    if masks is None:
        return [None] * len(names)
    return [Truth(np.asarray(mask)) if bool(mask.any()) else None for mask in masks]


def slug(name: str) -> str:
    """A name as a file may have it, at most 80 characters."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80] or "case"
