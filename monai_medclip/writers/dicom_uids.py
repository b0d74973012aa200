"""UIDs that depend on what an object is made from: the same result again replaces the former one in the archive."""

from __future__ import annotations

from pydicom.uid import generate_uid

__all__ = ["derived_uid"]


def derived_uid(*names: object) -> str:
    """A UID under pydicom's root that depends on the names and their order only.

    Results name the source's UIDs, the kind of object, the model with its version, the method and the prompt: whoever
    computes the same twice stores one object, not two; a new model, method or prompt makes a new object beside it.
    """
    return str(generate_uid(entropy_srcs=["monai_medclip", *(f"\0{name}" for name in names)]))
