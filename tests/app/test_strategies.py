from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("monailabel")

from monai_medclip.app.image_answers import ImageAnswers
from monai_medclip.app.labels import ModelFacts, save_findings
from monai_medclip.app.strategies import FarthestFromIndex, MostUncertain, mean_entropy
from monai_medclip.engines import BundleModel
from monai_medclip.index import EmbeddingIndex

from .stores import archive_store, folder_of_images, local_store

IMAGES = 6
REQUEST = {"strategy": "any"}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    return local_store(folder_of_images(tmp_path / "images", IMAGES))


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that the model has read."""
    read, stock = [], BundleModel.study

    def study(model: BundleModel, path: str | Path) -> Any:
        read.append(Path(path).name)
        return stock(model, path)

    monkeypatch.setattr(BundleModel, "study", study)
    return read


def embeddings(model: BundleModel, store: Any) -> torch.Tensor:
    """Of all images in the order of their ids, as the model itself gives them."""
    return torch.stack(
        [model.embedding(model.study(store.get_image_uri(name))) for name in sorted(store.list_images())]
    )


def label(store: Any, model: BundleModel, *names: str) -> None:
    for name in names:
        save_findings(store, name, {model.findings[0]: True}, ModelFacts.of(model))


def test_entropy_in_bits() -> None:
    assert mean_entropy((0.5, 0.5)) == 1.0
    assert mean_entropy((0.0, 1.0)) == 0.0
    assert mean_entropy((0.25,)) == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))
    assert mean_entropy((0.5, 1.0)) == 0.5


def test_the_most_uncertain_image_is_chosen(store: Any, xray_model: BundleModel) -> None:
    strategy = MostUncertain(xray_model)
    expected = {}
    for name in store.list_images():
        scores = xray_model.scores(xray_model.study(store.get_image_uri(name)))
        expected[name] = mean_entropy(tuple(score.probability or 0.0 for score in scores))
    order = sorted(expected, key=lambda name: -expected[name])
    first = strategy(REQUEST, store)
    assert first is not None
    assert (first["id"], first["weight"]) == (order[0], pytest.approx(expected[order[0]], abs=1e-6))
    assert first["explanation"].startswith(f"mean entropy {first['weight']:.3f} of 1 bit, the highest of 6")
    label(store, xray_model, order[0])
    second = strategy(REQUEST, store)
    assert second is not None
    assert second["id"] == order[1]
    label(store, xray_model, *order[1:])
    assert strategy(REQUEST, store) is None


def test_equal_images_come_in_the_order_of_their_ids(tmp_path: Path, xray_model: BundleModel) -> None:
    folder = folder_of_images(tmp_path / "images", 1)
    for name in ("b.dcm", "a.dcm"):
        (folder / name).write_bytes((folder / "x000.dcm").read_bytes())
    chosen = MostUncertain(xray_model)(REQUEST, local_store(folder))
    assert chosen is not None
    assert chosen["id"] == "a"


def test_one_request_reads_so_many_images_and_says_so(store: Any, xray_model: BundleModel, readings: list[str]) -> None:
    strategy = MostUncertain(xray_model, new_images=4)
    first, second, third = (strategy(REQUEST, store) for _ in range(3))
    assert [(one["read"], one["waiting"]) for one in (first, second, third)] == [(4, 2), (2, 0), (0, 0)]
    assert "2 more wait to be read" in first["explanation"]
    assert len(readings) == IMAGES
    assert second == third | {"read": 2}
    hasty = MostUncertain(xray_model, seconds=0.0)
    (Path(store.get_image_uri("x000"))).touch()
    (Path(store.get_image_uri("x001"))).touch()
    assert hasty(REQUEST, store)["read"] == 1  # one at least, so that it goes on


def test_what_was_read_is_known_after_a_restart(store: Any, xray_model: BundleModel, readings: list[str]) -> None:
    before = MostUncertain(xray_model)(REQUEST, store)
    after = FarthestFromIndex(xray_model)(REQUEST, store)  # whichever strategy asks
    assert before is not None
    assert after is not None
    assert (len(readings), after["read"]) == (IMAGES, 0)
    assert MostUncertain(xray_model)(REQUEST, store) == before | {"read": 0}
    os.utime(store.get_image_uri("x003"), ns=(1, 1))  # another file under the old name
    assert MostUncertain(xray_model)(REQUEST, store)["read"] == 1
    assert readings[IMAGES:] == ["x003.dcm"]


def test_kept_answers_are_the_models_and_name_nobody(store: Any, xray_model: BundleModel) -> None:
    fresh = ImageAnswers(xray_model).get(store, "x000")
    kept = ImageAnswers(xray_model).get(store, "x000")
    assert torch.equal(fresh.embedding, kept.embedding)
    assert torch.allclose(kept.embedding, embeddings(xray_model, store)[0], atol=1e-6)
    assert fresh[1:] == kept[1:]
    files = [path for path in Path(store._datastore_path, ".medclip").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert b"Plantagenet" not in path.read_bytes() + str(path).encode()
        assert b"x000" not in path.read_bytes() + path.name.encode()


def test_images_of_a_patient_have_one_digest(tmp_path: Path, xray_model: BundleModel) -> None:
    stores = [local_store(folder_of_images(tmp_path / name, 3, per_patient=2)) for name in ("here", "there")]
    answers = ImageAnswers(xray_model)
    here = [answers.get(stores[0], name).patient for name in ("x000", "x001", "x002")]
    assert here[0] == here[1] != here[2]
    elsewhere = ImageAnswers(xray_model).get(stores[1], "x000").patient
    assert elsewhere != here[0]  # a digest means nothing without the folder's own secret


@pytest.mark.parametrize("kind", [MostUncertain, FarthestFromIndex])
def test_unreadable_images_are_counted_and_passed_over(kind: Any, store: Any, xray_model: BundleModel) -> None:
    for name in ("x000", "x001"):
        Path(store.get_image_uri(name)).write_bytes(b"no DICOM")
    Path(store.get_image_uri("x002")).unlink()
    strategy = kind(xray_model)
    for _ in range(2):
        chosen = strategy(REQUEST, store)
        assert chosen["unreadable"] == 3
        assert chosen["id"] in ("x003", "x004", "x005")
        assert "3 cannot be read" in chosen["explanation"]
    for name in ("x003", "x004", "x005"):
        Path(store.get_image_uri(name)).write_bytes(b"no DICOM")
    assert strategy(REQUEST, store) is None


def test_unreadable_images_do_not_stop_those_that_wait(store: Any, xray_model: BundleModel) -> None:
    for name in ("x000", "x001"):
        Path(store.get_image_uri(name)).write_bytes(b"no DICOM")
    strategy = MostUncertain(xray_model, new_images=2)
    first, second = strategy(REQUEST, store), strategy(REQUEST, store)
    assert (first["id"], first["waiting"], first["unreadable"]) == ("x002", 4, 2)
    assert (second["read"], second["waiting"], second["unreadable"]) == (2, 2, 2)


def test_the_farthest_from_the_index(store: Any, xray_model: BundleModel, tmp_path: Path) -> None:
    vectors = embeddings(xray_model, store)
    index = EmbeddingIndex.create(tmp_path / "index", vectors.shape[1], model="m")
    index.add(vectors[:4], [{"id": str(number)} for number in range(4)], model="m")
    expected = 1 - (vectors @ vectors[:4].T).amax(1)
    chosen = FarthestFromIndex(xray_model, index=index)(REQUEST, store)
    assert chosen is not None
    assert chosen["id"] == f"x{int(expected.argmax()):03d}"
    assert chosen["id"] in ("x004", "x005")
    assert chosen["weight"] == pytest.approx(float(expected.max()), abs=1e-5)
    label(store, xray_model, chosen["id"])
    other = FarthestFromIndex(xray_model, index=index)(REQUEST, store)
    assert other is not None
    assert "4 indexed and 1 labeled" in other["explanation"]
    assert {chosen["id"], other["id"]} == {"x004", "x005"}


def test_without_an_index_the_farthest_from_the_labeled_images(store: Any, xray_model: BundleModel) -> None:
    strategy = FarthestFromIndex(xray_model)
    first = strategy(REQUEST, store)
    assert first is not None
    assert (first["id"], first["weight"]) == ("x000", 0.0)
    assert "nothing yet to be far from" in first["explanation"]
    label(store, xray_model, "x002", "x003")
    vectors = embeddings(xray_model, store)
    distances = 1 - (vectors @ vectors[2:4].T).amax(1)
    second = strategy(REQUEST, store)
    assert second is not None
    assert second["id"] == f"x{int(distances.argmax()):03d}"
    assert second["weight"] == pytest.approx(float(distances.max()), abs=1e-5)


def test_an_index_of_another_model_is_refused(xray_model: BundleModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="embeddings of 3 numbers, the model's have"):
        FarthestFromIndex(xray_model, index=EmbeddingIndex.create(tmp_path / "index", 3, model="m"))


def test_without_probabilities_the_first_image(
    store: Any, xray_model: BundleModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = BundleModel.scores
    monkeypatch.setattr(BundleModel, "scores", lambda *a: [score._replace(probability=None) for score in stock(*a)])
    chosen = MostUncertain(xray_model)(REQUEST, store)
    assert chosen is not None
    assert chosen["id"] == "x000"
    assert "no unlabeled image has zero-shot probabilities" in chosen["explanation"]


def test_images_of_an_archive(tmp_path: Path, xray_model: BundleModel) -> None:
    """The archive's datastore has no place for facts about an image: they are kept in its cache."""
    folder = folder_of_images(tmp_path / "images", 3)
    series = {"1.2.3.1": "x000", "1.2.3.2": "x001", "1.2.3.3": "x002"}
    store = archive_store(tmp_path / "cache")
    strategy = MostUncertain(xray_model, lambda datastore, image_id: folder / f"{series[image_id]}.dcm")
    first, second = strategy(REQUEST, store), strategy(REQUEST, store)
    assert first is not None
    assert (first["read"], second) == (3, first | {"read": 0})
    local = MostUncertain(xray_model)(REQUEST, local_store(folder))
    assert local is not None
    assert series[first["id"]] == local["id"]
