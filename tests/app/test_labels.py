from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel")

from monai_medclip.app.labels import (
    FindingsLabels,
    ModelFacts,
    accept_submission,
    all_findings,
    findings_in_markups,
    read_findings,
    save_findings,
    unlabeled_images,
)

from .stores import SERIES, archive_store, folder_of_images, local_store

KNOWN = ("nodule", "pleural effusion", "effusion")
FACTS = ModelFacts("chest", "0123456789ab", KNOWN)
SAID = {"nodule": True, "pleural effusion": False}


def points(*labels: str, **fields: str) -> dict[str, Any]:
    return {"markups": [{"type": "Fiducial", "controlPoints": [{"label": label, **fields} for label in labels]}]}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return folder_of_images(tmp_path / "images", 3)


@pytest.fixture(params=["folder", "archive"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, tuple[str, ...]]:
    """A datastore and its ids."""
    if request.param == "archive":
        return archive_store(tmp_path / "cache"), SERIES
    return local_store(folder_of_images(tmp_path / "images", 3), FindingsLabels), ("x000", "x001", "x002")


def submit(datastore: Any, image_id: str, content: Any, folder: Path, name: str = "label.json") -> None:
    """As PUT /datastore/label does."""
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    datastore.save_label(image_id, str(folder / name), "final", {"label_info": []})


def test_what_is_saved_is_read(store: tuple[Any, tuple[str, ...]]) -> None:
    datastore, (first, second, _) = store
    assert read_findings(datastore, first, KNOWN) is None
    save_findings(datastore, second, SAID, FACTS)
    assert read_findings(datastore, second, KNOWN) == (second, SAID, "chest", "0123456789ab")
    save_findings(datastore, second, {"nodule": False}, FACTS)  # the reader's last word counts
    assert all_findings(datastore, KNOWN) == (((second, {"nodule": False}, "chest", "0123456789ab"),), ())


def test_findings_label_an_image(store: tuple[Any, tuple[str, ...]]) -> None:
    datastore, (first, second, third) = store
    save_findings(datastore, second, SAID, FACTS)
    assert unlabeled_images(datastore) == [first, third]


def test_a_folder_lists_findings_as_the_final_label(images: Path) -> None:
    datastore = local_store(images)
    path = save_findings(datastore, "x001", SAID, FACTS)
    assert datastore.get_labeled_images() == ["x001"]
    assert datastore.get_label_uri("x001", "final") == str(path)
    assert json.loads(path.read_text()) == {
        "format": "monai_medclip findings",
        "version": 1,
        "model": "chest",
        "model_version": "0123456789ab",
        "findings": SAID,
    }
    again = local_store(images)  # another process, or after a restart
    assert again.get_labeled_images() == ["x001"]
    again.remove_label("x001", "final")
    assert read_findings(again, "x001", KNOWN) is None


def test_findings_and_a_segmentation_live_side_by_side(images: Path, tmp_path: Path) -> None:
    datastore = local_store(images)
    (tmp_path / "mask.nii.gz").write_bytes(b"voxels")
    for first, second in (("x000", "x001"), ("x001", "x000")):
        datastore.save_label(first, str(tmp_path / "mask.nii.gz"), "final", {})
        save_findings(datastore, second, SAID, FACTS)
    for image_id in ("x000", "x001"):
        assert Path(datastore.get_label_uri(image_id, "final")).read_bytes() == b"voxels"
        reading = read_findings(datastore, image_id, KNOWN)
        assert reading is not None
        assert reading.findings == SAID


def test_an_archive_gets_nothing(tmp_path: Path) -> None:
    datastore = archive_store(tmp_path / "cache")
    submit(datastore, SERIES[0], points("nodule p=0.93"), tmp_path)  # its client breaks when anything is stored
    accept_submission(datastore, SERIES[0], FACTS)
    assert not datastore._datastore.objects
    reading = read_findings(archive_store(tmp_path / "cache"), SERIES[0], KNOWN)
    assert reading is not None
    assert reading.findings == {"nodule": True, "pleural effusion": False, "effusion": False}


def test_points_that_are_left_are_present() -> None:
    found = findings_in_markups(points("Pleural Effusion p=0.83", " nodule"), KNOWN)
    assert found == {"nodule": True, "pleural effusion": True, "effusion": False}
    assert findings_in_markups(points("effusion p=0.1 (probe 0.2)"), KNOWN)["pleural effusion"] is False
    assert not any(findings_in_markups(points(), KNOWN).values())  # a normal study: all points are deleted
    assert not any(findings_in_markups(points("nodule", positionStatus="undefined"), KNOWN).values())


def test_markups_without_a_list_say_nothing() -> None:
    with pytest.raises(ValueError, match="says nothing about the findings"):
        findings_in_markups({"markups": []}, KNOWN)


def test_unknown_names_are_refused_with_a_list(store: tuple[Any, tuple[str, ...]]) -> None:
    datastore, (first, *_) = store
    with pytest.raises(ValueError, match=r"'F-1', 'fracture p=0.2'.*knows nodule, pleural effusion, effusion"):
        findings_in_markups(points("fracture p=0.2", "nodule", "F-1"), KNOWN)
    with pytest.raises(ValueError, match=r"'fracture', 'nodules'.*knows nodule"):
        save_findings(datastore, first, {"nodules": True, "fracture": False}, FACTS)
    assert read_findings(datastore, first, KNOWN) is None


def test_submissions_are_checked_and_kept_in_our_format(store: tuple[Any, tuple[str, ...]], tmp_path: Path) -> None:
    datastore, (first, second, _) = store
    submit(datastore, first, points("pleural effusion p=0.83"), tmp_path, "F.mrk.json")
    assert read_findings(datastore, first, KNOWN) is None  # nothing counts that was not checked
    accepted = accept_submission(datastore, first, FACTS)
    assert accepted == read_findings(datastore, first, KNOWN)
    assert accepted == (first, {"nodule": False, "pleural effusion": True, "effusion": False}, *FACTS[:2])
    ours = {"format": "monai_medclip findings", "version": 1, "findings": SAID}
    submit(datastore, second, ours, tmp_path)
    assert accept_submission(datastore, second, FACTS) == (second, SAID, *FACTS[:2])
    assert accept_submission(datastore, second, FACTS) is None  # once


@pytest.mark.parametrize(
    "content",
    [
        points("fracture"),
        {"markups": []},
        "{",
        [],
        {"format": "monai_medclip findings", "version": 2, "findings": SAID},
        {"format": "monai_medclip findings", "version": 1, "findings": {"nodule": "yes"}},
        {"format": "monai_medclip findings", "version": 1, "findings": {}},
        " " * (1 << 20) + "{}",
    ],
)
def test_a_bad_submission_replaces_no_good_one(content: Any, images: Path, tmp_path: Path) -> None:
    datastore = local_store(images, FindingsLabels)
    save_findings(datastore, "x000", SAID, FACTS)
    submit(datastore, "x000", content, tmp_path)
    with pytest.raises(ValueError, match="the findings of image 'x000' cannot be used"):
        accept_submission(datastore, "x000", FACTS)
    reading = read_findings(datastore, "x000", KNOWN)
    assert reading is not None
    assert reading.findings == SAID
    assert accept_submission(datastore, "x000", FACTS) is None  # it is gone


def test_a_segmentation_is_no_submission_of_findings(images: Path, tmp_path: Path) -> None:
    datastore = local_store(images, FindingsLabels)
    (tmp_path / "mask.nii.gz").write_bytes(b"voxels")
    datastore.save_label("x000", str(tmp_path / "mask.nii.gz"), "final", {})
    assert accept_submission(datastore, "x000", FACTS) is None
    assert datastore.get_labeled_images() == ["x000"]


def test_damaged_labels_are_listed_and_the_others_read(images: Path) -> None:
    datastore = local_store(images)
    save_findings(datastore, "x000", SAID, FACTS)
    save_findings(datastore, "x001", SAID, FACTS).write_text("{")
    readings = all_findings(datastore, KNOWN)
    assert [reading.image_id for reading in readings.readings] == ["x000"]
    assert len(readings.damaged) == 1
    assert "'x001'" in readings.damaged[0]


def test_a_save_that_fails_leaves_the_former_findings(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datastore = local_store(images)
    save_findings(datastore, "x000", SAID, FACTS)

    def fail(*given: Any, **named: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="no space"):
        save_findings(datastore, "x000", {"nodule": False}, FACTS)
    monkeypatch.undo()
    assert all_findings(datastore, KNOWN).readings[0].findings == SAID
    assert not list(images.rglob("*.unfinished"))


@pytest.mark.parametrize("image_id", ["nobody", "../x000", "/etc/passwd", ""])
def test_findings_of_no_image_are_refused(image_id: str, images: Path, tmp_path: Path) -> None:
    for datastore in (local_store(images), archive_store(tmp_path / "cache")):
        with pytest.raises(ValueError, match=r"image|SeriesInstanceUID"):
            save_findings(datastore, image_id, SAID, FACTS)
    assert not list(tmp_path.rglob("*nobody*"))


def test_a_store_that_cannot_keep_findings_says_so() -> None:
    with pytest.raises(ValueError, match="cannot be kept in a object"):
        save_findings(object(), "x000", SAID, FACTS)  # type: ignore[arg-type]
