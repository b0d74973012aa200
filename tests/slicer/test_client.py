"""The client and its words, in any environment: the standard library is enough."""

from __future__ import annotations

import socket
import tracemalloc

import numpy as np
import pytest
from MedCLIPLib.client import Client, Image, ServerError, ServerInfo, checked_prompt
from MedCLIPLib.multipart import Part, decode, encode
from MedCLIPLib.scores import Score, merged, read_cases, read_scores, sorted_scores

AXIAL = np.diag([-1.0, -1.0, 2.0, 1.0])
CT = (np.arange(24, dtype=np.float32).reshape(4, 3, 2), AXIAL)


def test_a_form_comes_back_as_it_was_written_even_with_line_ends_and_dashes_in_it():
    parts = {"params": Part("", b'{"prompt": "\xc3\xa9"}'), "files": Part("a.nii.gz", b"\r\n--\r\n\x00\xff--\n")}
    body = encode(parts)
    assert decode(body.content_type, body.content) == parts


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nno name\r\n--x--"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ncut'),
    ],
)
def test_a_damaged_form_is_refused(kind, content):
    with pytest.raises(ValueError, match=r"boundary|name|cut off"):
        decode(kind, content)


def test_a_large_form_is_read_in_little_more_memory_than_it_has():
    body = encode({"image": Part("a.nrrd", bytes(20_000_000))})
    tracemalloc.start()
    decode(body.content_type, body.content)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(body.content)
    tracemalloc.stop()


def test_info_comes_from_our_route(server):
    info = Client(server.address).info()
    assert info == ServerInfo(
        "demo", "demo 0123456789ab", "CT", ("recommended", "grad_cam"), True, "Research use only."
    )


def test_info_comes_from_the_stock_route_where_ours_is_not_served(server):
    server.own_routes = False
    assert Client(server.address).info() == ServerInfo("stock", "", "", ("gscorecam",), False, "Research use only.")


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", " http://127.0.0.1:{port}/ ", "http://localhost:{port}"])
def test_an_address_may_be_written_in_several_ways(server, address):
    assert Client(address.format(port=server.server_address[1])).info().name == "demo"


