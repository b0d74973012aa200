"""CLIP-style models on medical images and their reports, as MONAI parts. Research use only, not a medical device."""

__version__ = "0.1.0"
__all__ = ["__version__"]
