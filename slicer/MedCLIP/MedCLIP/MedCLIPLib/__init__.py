"""What the MedCLIP module does without a window: the client, the colored volume, the tables."""
# ruff: noqa: N999 - Slicer's own name for such a folder is ModuleLib
