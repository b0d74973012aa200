"""MLflow for those who keep their experiments there: MONAI's handler with names that MLflow accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.handlers import MLFlowHandler

__all__ = ["MLFlowTracker"]


class MLFlowTracker(MLFlowHandler):
    """MONAI's ``MLFlowHandler``, which passes names such as ``recall@5`` on, where MLflow refuses the ``@``.

    ``recall@5`` becomes ``recall_at_5``; arguments are those of the stock handler.
    """

    def _log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super()._log_metrics({name.replace("@", "_at_"): value for name, value in metrics.items()}, step=step)
