"""LIDC-IDRI: readings of up to four readers become nodules in scanner space, with what the readers agree on."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from monai_medclip.data import check_splits, read_lidc, read_rejected, split_by_patient
from monai_medclip.transforms import CropNoduled, LoadCTd, NoduleCenterd

from .lidc_files import mark, small_mark, square, write_readings, write_slice

SERIES = "1.2.840.1"


def write(root: Path, readers: list[list[str]], *, series: str = SERIES, patient: str = "LIDC-IDRI-0001") -> Path:
    """The layout of a TCIA download: slices in a folder per series, the XML in a folder of its own."""
    write_slice(root / "LIDC-IDRI" / patient / f"{series}.0" / series, series, patient)
    write_readings(root / "tcia-lidc-xml" / "157" / f"{series}.xml", series, readers)
    return root


def rated(**ratings: list[int]) -> list[list[str]]:
    """One reader after another of the same nodule."""
    columns = [dict(zip(ratings, values, strict=True)) for values in zip(*ratings.values(), strict=True)]
    return [[mark({0.0: square(20, 20), 2.0: square(20, 20)}, **one)] for one in columns]


def label(root: Path, **options: object) -> list[float]:
    (item,) = read_lidc(root, **options)
    return item["label"]


def test_a_nodule_becomes_an_item_in_scanner_space(tmp_path):
    readers = [[mark({0.0: square(20, 40), 2.0: square(20, 40)})], [mark({2.0: square(22, 40), 4.0: square(22, 40)})]]
    (item,) = read_lidc(write(tmp_path, readers))
    # Column 20 and 22 at 0.25 mm from x = -10 LPS, row 40 at 0.5 mm from y = -20 LPS; RAS has both of opposite sign.
    assert item["center_mm"] == pytest.approx([10 - 21 * 0.25, 20 - 40 * 0.5, 2.0])
    assert item["meta"]["box_mm"] == pytest.approx([10 - 24 * 0.25, 20 - 42 * 0.5, 0, 10 - 18 * 0.25, 20 - 38 * 0.5, 4])
    assert item["meta"]["diameter_mm"] == pytest.approx(math.hypot(4 * 0.25, 4 * 0.5))
    assert item["image"] == str(tmp_path / "LIDC-IDRI" / "LIDC-IDRI-0001" / f"{SERIES}.0" / SERIES)
    assert (item["patient_id"], item["series_uid"], item["study_id"]) == ("LIDC-IDRI-0001", SERIES, f"{SERIES}.0")
    assert item["text"] == (
        "Chest CT: solid round lung nodule of 2 mm, sharp margin, internal structure of soft tissue, "
        "obvious on the image, no lobulation, no spiculation, no calcification."
    )


def test_a_prone_patient_is_turned_with_the_slices(tmp_path):
    write(tmp_path, [[mark({0.0: square(20, 40)})]])
    write_slice(tmp_path / "LIDC-IDRI", SERIES, "LIDC-IDRI-0001", ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
    (item,) = read_lidc(tmp_path)
    assert item["center_mm"] == pytest.approx([10 + 20 * 0.25, 20 + 40 * 0.5, 0.0])


def test_readings_within_a_slice_thickness_are_one_nodule(tmp_path):
    """Outlines end at columns 22 and 22 + 8 (2 mm, the thickness) or 22 + 9 (2.25 mm)."""
    near = [[mark({0.0: square(20, 20)})], [mark({0.0: square(32, 20)})]]
    far = [[mark({0.0: square(20, 20)})], [mark({0.0: square(33, 20)})]]
    assert [item["meta"]["readers"] for item in read_lidc(write(tmp_path / "near", near))] == [2]
    assert [item["meta"]["readers"] for item in read_lidc(write(tmp_path / "far", far))] == [1, 1]


def test_a_chain_joins_what_is_apart(tmp_path):
    readers = [[mark({0.0: square(20 + 12 * step, 20)})] for step in (0, 2, 1)]
    assert [item["meta"]["readers"] for item in read_lidc(write(tmp_path, readers))] == [3]


def test_more_than_four_readings_are_two_nodules(tmp_path):
    """Two neighbors 1.5 mm apart, closer than a slice, each drawn by the same four readers."""
    readers = [[mark({0.0: square(20, 20)}), mark({0.0: square(30, 20)})] for _ in range(4)]
    items = read_lidc(write(tmp_path, readers))
    assert [item["meta"]["readers"] for item in items] == [4, 4]
    assert items[0]["center_mm"][0] > items[1]["center_mm"][0]


def test_a_reader_who_marks_a_nodule_twice_counts_once(tmp_path):
    twice = [[mark({0.0: square(20, 20)}, margin=4), mark({2.0: square(20, 20)}, margin=2)]]
    (item,) = read_lidc(write(tmp_path, twice))
    assert (item["meta"]["readers"], item["meta"]["Margin_readers"]) == (1, [4, 2])
    with pytest.raises(ValueError, match=r"1 nodule of fewer than 2 readers"):
        read_lidc(tmp_path, min_readers=2)


def test_holes_do_not_move_the_center(tmp_path):
    holed = mark({0.0: square(20, 20)}).replace(
        "</unblindedReadNodule>",
        mark({0.0: [(21, 21), (22, 21), (22, 22)]}, inclusion="FALSE").split("</characteristics>")[1],
    )
    (item,) = read_lidc(write(tmp_path, [[holed]]))
    assert item["center_mm"][:2] == pytest.approx([10 - 20 * 0.25, 20 - 20 * 0.5])


def test_what_each_reader_says_is_kept(tmp_path):
    (item,) = read_lidc(write(tmp_path, rated(malignancy=[5, 4, 4], margin=[5, 3, 1])))
    wanted = {"Margin_value": 3, "Margin_readers": [5, 3, 1], "Margin_range": 4, "Malignancy_value": 4, "malignant": 1}
    assert wanted.items() <= item["meta"].items()
    assert item["meta"]["Margin_agreement"] == pytest.approx(1 / 3)
    assert item["labels"] == ["malignant"]


def test_a_single_reader_agrees_with_nobody(tmp_path):
    (item,) = read_lidc(write(tmp_path, rated(malignancy=[2])))
    assert item["meta"]["Malignancy_agreement"] is None
    assert item["label"][0] == 0.0


@pytest.mark.parametrize(
    ("grades", "unknown", "benign", "malignant"),
    [([4, 4, 5], 1.0, 1.0, 1.0), ([1, 2], 0.0, 0.0, 0.0), ([3, 3, 4], math.nan, 0.0, 1.0), ([3, 4], 1.0, 1.0, 1.0)],
)
def test_an_indeterminate_malignancy_is_what_is_asked(tmp_path, grades, unknown, benign, malignant):
    root = write(tmp_path, rated(malignancy=grades))
    found = [
        label(root, findings=["malignant"], uncertain="consensus", indeterminate=choice)[0]
        for choice in ("unknown", "benign", "malignant")
    ]
    assert found == pytest.approx([unknown, benign, malignant], nan_ok=True)


def test_labels_are_unknown_where_readers_straddle_the_cut(tmp_path):
    """Calcified or not and benign or malignant are told apart by one reader each; texture 3 and 1 are both subsolid."""
    root = write(tmp_path, rated(calcification=[6, 6, 3], malignancy=[4, 5, 2], texture=[3, 1, 2], margin=[5, 4, 3]))
    assert label(root) == pytest.approx([math.nan, math.nan, 1.0, 0.0, 0.0], nan_ok=True)
    assert label(root, uncertain="consensus") == [1.0, 0.0, 1.0, 0.0, 0.0]


def test_an_indeterminate_reader_contradicts_nobody(tmp_path):
    assert label(write(tmp_path, rated(malignancy=[3, 4, 5])), findings=["malignant", "benign"]) == [1.0, 0.0]


def test_a_missing_rating_is_unknown_not_indeterminate(tmp_path):
    root = write(tmp_path, rated(malignancy=[7, 8]))
    (item,) = read_lidc(root, indeterminate="benign", rejected=tmp_path / "rejected.csv")
    assert math.isnan(item["label"][0])
    assert item["meta"]["Malignancy_readers"] == [None, None]
    assert [row.reason for row in read_rejected(tmp_path / "rejected.csv")] == [
        f"rating outside of its scale: malignancy {value} of 1 to 5, the reading is kept without it" for value in (7, 8)
    ]


def test_the_text_tells_the_malignancy_only_if_asked(tmp_path):
    root = write(tmp_path, rated(malignancy=[5]))
    assert read_lidc(root, with_malignancy=True)[0]["text"].endswith(" Malignancy rated highly suspicious.")
    assert "alignan" not in read_lidc(root)[0]["text"]


def test_nodules_and_scans_of_a_patient_stay_on_one_split(tmp_path):
    two = [[mark({0.0: square(20, 20)}), mark({0.0: square(90, 90)})]]
    for number in range(8):
        write(tmp_path, two, series=f"1.2.840.{number}", patient=f"LIDC-IDRI-{number // 2:04d}")
    items = read_lidc(tmp_path)
    assert len({item["id"] for item in items}) == len(items) == 16
    split = split_by_patient(items, [2, 1, 1])
    assert Counter(item["split"] for item in split) == {"train": 8, "val": 4, "test": 4}
    check_splits([{**item, "image": ""} for item in split])


def test_what_is_left_out_is_listed(tmp_path):
    write(tmp_path, [[mark({0.0: square(20, 20)}), small_mark()], [mark({0.0: square(20, 20)})]])
    write(tmp_path, rated(malignancy=[1]), series="1.2.840.2")
    write_readings(tmp_path / "tcia-lidc-xml" / "158" / "again.xml", SERIES, [])
    write_readings(tmp_path / "tcia-lidc-xml" / "158" / "alone.xml", "1.2.840.3", [])
    write_readings(tmp_path / "tcia-lidc-xml" / "158" / "cxr.xml", "1.2.840.4", [], root="IdriReadMessage")
    write_slice(tmp_path / "LIDC-IDRI" / "radiograph", "1.2.840.3", "LIDC-IDRI-0001", Modality="DX")
    assert len(read_lidc(tmp_path, min_readers=2, rejected=tmp_path / "rejected.csv")) == 1
    rows = read_rejected(tmp_path / "rejected.csv")
    assert {(Path(row.file).name, row.reason.split(":")[0], row.id) for row in rows} == {
        ("again.xml", "second reading file of a series", SERIES),
        ("cxr.xml", "XML that is no reading of a CT", ""),
        ("alone.xml", "DICOM series absent or without geometry", "1.2.840.3"),
        ("1.2.840.1.xml", "mark without ratings or outline", "9"),
        ("1.2.840.2.xml", "nodule of fewer than 2 readers", "1.2.840.2_1"),
    }


def test_oblique_slices_are_refused(tmp_path):
    write(tmp_path, [[mark({0.0: square(20, 20)})]])
    write_slice(tmp_path / "oblique", "1.2.840.5", "X", ImageOrientationPatient=[1, 0, 0, 0, 0.8, -0.6])
    with pytest.raises(ValueError, match=r"000001.dcm: its slices are oblique"):
        read_lidc(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"indeterminate": "maybe"}, "indeterminate='maybe'"), ({"uncertain": "nan"}, "uncertain=")],
)
def test_unknown_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read_lidc(write(tmp_path, rated(malignancy=[1])), **options)


def test_a_folder_without_readings_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no reading XML"):
        read_lidc(tmp_path)
    write_readings(tmp_path / "1.xml", SERIES, [[mark({0.0: square(20, 20)})]])
    with pytest.raises(ValueError, match=r"no case is left \(1 DICOM series absent"):
        read_lidc(tmp_path)


def test_a_real_series_is_cropped_at_its_nodule(shared_data, tmp_path):
    """The mask of LIDC-IDRI-0001's nodule, outlined as the readers do, leads to the nodule on the DICOM series."""
    file = shared_data / "ct_volumes" / "lidc0001_series_nodule.nii.gz"
    image = nib.load(file)
    mask = np.asanyarray(image.dataobj) > 0  # (columns, rows, slices) of the series
    outlines = {}
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        z_mm = float((image.affine @ [0, 0, k, 1])[2])
        outlines[z_mm] = [tuple(point) for point in np.argwhere(binary_dilation(mask[..., k]) & ~mask[..., k])]
    series = "1.2.826.0.1.3680043.8.498.87360241088940596362142832753989224887"
    write_readings(tmp_path / "1.xml", series, [[mark(outlines)]])
    (tmp_path / "series").symlink_to(shared_data / "dicom_series_lidc0001")
    (item,) = read_lidc(tmp_path)
    middle = NoduleCenterd()({"masks": {"nodule": str(file)}})["center_mm"]
    assert np.abs(item["center_mm"] - middle).max() < 1.0
    crop = CropNoduled("image")(LoadCTd("image")(item))["image"]
    assert crop.shape == (3, 40, 40)
    assert float(crop[1, 18:22, 18:22].min()) > -200  # soft tissue in the middle, not lung
