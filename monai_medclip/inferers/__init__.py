"""MONAI inferers around explainers: maps that carry the geometry of their image."""

__all__: list[str] = []