@pytest.mark.parametrize("address", ["", "ftp://host", "http://", "host:port", "http://user@host", "http://h/?q=1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="write it like http"):
        Client(address)


def test_a_heatmap_is_asked_by_the_stock_route(server, tmp_path):
    server.images["case/1 a"] = CT
    file = tmp_path / "map.nrrd"
    answer = Client(server.address).heatmap(Image(id="case/1 a"), " nodule ", file, method="grad_cam")
    method, path, params = server.requests[-1]
    assert (method, path) == ("POST", "/infer/heatmap?image=case%2F1+a&output=all")
    assert params == {"prompt": "nodule", "map": "float", "method": "grad_cam"}
    assert answer.score == Score("nodule", 0.83, 1.6)
    assert (answer.method, answer.model) == ("grad_cam", "demo 0123456789ab")
    assert file.read_bytes().startswith(b"NRRD")
    assert [found.name for found in tmp_path.iterdir()] == ["map.nrrd"]  # the server's "../../map.nrrd" goes nowhere


def test_the_servers_default_method_is_left_to_it(server, tmp_path):
    server.images["a"] = CT
    Client(server.address).heatmap(Image(id="a"), "nodule", tmp_path / "map.nrrd")
    assert "method" not in server.requests[-1][2]


def test_a_session_stands_in_for_an_id(server, tmp_path):
    file = tmp_path / "DOE^JANE.nii.gz"
    file.write_bytes(b"voxels")
    client = Client(server.address)
    session = client.upload(file)
    assert server.sessions[session] == b"voxels"
    assert server.filenames == ["volume.nii.gz"]  # the patient's name stays here
    assert client.has_session(session)
    assert not client.has_session("gone")
    client.findings(Image(session=session))
    assert server.requests[-1][1] == f"/infer/findings?session_id={session}&output=json"


def test_an_image_is_known_or_not(server):
    server.images["a b"] = CT
    assert Client(server.address).has_image("a b")
    assert not Client(server.address).has_image("c")


@pytest.mark.parametrize(("prompt", "words"), [("  ", "is empty"), ("x" * 301, "301 characters, 300 are allowed")])
def test_a_prompt_that_cannot_be_asked_is_refused_before_anything_is_sent(server, tmp_path, prompt, words):
    with pytest.raises(ValueError, match=words):
        Client(server.address).heatmap(Image(id="a"), prompt, tmp_path / "map.nrrd")
    assert server.requests == []
    assert checked_prompt("x" * 300) == "x" * 300


@pytest.mark.parametrize(
    ("status", "detail", "words"),
    [
        (400, "prompt 'xyzzy' has no known word: rephrase it.", "^prompt 'xyzzy' has no known word: rephrase it.$"),
        (401, "Not authenticated", "sign in"),
        (403, "Role", "may not do this"),
        (404, "no such image", r"does not know this\. no such image \(task 'findings', image a\)"),
        (413, "", "larger than the server accepts"),
        (422, [{"msg": "Field required"}], "Field required"),
        (500, "", r"failed \(status 500\). See its log"),
        (503, "", "busy"),
        (307, "", "sends us elsewhere"),
    ],
)
def test_errors_are_told_in_words(server, status, detail, words):
    server.status, server.detail = status, detail
    with pytest.raises(ServerError, match=words) as caught:
        Client(server.address).findings(Image(id="a"))
    assert caught.value.status == status


def test_a_server_that_is_not_there_is_said_to_be_so():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(ServerError, match="not there: start it, or check the address and port"):
            Client(f"http://127.0.0.1:{taken.getsockname()[1]}").info()


def test_a_server_that_does_not_answer_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
        with pytest.raises(ServerError, match="in time"):
            client.findings(Image(id="a"))


def test_https_to_a_plain_server_is_told(server):
    with pytest.raises(ServerError, match="does not speak https"):
        Client(server.address.replace("http:", "https:")).info()


def test_signing_in(server):
    server.token = "secret"
    client = Client(server.address)
    assert client.wants_sign_in()
    with pytest.raises(ServerError, match="sign in"):
        client.info()
    token = client.sign_in("reader", "p&ss word")
    assert token == "secret"
    assert Client(server.address, token=token).info().name == "demo"
    with pytest.raises(ServerError, match="check user and password"):
        client.sign_in("reader", "wrong")


def test_servers_without_authentication_do_not_have_its_route(server):
    assert not Client(server.address).wants_sign_in()


def test_proxies_are_not_asked(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Client(server.address).info().name == "demo"


def test_scores_are_sorted_and_the_newer_one_counts():
    low, high, tie = Score("a", 0.1, -2.0), Score("b", 0.9, 2.0), Score("c", 0.9, 3.0)
    assert sorted_scores([low, high, tie]) == [tie, high, low]
    assert merged([low, high], [Score("b", 0.05, -3.0)]) == [low, Score("b", 0.05, -3.0)]


@pytest.mark.parametrize(
    "row",
    [
        {"finding": "a", "logit": 1.0},
        {"finding": "a", "logit": float("nan"), "probability": 0.5},
        {"finding": "a", "logit": 0.0, "probability": 1.5},
    ],
)
def test_what_is_no_score_is_refused(row):
    with pytest.raises(ValueError, match="score"):
        read_scores([row])


def test_labels_stand_in_for_a_missing_report(server):
    cases = Client(server.address).similar_cases(Image(id="a"))
    assert [(case.id, case.cosine, case.text) for case in cases] == [
        ("case 7", 0.9, "A nodule."),
        ("case 2", 0.5, "edema"),
    ]
    assert read_cases([{"id": 1, "cosine": 0, "labels": ["x", "y"]}])[0].text == "x, y"
