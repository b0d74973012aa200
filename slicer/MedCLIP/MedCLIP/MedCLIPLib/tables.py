"""Scores and similar cases as rows of a Slicer table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import vtk

from MedCLIPLib.scores import Case, Score, sorted_scores

__all__ = ["fill_cases", "fill_scores"]


def fill_scores(table, scores: Iterable[Score]) -> None:
    """Show scores, the likeliest first.

    Args:
        table: vtkMRMLTableNode; its former rows go.
        scores: of one image.
    """
    rows = sorted_scores(scores)
    _fill(
        table,
        {
            "Finding": [row.finding for row in rows],
            "Probability": [round(row.probability, 3) for row in rows],
            "Logit": [round(row.logit, 3) for row in rows],
        },
    )


def fill_cases(table, cases: Sequence[Case]) -> None:
    """Show cases, the most similar first.

    Args:
        table: vtkMRMLTableNode; its former rows go.
        cases: as the server ranks them.
    """
    _fill(
        table,
        {
            "Case": [case.id for case in cases],
            "Similarity": [round(case.cosine, 3) for case in cases],
            "Report or labels": [case.text for case in cases],
        },
    )


def _fill(table, columns: dict[str, list]) -> None:
    """Replace all columns at once, so that the view is drawn once."""
    modifying = table.StartModify()
    table.RemoveAllColumns()
    for name, values in columns.items():
        numbers = bool(values) and isinstance(values[0], float)
        array = vtk.vtkDoubleArray() if numbers else vtk.vtkStringArray()
        array.SetName(name)
        for value in values:
            array.InsertNextValue(value)
        table.AddColumn(array)
    table.SetUseColumnNameAsColumnHeader(True)
    table.SetLocked(True)
    table.EndModify(modifying)
