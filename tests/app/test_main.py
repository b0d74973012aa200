"""The app as MONAI Label's clients meet it: its real server code, a real datastore, a real bundle."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="monailabel is not installed: pip install 'monai-medclip[label]'")
import nrrd
import SimpleITK as sitk  # noqa: N813 - its usual name
from fastapi.testclient import TestClient
from monailabel.config import settings
from monailabel.interfaces.utils.app import app_instance, clear_cache

from monai_medclip.app import server
from monai_medclip.app.folder import app_folder
from monai_medclip.engines import BundleModel
from monai_medclip.engines.stored_embeddings import weights_digest
from monai_medclip.index import EmbeddingIndex

from .served import PLANTED, radiograph, zipped

BANDS = {"heat 25-50%": 1, "heat 50-75%": 2, "heat 75-100%": 3}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    for number in (3, 4):
        radiograph(folder / f"film{number}.dcm", number)
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, xray_model: BundleModel, studies: Path) -> Path:
    made_by = weights_digest(xray_model.clip, "False", "embedding")
    found = EmbeddingIndex.create(tmp_path_factory.mktemp("index") / "images", xray_model.clip.embed_dim, model=made_by)
    for number in (3, 4):
        embedding = xray_model.embedding(xray_model.study(studies / f"film{number}.dcm"))
        found.add(embedding[None], [{"id": f"old{number}", "patient_id": PLANTED, "text": "A nodule."}], model=made_by)
    return found.folder


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, studies: Path, index: Path, xray_run: Path) -> TestClient:
    monkeypatch.setattr(settings, "MONAI_LABEL_APP_DIR", str(app_folder(tmp_path / "app")))
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", str(studies))
    monkeypatch.setattr(settings, "MONAI_LABEL_APP_CONF", {"bundle": str(xray_run), "index": str(index)})
    monkeypatch.setattr(settings, "MONAI_LABEL_SESSION_PATH", str(tmp_path / "sessions"))
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)  # the watchers of all tests would wake
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTO_UPDATE_SCORING", False)  # asks its own address, where nobody is
    clear_cache()
    yield TestClient(server.app)
    clear_cache()


def asked(client: TestClient, task: str, output: str = "json", /, *, of: str = "film3", **params: Any) -> Any:
    return client.post(f"/infer/{task}", params={"image": of, "output": output}, data={"params": json.dumps(params)})


def volume(reply: Any, folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    path = folder / "result.nrrd"
    path.write_bytes(reply.content)
    values, header = nrrd.read(str(path))
    return values, header


def test_clients_are_told_of_tasks_strategies_scoring_and_training(client: TestClient) -> None:
    info = client.get("/info/").json()
    assert set(info["models"]) == {"heatmap", "findings", "zero_shot", "report_grounding", "similar_cases"}
    assert info["models"]["heatmap"]["labels"] == BANDS
    assert info["models"]["findings"]["type"] == "detection"
    assert {"most_uncertain", "farthest_from_index", "random"} <= set(info["strategies"])
    assert set(info["scoring"]) == {"readers_agreement"}
    assert set(info["trainers"]) == {"reader_probe"}
    names = [name for model in ("heatmap", "report_grounding") for name in info["models"][model]["labels"]]
    assert len(names) == len(set(names))  # viewers keep one list of labels for all tasks


def test_bands_lie_on_the_film_s_grid_where_the_model_s_own_map_is_hot(
    client: TestClient, studies: Path, tmp_path: Path
) -> None:
    model = app_instance().medclip
    native = model.scanner(model.heatmaps(model.study(studies / "film3.dcm"), ["mass"]).maps)[0].numpy()
    film = sitk.ReadImage(str(studies / "film3.dcm"))
    bands, header = volume(asked(client, "heatmap", "image", prompt="mass", result_dtype="uint8"), tmp_path)
    assert (bands.dtype, bands.shape) == (np.uint8, film.GetSize())
    share = native / native.max()
    np.testing.assert_array_equal(bands[..., 0], np.digitize(share, [0.25, 0.5, 0.75]))
    assert set(np.unique(bands)) == {0, 1, 2, 3}
    np.testing.assert_allclose(np.linalg.norm(header["space directions"][:2], axis=1), film.GetSpacing()[:2], rtol=1e-5)
    raw, _ = volume(asked(client, "heatmap", "image", prompt="mass", map="float"), tmp_path)
    np.testing.assert_array_equal(raw[..., 0], native)


def test_what_was_asked_and_found_travels_beside_the_file(client: TestClient, xray_model: BundleModel) -> None:
    says = asked(
        client, "heatmap", prompt="nodule", method=["recommended", "Chefer"], threshold="", cls=["default"]
    ).json()
    assert (says["prompt"], says["method"], says["threshold"]) == ("nodule", "recommended", 0.25)
    assert (says["model_version"], says["units"], says["label_names"]) == (xray_model.version, "logit", BANDS)
    assert 0 <= says["probability"] <= 1
    assert says["faithfulness"]["score"] == says["score"]
    assert "Research use only" in says["intended_use"]
    multipart = asked(client, "heatmap", "all", prompt="nodule")
    assert multipart.headers["content-type"].startswith("multipart/form-data")
    assert b"NRRD0005" in multipart.content


def test_slicer_gets_names_and_colors_if_it_wants_segments(client: TestClient, tmp_path: Path) -> None:
    _, header = volume(asked(client, "heatmap", "image", result_extension=".seg.nrrd"), tmp_path)
    assert [header[f"Segment{number}_Name"] for number in range(3)] == list(BANDS)


def test_findings_are_boxes_with_text_at_their_maps_maxima(client: TestClient, studies: Path) -> None:
    model = app_instance().medclip
    reply = asked(client, "findings", "image")
    points = [box["controlPoints"][0] for box in reply.json()["markups"]]
    scores = asked(client, "findings").json()["scores"]
    assert [point["label"] for point in points] == [f"{one['finding']} p={one['probability']:.2f}" for one in scores]
    study, first = model.study(studies / "film3.dcm"), scores[0]["finding"]
    native = model.scanner(model.heatmaps(study, [first]).maps)[0].numpy()
    peak = np.unravel_index(native.argmax(), native.shape)
    film = sitk.ReadImage(str(studies / "film3.dcm"))
    np.testing.assert_allclose(
        points[0]["position"][:2], film.TransformIndexToPhysicalPoint([*map(int, peak), 0])[:2], atol=1e-3
    )


def test_scores_of_prompts_or_of_all_findings_are_json(client: TestClient, xray_model: BundleModel) -> None:
    assert {one["finding"] for one in asked(client, "zero_shot").json()["scores"]} == set(xray_model.findings)
    prompts = ["A small nodule.", "left effusion"]
    assert {one["finding"] for one in asked(client, "zero_shot", prompts=prompts).json()["scores"]} == set(prompts)


def test_every_sentence_of_a_report_has_its_label_and_its_map(client: TestClient, tmp_path: Path) -> None:
    report = "The heart is enlarged. There is a nodule."
    says = asked(client, "report_grounding", report=report).json()
    assert [report[one["start"] : one["end"]] for one in says["sentences"]] == [
        one["text"] for one in says["sentences"]
    ]
    labels, _ = volume(asked(client, "report_grounding", "image", report=report), tmp_path)
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert labels.any()
    maps, _ = volume(asked(client, "report_grounding", "image", report=report, map="float"), tmp_path)
    assert maps.shape == (2, *labels.shape)


def test_similar_cases_come_from_the_index(client: TestClient) -> None:
    cases = asked(client, "similar_cases", k=2).json()["cases"]
    assert cases[0]["id"] == "old3"
    assert cases[0]["cosine"] == pytest.approx(1, abs=1e-4)
    assert PLANTED not in json.dumps(cases)


@pytest.mark.parametrize(
    ("image", "params", "status"),
    [
        ("/etc/passwd", {}, 400),
        ("../film3", {}, 400),
        ("film3", {"image": "/etc/passwd"}, 400),
        ("film3", {"image": ["film3"]}, 404),
        ("absent", {}, 404),
        ("film3", {"prompt": "x" * 301}, 422),
        ("film3", {"prompt": "a\u0000b"}, 422),
        ("film3", {"method": "LIME"}, 400),
        ("film3", {"threshold": 7}, 400),
        ("film3", {"result_extension": "/../../x"}, 400),
        ("film3", {"archive": "store"}, 400),
    ],
)
def test_what_is_refused_is_refused_in_words(
    client: TestClient, studies: Path, image: str, params: dict[str, Any], status: int
) -> None:
    reply = asked(client, "heatmap", of=image, **params)
    assert reply.status_code == status, reply.text
    assert str(studies) not in reply.text
    assert len(reply.json()["detail"]) > 20


def test_params_that_are_no_json_object_are_refused(client: TestClient) -> None:
    for text in ("{", "[1]"):
        reply = client.post("/infer/heatmap", params={"image": "film3"}, data={"params": text})
        assert (reply.status_code, "params" in reply.json()["detail"]) == (400, True)


def test_a_client_s_own_file_and_its_session_are_explained(client: TestClient, studies: Path) -> None:
    content = (studies / "film3.dcm").read_bytes()
    expected = asked(client, "heatmap", prompt="mass").json()["score"]
    data, files = {"params": '{"prompt": "mass"}'}, {"file": ("a.dcm", content)}
    sent = client.post("/infer/heatmap", params={"output": "json"}, data=data, files=files)
    assert sent.json()["score"] == pytest.approx(expected)
    session = client.put("/session/", files={"files": ("b.dcm", content)}).json()["session_id"]
    kept = client.post("/infer/heatmap", params={"session_id": session, "output": "json"}, data=data)
    assert kept.json()["score"] == pytest.approx(expected)


def links() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    return stream.getvalue()


def taped(name: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zipped({"../../escaped.txt": b"x"})),
        ("a.tar", taped("../../escaped.txt")),
        ("a.tar", links()),
        ("a.zip", links()),
        ("a.tar", zipped({"film.dcm": b"x"})),
        ("a.tar", taped("../../escaped.txt") + zipped({"film.dcm": b"x"})),  # both at once: unpacked by its name
        ("a.zip", b"no archive"),
    ],
)
def test_archives_that_write_elsewhere_make_no_session(
    client: TestClient, tmp_path: Path, name: str, content: bytes
) -> None:
    reply = client.put("/session/", params={"uncompress": True}, files={"files": (name, content)})
    assert reply.status_code == 400, reply.text
    assert not list(tmp_path.rglob("escaped.txt"))


@pytest.mark.parametrize("query", [{"id": "../escaped"}, {"image": "../escaped"}])
def test_the_datastore_s_own_routes_keep_to_their_folder(
    client: TestClient, studies: Path, query: dict[str, str]
) -> None:
    if "id" in query:
        reply = client.delete("/datastore/", params=query)
    else:
        reply = client.put("/datastore/", params=query, files={"file": ("x.dcm", b"x")})
    assert reply.status_code == 400, reply.text
    assert not list(studies.parent.glob("escaped*"))


def test_the_log_names_nobody(client: TestClient, studies: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app_instance().on_init_complete()
    named = studies / f"{PLANTED}.dcm"
    named.write_bytes((studies / "film3.dcm").read_bytes())
    try:
        app_instance().datastore().refresh()
        caplog.clear()
        for task in ("heatmap", "findings", "zero_shot", "report_grounding"):
            reply = asked(client, task, of=PLANTED, prompt=f"nodule of {PLANTED}", report=f"{PLANTED} has a nodule.")
            assert reply.status_code == 200, reply.text
        assert asked(client, "heatmap", of=PLANTED, prompt=PLANTED * 40).status_code == 422
        client.post("/activelearning/most_uncertain")
    finally:
        named.unlink()
    said = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert "/infer/{model} 200" in said  # the test's own client logs addresses, the server does not
    assert PLANTED not in said
    assert str(studies) not in said


def test_nothing_is_asked_of_the_network(xray_run: Path, studies: Path, tmp_path: Path) -> None:
    """In a process whose sockets refuse to leave the machine."""
    script = f"""
