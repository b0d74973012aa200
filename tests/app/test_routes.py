"""The routes over real, untrained models: what they answer, what they refuse, and what they keep to themselves."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("monailabel", reason="monailabel is not installed: pip install 'monai-medclip[label]'")
from fastapi.testclient import TestClient

from monai_medclip.app import answers, routes, server
from monai_medclip.engines import BundleModel
from monai_medclip.index import EmbeddingIndex

from .served import PLANTED, REPORT, StandIn, ct_series, radiograph, zipped

XRAY, CT = "film", "volume"
HOT = {XRAY: "a large mass", CT: "left pleural effusion"}


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory, xray_run: Path, ct_run: Path) -> dict[str, StandIn]:
    folder = tmp_path_factory.mktemp("studies")
    film, volume = radiograph(folder / "film.dcm"), ct_series(folder / "volume")
    known = {XRAY: film, CT: volume, "text": xray_run / "run.json"}
    return {name: StandIn(BundleModel.open(run), known) for name, run in ((XRAY, xray_run), (CT, ct_run))}


@pytest.fixture
def client(request: pytest.FixtureRequest, apps: dict[str, StandIn], monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(routes, "app_instance", lambda: apps[getattr(request, "param", XRAY)])
    return TestClient(server.app, headers={"Host": "localhost"})


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    for key in list(routes.uploads._kept):
        routes.uploads.forget(key)


def pixels(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(BytesIO(base64.b64decode(data))))


def asked(client: TestClient, route: str, **body: Any) -> Any:
    response = client.post(f"/medclip/{route}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def refused(response: Any, status: int, words: str) -> str:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    assert words in response.json()["detail"]
    return response.json()["detail"]


both = pytest.mark.parametrize(("client", "study"), [(XRAY, XRAY), (CT, CT)], indirect=["client"])


@both
def test_the_overlay_is_hottest_where_the_map_is(client: TestClient, study: str, apps: dict[str, StandIn]) -> None:
    found = asked(client, "heatmap", study=study, prompt=HOT[study], threshold=0)
    model = apps[study].medclip
    maps = model.heatmaps(model.study(apps[study].known[study]), [HOT[study]])
    values = maps.maps[0].as_tensor().numpy()
    peak = np.unravel_index(values.argmax(), values.shape)
    overlay, image = pixels(found["overlay"]), pixels(found["image"])
    assert (found["here"]["row"], found["here"]["column"]) == peak[-2:]
    assert overlay[..., 3][peak[-2:]] == 255
    assert overlay.shape[:2] == image.shape == values.shape[-2:]
    assert found["maximum"] == values.max() > 0
    assert found["score"]["logit"] == maps.scores[0].logit
    if study == CT:
        assert (found["slice"], found["slices"]) == (peak[0], len(values))


@pytest.mark.parametrize("client", [CT], indirect=True)
def test_slices_share_one_scale(client: TestClient, apps: dict[str, StandIn]) -> None:
    model = apps[CT].medclip
    values = model.heatmaps(model.study(apps[CT].known[CT]), [HOT[CT]]).maps[0].as_tensor().numpy()
    for index in (0, len(values) // 2, len(values) - 1):
        found = asked(client, "heatmap", study=CT, prompt=HOT[CT], threshold=0, slice=index)
        share = np.clip(values[index] / values.max(), 0, 1)
        assert np.abs(pixels(found["overlay"])[..., 3] / 255 - share).max() < 0.003
        assert found["slice"] == index


def test_below_the_threshold_nothing_is_tinted(client: TestClient) -> None:
    whole, half = (
        pixels(asked(client, "heatmap", study=XRAY, prompt="mass", threshold=share)["overlay"])[..., 3]
        for share in (0, 0.5)
    )
    assert (half[whole < 126] == 0).all()
    assert (half[whole > 128] == whole[whole > 128]).all()
    assert 0 < (half > 0).sum() < (whole > 0).sum()


@both
def test_findings_come_highest_first_with_what_made_them(
    client: TestClient, study: str, apps: dict[str, StandIn]
) -> None:
    found = asked(client, "findings", study=study)
    model = apps[study].medclip
    logits = [score["logit"] for score in found["scores"]]
    assert logits == sorted(logits, reverse=True)
    assert sorted(score["finding"] for score in found["scores"]) == sorted(model.findings)
    assert all(0 < score["probability"] < 1 for score in found["scores"])
    assert found["model_version"] == model.version
    assert found["intended_use"] == "Research use only, not a medical device"


@pytest.mark.parametrize("client", [CT], indirect=True)
def test_a_volume_keeps_its_proportions(client: TestClient, apps: dict[str, StandIn]) -> None:
    found = asked(client, "picture", study=CT)
    image = apps[CT].medclip.study(apps[CT].known[CT]).image
    assert found["spacing_mm"] == pytest.approx(image.pixdim[1:].tolist(), rel=1e-4)
    assert found["slice"] == found["slices"] // 2
    assert pixels(found["image"]).shape == tuple(image.shape[2:])


@both
def test_words_and_sentences_stand_where_the_report_has_them(client: TestClient, study: str) -> None:
    found = asked(client, "report", study=study, report=REPORT)
    sentences = ["Large right pneumothorax.", "Left upper lung zone mass.", "The heart is not enlarged."]
    assert [one["text"] for one in found["sentences"]] == sentences
    assert all(REPORT[one["start"] : one["end"]].strip() == one["text"] for one in found["sentences"])
    words = {REPORT[word["start"] : word["end"]]: word for word in found["words"]}
    assert {"pneumothorax", "mass", "heart"} <= set(words)
    heaviest = max(found["words"], key=lambda word: abs(word["weight"]))
    assert heaviest["color"].startswith("#")
    for one in found["sentences"]:
        assert pixels(one["overlay"]).shape[:2] == pixels(one["image"]).shape == pixels(found["image"]).shape


def test_another_slice_of_a_report_asks_the_network_no_second_time(
    client: TestClient, apps: dict[str, StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asked(client, "report", study=XRAY, report=REPORT)
    monkeypatch.setattr(apps[XRAY].medclip, "ground", None)
    again = asked(client, "report", study=XRAY, report=REPORT, slice=0)
    assert [one["overlay"] for one in again["sentences"]] == [one["overlay"] for one in first["sentences"]]


def test_similar_cases_hide_patients_and_the_study_itself(
    client: TestClient, apps: dict[str, StandIn], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused(client.post("/medclip/similar", json={"study": XRAY}), 404, "--conf index")
    model = apps[XRAY].medclip
    own = model.embedding(model.study(apps[XRAY].known[XRAY]))
    index = EmbeddingIndex.create(tmp_path / "index", len(own), model="test")
    near, far = own + 0.1 * torch.ones_like(own), -own
    records = [{"id": name, "patient_id": PLANTED, "text": f"report {name}"} for name in (XRAY, "far", "near")]
    index.add(torch.stack([own, far, near]), records, model="test")
    monkeypatch.setattr(apps[XRAY], "index", index)
    found = asked(client, "similar", study=XRAY, k=2)
    assert [one["id"] for one in found["cases"]] == ["near", "far"]
    assert found["cases"][1]["score"] == pytest.approx(-1)
    assert found["cases"][0]["text"] == "report near"
    assert PLANTED not in str(found)


def test_what_can_be_asked_is_told(client: TestClient, apps: dict[str, StandIn]) -> None:
    info = client.get("/medclip/info").json()
    assert info["findings"] == list(apps[XRAY].medclip.findings)
    assert info["methods"][0] == "recommended"
    assert (info["modality"], info["has_index"]) == ("radiograph", False)
    assert info["limits"]["upload_bytes"] == 1 << 30
    assert client.get("/medclip/studies").json() == [{"id": name, "name": name} for name in sorted(apps[XRAY].known)]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"study": "nobody"}, 404, "no such study"),
        ({"study": "upload-0"}, 404, "no such study"),
        ({"study": "../film"}, 422, "neither slashes"),
        ({"study": "/etc/passwd"}, 422, "neither slashes"),
        ({"study": "a\\b"}, 422, "neither slashes"),
        ({"study": "film\0"}, 422, "neither slashes"),
        ({"prompt": "x" * 301}, 422, "at most 300 characters"),
        ({"prompt": " "}, 422, "printable"),
        ({"method": "guessing"}, 422, "recommended"),
        ({"cls": "maybe"}, 422, "include"),
        ({"slice": 1}, 422, "this study has 1"),
        ({"threshold": 1}, 422, "threshold"),
        ({"colour": "red"}, 422, "colour"),
    ],
)
def test_bad_questions_are_refused_in_words(client: TestClient, body: dict[str, Any], status: int, words: str) -> None:
    said = refused(client.post("/medclip/heatmap", json={"study": XRAY, "prompt": "mass", **body}), status, words)
    assert "x" * 301 not in said


def test_too_long_reports_too_many_cases_and_floods_are_refused(client: TestClient) -> None:
    refused(client.post("/medclip/report", json={"study": XRAY, "report": "x" * 20_001}), 422, "20000")
    refused(client.post("/medclip/similar", json={"study": XRAY, "k": 51}), 422, "50")
    refused(client.post("/medclip/heatmap", content=b"[" * (2 << 20)), 413, "send less")
    chunks = (b" " * 65536 for _ in range(32))  # of a length that nobody declares
    refused(client.post("/medclip/heatmap", content=chunks), 413, "send less")


def test_a_bad_file_is_named_by_its_id_not_by_its_path(client: TestClient, apps: dict[str, StandIn]) -> None:
    said = refused(client.post("/medclip/findings", json={"study": "text"}), 422, "text: ")
    assert str(apps[XRAY].known["text"].parent) not in said
    assert "run.json" not in said


def test_an_error_of_ours_tells_no_details(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError(f"folder/of/{PLANTED}")

    monkeypatch.setattr(answers, "picture", broken)
    said = refused(client.post("/medclip/picture", json={"study": XRAY}), 500, "KeyError")
    assert PLANTED not in said


def dropped(client: TestClient, *files: tuple[str, bytes]) -> Any:
    return client.post("/medclip/studies", files=[("files", file) for file in files])


def test_a_dropped_radiograph_gets_the_map_of_the_one_that_the_server_has(
    client: TestClient, apps: dict[str, StandIn]
) -> None:
    content = apps[XRAY].known[XRAY].read_bytes()
    theirs = asked(client, "heatmap", study=XRAY, prompt="mass")["overlay"]
    for files in ([("a.dcm", content)], [("a.zip", zipped({"deep/down/IM1": content, "read me.txt": b"hello"}))]):
        response = dropped(client, *files)
        assert response.status_code == 200, response.text
        assert asked(client, "heatmap", study=response.json()["id"], prompt="mass")["overlay"] == theirs


@pytest.mark.parametrize("client", [CT], indirect=True)
def test_dropped_slices_become_the_volume_in_any_order(client: TestClient, apps: dict[str, StandIn]) -> None:
    slices = [(path.name, path.read_bytes()) for path in sorted(apps[CT].known[CT].iterdir())]
    theirs = asked(client, "heatmap", study=CT, prompt="nodule")["overlay"]
    for files in (slices[::-1], [("ct.zip", zipped(dict(slices)))]):
        response = dropped(client, *files)
        assert response.status_code == 200, response.text
        assert asked(client, "heatmap", study=response.json()["id"], prompt="nodule")["overlay"] == theirs


@pytest.mark.parametrize("client", [CT], indirect=True)
def test_a_file_that_the_model_cannot_read_is_named_as_its_sender_does_and_forgotten(
    client: TestClient, apps: dict[str, StandIn]
) -> None:
    content = apps[XRAY].known[XRAY].read_bytes()  # no CT
    said = refused(dropped(client, ("my film.dcm", content)), 422, "CT")
    assert "/" not in said.replace("https://", "")
    assert len(routes.uploads) == 0


def test_what_is_no_image_or_leads_astray_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(dropped(client, ("letter.txt", b"hello")), 415, "letter.txt")
    refused(dropped(client, ("evil.zip", zipped({"../../evil.dcm": b"x"}))), 422, "outside its own folder")
    refused(dropped(client, ("bomb.zip", zipped({"0.dcm": bytes(64 << 20)}))), 413, "unpacks")
    refused(client.post("/medclip/studies", data={"files": "text"}), 422, "no file")
    monkeypatch.setenv("MEDCLIP_MAX_UPLOAD_MB", "1")
    refused(dropped(client, ("large.dcm", bytes(3 << 20))), 413, "send less")
    assert len(routes.uploads) == 0


def test_the_log_names_nobody(
    client: TestClient, apps: dict[str, StandIn], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    prompt = f"mass of {PLANTED}"
    file = apps[XRAY].known[XRAY].read_bytes()
    key = dropped(client, (f"{PLANTED}.dcm", file)).json()["id"]
    for route, body in (
        ("findings", {}),
        ("heatmap", {"prompt": prompt}),
        ("heatmap", {"prompt": prompt, "method": PLANTED}),
        ("heatmap", {"prompt": PLANTED * 40}),
        ("report", {"report": f"{PLANTED} has a mass."}),
    ):
        client.post(f"/medclip/{route}", json={"study": key, **body})
    client.post("/medclip/findings", json={"study": PLANTED})
    dropped(client, (f"{PLANTED}.zip", b"PK\x03\x04broken"))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("monai_medclip")]
    assert len(ours) == 8
    assert ours[0].startswith("POST /medclip/studies 200 ")
    everything = caplog.text + "".join(capfd.readouterr())
    assert PLANTED not in everything
    assert key not in everything
    assert "/tmp" not in "".join(ours)


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    for part in ("", "static/medclip.css", "static/medclip.js", "static/server.js", "static/show.js"):
        response = client.get(f"/medclip/{part}")
        assert response.status_code == 200
        assert response.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' data:;")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in response.text
        assert "https://" not in response.text
        assert "innerHTML" not in response.text
    for name in ("index.html", "..%2froutes.py", "%2e%2e/routes.py"):
        assert client.get(f"/medclip/static/{name}").status_code == 404
    assert asked(client, "picture", study=XRAY)["slices"] == 1
    assert client.get("/medclip/info").headers["cache-control"] == "no-store"
