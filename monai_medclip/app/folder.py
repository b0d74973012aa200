"""The folder that `monailabel start_server --app` wants."""

from __future__ import annotations

import os
from pathlib import Path

from monai_medclip.files import atomic_write

__all__ = ["app_folder"]

MAIN = '''"""MONAI Label starts here; the app itself is installed with monai_medclip."""

from monai_medclip.app.main import MedCLIPApp

__all__ = ["MedCLIPApp"]
'''


def app_folder(folder: str | Path | None = None) -> Path:
    """Make the app's folder, with its ``main.py``; MONAI Label writes its log, and the readers' probe, in there.

    Args:
        folder: where; None for ``medclip_app`` in the user's data folder (``XDG_DATA_HOME``, ``~/.local/share``).

    Returns:
        Its absolute path.
    """
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    made = Path(folder or data / "medclip_app").expanduser().resolve()
    main = made / "main.py"
    if not main.is_file() or main.read_text(encoding="utf-8") != MAIN:
        with atomic_write(main) as file:
            file.write_text(MAIN, encoding="utf-8")
    return made