import socket
real = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise SystemExit(f"left the machine: {{address}}")
    return real(self, address)
socket.socket.connect = connect
socket.getaddrinfo = lambda host, *rest, **named: (_ for _ in ()).throw(SystemExit(f"looked up {{host}}"))
from monai_medclip.app.main import MedCLIPApp
app = MedCLIPApp({str(tmp_path)!r}, {str(studies)!r}, {{"bundle": {str(xray_run)!r}}})
for task in ("heatmap", "findings", "zero_shot"):
    app.infer({{"model": task, "image": "film3"}})
print("answered")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("answered"), done.stderr[-2000:]


def test_a_conf_that_means_nothing_stops_the_start(tmp_path: Path, studies: Path, xray_run: Path) -> None:
    from monai_medclip.app.main import MedCLIPApp

    with pytest.raises(ValueError, match="--conf bundle"):
        MedCLIPApp(str(tmp_path), str(studies), {})
    with pytest.raises(ValueError, match="modle"):
        MedCLIPApp(str(tmp_path), str(studies), {"bundle": str(xray_run), "modle": "x"})


def test_stock_uploads_are_limited_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCLIP_MAX_UPLOAD_MB", "0.001")
    big = b"0" * (2 << 20)
    for reply in (
        client.put("/session/", files={"files": ("a.dcm", big)}),
        client.put("/datastore/", params={"image": "a"}, files={"file": ("a.dcm", big)}),
        client.post("/infer/heatmap", files={"file": ("a.dcm", big)}),
    ):
        assert (reply.status_code, "send less" in reply.json()["detail"]) == (413, True)


