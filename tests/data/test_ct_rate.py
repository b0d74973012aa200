"""CT-RATE: the published folders and tables, written small."""

from __future__ import annotations

import csv
import math
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_medclip.data import CT_RATE_FINDINGS, check_splits, read_ct_rate, read_rejected, subgroup_values
from monai_medclip.transforms import LoadCTd

REPORTS = ["VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN"]
LABELS = ["VolumeName", *(name.capitalize() for name in CT_RATE_FINDINGS)]
METADATA = [
    "VolumeName",
    "Manufacturer",
    "PatientSex",
    "PatientAge",
    "ConvolutionKernel",
    "XYSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "NumberofSlices",
    "ZSpacing",
    "StudyDate",
]
LONG = {"train": "train", "valid": "validation"}
NODULE = "Millimetric nodule in the right upper lobe."


class Copy:
    """A small copy of the repository, of which tests change a cell and write it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reports: dict[str, list[str]] = {}
        self.labels: dict[str, list[str]] = {}
        self.metadata: dict[str, list[str]] = {}
        self.no_chest: list[str] = []

    def add(self, name: str, *, findings: str = NODULE, positive: str = "lung nodule", kernel: str = "YA") -> None:
        self.reports[name] = ["Not given.", "Non-contrast MDCT.", findings, "Nodule." if findings else ""]
        self.labels[name] = [str(int(label == positive)) for label in CT_RATE_FINDINGS]
        spacing = "[0.5, 0.25]"
        self.metadata[name] = ["Philips", "M", "036Y", kernel, spacing, "-1024", "1", "9", "1.5", "20210427"]

    def write(self, folder: str = "{}_fixed") -> Path:
        for side, long in LONG.items():
            names = [name for name in self.reports if name.startswith(side)]
            self._table(f"radiology_text_reports/{long}_reports.csv", REPORTS, self.reports, names)
            self._table(f"multi_abnormality_labels/{side}_predicted_labels.csv", LABELS, self.labels, names)
            self._table(f"metadata/{long}_metadata.csv", METADATA, self.metadata, names)
            listed = [f"{name}.nii.gz" for name in self.no_chest if name.startswith(side)]
            (self.root / "dataset" / "metadata" / f"no_chest_{side}.txt").write_text("\n".join(listed))
            for name in names:
                study = name.rpartition("_")[0]
                path = self.root / "dataset" / folder.format(side) / study.rpartition("_")[0] / study
                path.mkdir(parents=True, exist_ok=True)
                (path / f"{name}.nii.gz").touch()
        return self.root

    def _table(self, path: str, header: list[str], rows: dict[str, list[str]], names: list[str]) -> None:
        file = self.root / "dataset" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(header)
            writer.writerows([f"{name}.nii.gz", *rows[name]] for name in names if name in rows)


@pytest.fixture
def copy(tmp_path) -> Copy:
    small = Copy(tmp_path)
    small.add("train_1_a_1")
    small.add("train_1_a_2", kernel="B")
    small.add("train_1_b_1", findings="Clear lungs.", positive="")
    small.add("valid_1_a_1", positive="pleural effusion")
    return small


def test_a_volume_becomes_an_item(copy):
    first = read_ct_rate(copy.write(), val=0)[0]
    folder = copy.root / "dataset" / "train_fixed" / "train_1" / "train_1_a"
    assert first["image"] == str(folder / "train_1_a_1.nii.gz")
    assert [first[key] for key in ("id", "study_id", "patient_id")] == ["train_1_a_1", "train_1_a", "train_1"]
    assert first["text"] == f"{NODULE}\nNodule."
    assert first["sections"] == {"technique": "Non-contrast MDCT.", "findings": NODULE, "impression": "Nodule."}
    assert first["labels"] == ["lung nodule"]
    assert first["label"] == [float(name == "lung nodule") for name in CT_RATE_FINDINGS]
    wanted = {"rescale_slope": 1.0, "rescale_intercept": -1024.0, "spacing_mm": [0.25, 0.5, 1.5], "kernel": "YA"}
    assert wanted.items() <= first["meta"].items()
    assert first["meta"]["study_date"] == "20210427"


def test_sex_and_age_are_found_by_the_subgroup_figures(copy):
    found = subgroup_values(read_ct_rate(copy.write()))
    assert (found["sex"][0], found["age band"][0]) == ("male", "18 to 39")


def test_reconstructions_share_study_and_text_and_are_told_apart_by_kernel(copy):
    first, second, other, _ = read_ct_rate(copy.write(), val=0)
    assert first["study_id"] == second["study_id"] != other["study_id"]
    assert first["positives"] == second["positives"] != other["positives"]
    assert (first["meta"]["kernel"], second["meta"]["kernel"]) == ("YA", "B")
    assert first["image"] != second["image"]


def test_the_published_side_is_the_test_and_validation_is_drawn_by_patient(copy):
    for number in range(2, 22):
        copy.add(f"train_{number}_a_1")
        copy.add(f"train_{number}_b_1")
    items = read_ct_rate(copy.write(), val=0.25)
    patients = Counter(side for _, side in {(item["patient_id"], item["split"]) for item in items})
    assert patients == {"train": 15, "val": 6, "test": 1}
    check_splits([{key: value for key, value in item.items() if key != "image"} for item in items])
    sides = {item["id"]: item["split"] for item in items}
    assert sides["valid_1_a_1"] == "test"  # train_1 and valid_1 are two patients
    assert {item["id"]: item["split"] for item in read_ct_rate(copy.root, val=0.25)} == sides
    assert {item["id"]: item["split"] for item in read_ct_rate(copy.root, val=0.25, seed=1)} != sides


@pytest.mark.parametrize(
    ("volumes", "folder", "in_hounsfield"),
    [("fixed", "{}_fixed", 1), ("original", "{}", 0), ("none", "elsewhere_{}", None)],
)
def test_both_releases_and_reports_alone(copy, volumes, folder, in_hounsfield):
    items = read_ct_rate(copy.write(folder), volumes=volumes)
    assert len(items) == 4
    assert {item["meta"].get("in_hounsfield") for item in items} == {in_hounsfield}
    assert all(("image" in item) == (volumes != "none") for item in items)


def test_stored_values_become_hounsfield_units_by_the_metadata(copy):
    """Air is stored as 24 in a file of the first release: the item's slope and intercept make it -1000 HU."""
    copy.write("{}")
    item = next(item for item in read_ct_rate(copy.root, volumes="original") if item["id"] == "train_1_a_1")
    stored = np.full((8, 8, 4), 24.0, np.float32)
    stored[2:6, 2:6] = 1064.0  # soft tissue
    meta = item["meta"]
    values = stored * meta["rescale_slope"] + meta["rescale_intercept"]
    nib.save(nib.Nifti1Image(values, np.diag([*meta["spacing_mm"], 1.0])), item["image"])
    volume = LoadCTd("image")(item)["image"]
    assert (float(volume.min()), float(volume.max())) == (-1000.0, 40.0)
    assert volume.pixdim.tolist() == [0.25, 0.5, 1.5]


