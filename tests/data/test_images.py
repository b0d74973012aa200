"""What inference is given becomes items: files, folders, lists, and items of a split."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_medclip.data import image_items


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.dcm", "deep/a.dcm", "deep/scan.nii.gz", "noname", "notes.txt", ".hidden.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_is_searched_for_images_in_order(folder: Path) -> None:
    items = image_items(folder)
    found = [str(Path(item["image"]).relative_to(folder)) for item in items]
    assert found == ["a.dcm", "b.png", "deep/a.dcm", "deep/scan.nii.gz", "noname"]


def test_ids_are_names_where_they_are_unique_and_paths_where_not(folder: Path) -> None:
    ids = [item["id"] for item in image_items(str(folder))]
    assert ids == [str(folder / "a.dcm"), "b.png", str(folder / "deep/a.dcm"), "scan.nii.gz", "noname"]


def test_a_file_a_list_and_items_keep_what_they_are(folder: Path) -> None:
    assert image_items(folder / "b.png") == [{"image": str(folder / "b.png"), "id": "b.png"}]
    assert [item["id"] for item in image_items([folder / "b.png", str(folder / "noname")])] == ["b.png", "noname"]
    item = {"id": "case 1", "image": "x.png", "text": "Normal.", "label": [1.0]}
    (same,) = image_items([item])
    assert same == item
    assert same is not item


def test_any_file_may_be_asked_for_by_name_and_features_have_their_own_key(folder: Path) -> None:
    assert image_items(folder / "notes.txt", key="features") == [
        {"features": str(folder / "notes.txt"), "id": "notes.txt"}
    ]


def test_nothing_to_look_at_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in ("empty", "absent.png"):
        with pytest.raises(FileNotFoundError, match=f"{path}: neither an image file nor a folder"):
            image_items(tmp_path / path)


def test_a_report_goes_to_items_that_bring_none(tmp_path: Path) -> None:
    (tmp_path / "film.png").touch()
    items = image_items([tmp_path / "film.png", {"image": "b.dcm", "id": "b", "text": "Own."}], text="Given.")
    assert [item["text"] for item in items] == ["Own.", "Given."]
    assert "text" not in image_items(tmp_path / "film.png")[0]


def test_a_folder_of_slices_is_one_volume_where_volumes_are_asked_for(tmp_path: Path) -> None:
    for name in ("one/1.dcm", "one/2.dcm", "two/deep/IM1", "two/deep/IM2", "whole.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [item["id"] for item in image_items(tmp_path, volumes=True)] == ["one", "deep", "whole.nii.gz"]
    assert [item["image"] for item in image_items(tmp_path / "one", volumes=True)] == [str(tmp_path / "one")]
    assert len(image_items(tmp_path)) == 5