def test_a_model_s_answer_does_not_become_a_reader_s_label(client: TestClient) -> None:
    reply = asked(client, "findings", save_label=True, label_tag="final")
    assert (reply.status_code, "save_label" in reply.json()["detail"]) == (400, True)


def test_what_was_received_is_removed_when_it_is_refused(client: TestClient, studies: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    before = tempfile.tempdir
    tempfile.tempdir = str(temporary)
    try:
        files = {"file": ("a.dcm", (studies / "film3.dcm").read_bytes())}
        reply = client.post("/infer/heatmap", data={"params": '{"prompt": " "}'}, files=files)
        assert reply.status_code == 422
        refused = client.post("/infer/heatmap", data={"params": '{"method": "LIME"}'}, files=files)
        assert refused.status_code == 400
        client.put("/session/", params={"uncompress": True}, files={"files": ("a.zip", b"no archive")})
    finally:
        tempfile.tempdir = before
    assert not list(temporary.iterdir())


def test_slides_are_none_of_ours_and_errors_of_stock_routes_tell_no_names(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.post("/infer/wsi/heatmap", params={"image": "/etc/passwd"}, json={}).status_code == 404
    caplog.clear()
    files = {"label": ("a.nii.gz", b"x")}
    reply = client.put("/datastore/label", params={"image": PLANTED, "tag": "final"}, files=files)
    assert (reply.status_code, "the server failed" in reply.json()["detail"]) == (500, True)
    said = "\n".join(
        f"{record.getMessage()} {record.exc_text or ''}"
        for record in caplog.records
        if not record.name.startswith("httpx")
    )
    assert PLANTED not in said


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEDCLIP_MAX_UPLOAD_MB", "1")
    volume = sitk.Image(256, 256, 100, sitk.sitkInt16)  # 13 MB of zeros
    for name in ("bomb.nii.gz", "bomb.nrrd"):
        sitk.WriteImage(volume, str(tmp_path / name), useCompression=True)
        assert (tmp_path / name).stat().st_size < 1 << 19
        reply = client.post("/infer/heatmap", files={"file": (name, (tmp_path / name).read_bytes())})
        assert (reply.status_code, "once unpacked" in reply.json()["detail"]) == (413, True), reply.text
