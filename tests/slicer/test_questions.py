"""What is asked of a server: once, about the right image, with answers kept together and told in words."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="pip install slicer-core, see tests/slicer/README.md")
pytest.importorskip("trame_slicer", reason="pip install trame-slicer slicer-layer-dm, see tests/slicer/README.md")
from MedCLIPLib.client import ServerError
from MedCLIPLib.known_ids import IMAGE_ID_ATTRIBUTE
from MedCLIPLib.questions import Questions, said
from MedCLIPLib.scores import Score

import slicer

from .scenes import AXIAL, FILM, OBLIQUE, add_volume, affine_of, marked, voxels


@pytest.fixture
def logic(scene, server):
    made = Questions(scene)
    made.connect_server(server.address)
    return made


def test_a_volume_is_sent_once_and_its_map_comes_back_on_its_grid(logic, scene, server):
    volume = add_volume(scene, marked((6, 5, 4), (5, 0, 3), np.int16), OBLIQUE)
    assert not logic.is_known(volume)
    answer = logic.run(volume, "nodule")
    np.testing.assert_array_equal(voxels(answer.volume), marked((6, 5, 4), (5, 0, 3)))
    np.testing.assert_allclose(affine_of(answer.volume), OBLIQUE, atol=1e-5)
    assert answer.volume.GetName() == "heat: nodule (recommended)"
    assert answer.volume.GetAttribute("MedCLIP.Prompt") == "nodule"
    assert logic.is_known(volume)
    logic.run(volume, "edema", method="grad_cam")
    assert server.paths("PUT") == ["/session/"]


@pytest.mark.parametrize("change", ["voxels", "place", "server forgot"])
def test_a_changed_volume_or_a_lost_session_is_sent_again(logic, scene, server, change):
    volume = add_volume(scene, marked((6, 5, 4), (5, 0, 3), np.int16), AXIAL)
    logic.run(volume, "nodule")
    if change == "voxels":
        slicer.util.updateVolumeFromArray(volume, np.ascontiguousarray(marked((4, 5, 6), (0, 1, 2), np.int16)))
    elif change == "place":
        volume.SetOrigin(1, 2, 3)
    else:
        server.sessions.clear()
    assert not logic.is_known(volume)
    answer = logic.run(volume, "nodule")
    np.testing.assert_array_equal(voxels(answer.volume), voxels(volume))
    np.testing.assert_allclose(affine_of(answer.volume), affine_of(volume), atol=1e-5)


def test_the_servers_own_copy_is_asked_about_where_there_is_one(logic, scene, server):
    values = marked((6, 5, 4), (1, 2, 3))
    server.images["series 1"] = values, AXIAL
    volume = add_volume(scene, values, AXIAL)
    volume.SetAttribute(IMAGE_ID_ATTRIBUTE, "series 1")
    np.testing.assert_array_equal(voxels(logic.run(volume, "nodule").volume), values)
    assert server.paths("PUT") == []
    logic.always_send = True
    logic.run(volume, "nodule")
    assert server.paths("PUT") == ["/session/"]


@pytest.mark.parametrize(
    ("sample", "address", "sent"),
    [
        ({"id": "case 1", "VolumeNodeName": "volume"}, "", False),
        ({"id": "case 1", "VolumeNodeName": "another"}, "", True),
        ({"id": "volume", "VolumeNodeName": "volume", "session": True}, "", True),  # that module invents such ids
        ({"id": "case 1", "VolumeNodeName": "volume"}, "http://elsewhere:8000", True),
    ],
)
def test_ids_are_taken_over_from_the_monai_label_module(logic, scene, server, monkeypatch, sample, address, sent):
    values = marked((6, 5, 4), (1, 2, 3))
    server.images.update({"case 1": (values, AXIAL), "volume": (values, AXIAL)})
    stock = SimpleNamespace(samples={sample["id"]: sample}, logic=SimpleNamespace(server_url=address or server.address))
    monkeypatch.setattr(slicer, "modules", SimpleNamespace(MONAILabelWidget=stock), raising=False)
    logic.run(add_volume(scene, values, AXIAL), "nodule")
    assert bool(server.paths("PUT")) == sent


def test_a_series_of_slicers_dicom_database_is_asked_about_by_its_uid_where_the_server_has_it(
    logic, scene, server, monkeypatch
):
    values = marked((6, 5, 4), (1, 2, 3))
    asked = []
    database = SimpleNamespace(instanceValue=lambda uid, tag: asked.append((uid, tag)) or "1.2.3")
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    volume = add_volume(scene, values, AXIAL)
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.3.4 1.2.3.5")
    server.images["1.2.3"] = values, AXIAL
    logic.run(volume, "nodule")
    assert (asked, server.paths("PUT")) == ([("1.2.3.4", "0020,000E")], [])
    server.images.clear()
    logic.run(volume, "nodule")
    assert server.paths("PUT") == ["/session/"]


def test_answers_about_a_volume_are_kept_together_sorted(logic, scene):
    volume = add_volume(scene, marked((6, 5, 4), (1, 2, 3)), AXIAL)
    logic.run(volume, "nodule")
    assert logic.scores(volume) == [Score("nodule", 0.83, 1.6)]
    assert logic.findings(volume) == [Score("pleural effusion", 0.88, 2.0), Score("nodule", 0.27, -1.0)]
    assert logic.scores(add_volume(scene, marked((6, 5, 4), (1, 2, 3)), AXIAL)) == []


def test_an_answer_in_words_says_where_and_whether_to_trust_it(logic, scene):
    volume = add_volume(scene, marked((6, 5, 4), (5, 1, 3)), AXIAL)
    words = said(logic.run(volume, "nodule"))
    assert "nodule: p = 0.83, logit 1.60; recommended; demo 0123456789ab." in words
    assert "highest at R -5, A -1, S 6 mm" in words
    assert "Do not trust this map" in words
    assert "not for clinical use" in words
    film = add_volume(scene, marked((6, 5, 1), (5, 1, 0)), FILM)
    assert "highest at" not in said(logic.run(film, "nodule"))


def test_what_cannot_be_asked_is_told(scene, logic):
    volume = add_volume(scene, marked((6, 5, 4), (5, 1, 3)), AXIAL)
    heat = logic.run(volume, "nodule").volume
    with pytest.raises(ValueError, match="is a heatmap: choose the volume that it explains"):
        logic.run(heat, "nodule")
    with pytest.raises(ServerError, match="press Connect"):
        Questions(scene).run(volume, "nodule")


def test_a_failed_connection_leaves_no_server_behind(scene, server, logic):
    server.token = "secret"
    with pytest.raises(ServerError, match="enter user and password, or a token") as caught:
        logic.connect_server(server.address)
    assert caught.value.status == 401
    with pytest.raises(ServerError, match="press Connect"):
        _ = logic.client
    assert logic.connect_server(server.address, user="reader", password="p&ss word").name == "demo"
    assert logic.connect_server(server.address, token="secret").name == "demo"


def test_another_servers_answers_are_not_kept(logic, scene, server):
    volume = add_volume(scene, marked((6, 5, 4), (1, 2, 3)), AXIAL)
    logic.findings(volume)
    logic.connect_server(server.address)
    assert logic.scores(volume) == []
