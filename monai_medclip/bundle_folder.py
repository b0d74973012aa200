"""Where the bundle lies that is installed with the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["BUNDLE_NAME", "bundle_root"]

BUNDLE_NAME = "medclip"


def bundle_root(name: str = BUNDLE_NAME) -> str:
    """Folder of a bundle: the one that the wheel carries, or the source checkout's.

    Args:
        name: name of the bundle's folder.

    Returns:
        Absolute path, as a string because bundle configs concatenate it.

    Raises:
        FileNotFoundError: if the installation holds no such bundle.
    """
    package = Path(__file__).resolve().parent
    for bundles in (package / "_bundles", package.parent / "bundles"):
        if (bundles / name / "configs").is_dir():
            return str(bundles / name)
    raise FileNotFoundError(
        f"No bundle {name!r} beside {package}: the installation is incomplete. Reinstall monai-medclip from its wheel."
    )
