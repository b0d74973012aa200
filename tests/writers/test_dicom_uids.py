"""UIDs repeat with what they are made from, and only then."""

from __future__ import annotations

from pydicom.uid import UID

from monai_medclip.writers.dicom_uids import derived_uid


def test_the_same_names_give_the_same_valid_uid():
    assert derived_uid("a", 1) == derived_uid("a", "1")
    assert UID(derived_uid("a", 1)).is_valid


def test_other_names_another_order_or_other_borders_give_another():
    uids = {derived_uid(*names) for names in (("a", "b"), ("b", "a"), ("ab",), ("a", "b", "c"), ("ab", "c"))}
    assert len(uids) == 5