def test_an_empty_label_is_unknown_and_so_is_a_volume_without_labels(copy):
    copy.labels["train_1_a_1"][0] = ""
    del copy.labels["valid_1_a_1"]
    items = {item["id"]: item["label"] for item in read_ct_rate(copy.write())}
    assert math.isnan(items["train_1_a_1"][0])
    assert not any(map(math.isnan, items["train_1_a_1"][1:]))
    assert all(map(math.isnan, items["valid_1_a_1"]))


def test_findings_may_be_chosen_renamed_and_asked_of_the_metadata(copy):
    findings = {"nodule": "Lung nodule", "thin": "meta.kernel == YA"}
    items = read_ct_rate(copy.write(), findings=findings, val=0)
    assert [item["label"] for item in items] == [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]


def test_what_is_left_out_is_listed(copy):
    copy.add("train_2_a_1", findings="")
    copy.reports["train_2_a_1"][3] = "Not given."
    copy.add("train_3_a_1")
    copy.no_chest = ["train_3_a_1"]
    root = copy.write()
    (root / "dataset" / "valid_fixed" / "valid_1" / "valid_1_a" / "valid_1_a_1.nii.gz").unlink()
    items = read_ct_rate(root, rejected=root / "rejected.csv")
    assert [item["id"] for item in items] == ["train_1_a_1", "train_1_a_2", "train_1_b_1"]
    refused = {row.id: (row.row, row.reason.split(":")[0]) for row in read_rejected(root / "rejected.csv")}
    assert refused == {
        "train_2_a_1": (5, "no text"),
        "train_3_a_1": (6, "not a chest CT"),
        "valid_1_a_1": (2, "volume file absent"),
    }


def test_the_first_release_needs_its_metadata(copy):
    del copy.metadata["train_1_a_1"]
    assert len(read_ct_rate(copy.write("{}_fixed"))) == 4
    items = read_ct_rate(copy.write("{}"), volumes="original", rejected=copy.root / "rejected.csv")
    assert len(items) == 3
    assert read_rejected(copy.root / "rejected.csv")[0].reason.startswith("no rescale or spacing")


def test_one_side_alone_may_be_read(copy):
    root = copy.write()
    (root / "dataset" / "radiology_text_reports" / "train_reports.csv").unlink()
    assert [item["split"] for item in read_ct_rate(root / "dataset")] == ["test"]


def test_a_damaged_table_is_refused_by_file_and_row(copy):
    copy.labels["valid_1_a_1"][3] = "yes"
    with pytest.raises(ValueError, match=r"valid_predicted_labels.csv, row 2: labels must be 0, 1 or empty.*'yes'"):
        read_ct_rate(copy.write())
    copy.labels["valid_1_a_1"][3] = "0"
    copy.metadata["train_1_a_2"][4] = "0.5"
    with pytest.raises(ValueError, match=r"train_metadata.csv, row 3: .*XYSpacing two in brackets"):
        read_ct_rate(copy.write())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train_1_a_1.nii.gz,a,b,c,d", r"row 5: volume 'train_1_a_1' is also in row 2"),
        ("valid_2_a_1.nii.gz,a,b,c,d", r"'valid_2_a_1' is not named train_PATIENT_SCAN_RECONSTRUCTION"),
        ("scan7.nii.gz,a,b,c,d", r"'scan7' is not named"),
    ],
)
def test_a_name_that_breaks_the_rule_is_refused(copy, line, message):
    path = copy.write() / "dataset" / "radiology_text_reports" / "train_reports.csv"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_ct_rate(copy.root)


def test_a_missing_column_or_folder_is_named(copy, tmp_path):
    path = copy.write() / "dataset" / "radiology_text_reports" / "validation_reports.csv"
    path.write_text(path.read_text().replace("Findings_EN", "Findings"))
    with pytest.raises(ValueError, match=r"validation_reports.csv, row 1: missing column\(s\) \['Findings_EN'\]"):
        read_ct_rate(copy.root)
    with pytest.raises(FileNotFoundError, match=r"train_reports.csv is missing"):
        read_ct_rate(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"volumes": "dicom"}, "volumes='dicom'"),
        ({"text": ["conclusion"]}, "conclusion"),
        ({"val": 1.0}, "val=1.0"),
        ({"findings": ["pneumonia"]}, "pneumonia"),
    ],
)
def test_unknown_options_are_refused(copy, options, message):
    with pytest.raises(ValueError, match=message):
        read_ct_rate(copy.write(), **options)
