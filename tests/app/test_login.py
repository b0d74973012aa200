"""Our routes and the page behind MONAI Label's own authentication."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="monailabel is not installed: pip install 'monai-medclip[label]'")
import requests

from .login_server import PASSWORD
from .served import chromium

SCRIPT = Path(__file__).parent / "login_server.py"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("server"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = next((line for line in process.stdout if line.startswith("serving ")), None)
        assert said, "the server did not start"
        yield said.split()[1]
        process.stdin.close()


def token(address: str, name: str) -> dict[str, str]:
    form = {"grant_type": "password", "username": name, "password": PASSWORD}
    answer = requests.post(f"{address}/auth/token", data=form, timeout=10).json()
    return {"Authorization": f"Bearer {answer['access_token']}"}


@pytest.mark.parametrize("route", ["findings", "heatmap", "picture", "report", "similar", "studies"])
def test_without_a_token_nothing_is_told(address: str, route: str) -> None:
    for headers in ({}, {"Authorization": "Bearer forged"}):
        answer = requests.post(f"{address}/medclip/{route}", json={"study": "film"}, headers=headers, timeout=10)
        assert answer.status_code == 401
    stock = requests.post(f"{address}/infer/heatmap", params={"image": "film"}, timeout=10)  # as ours replaces it
    assert stock.status_code == 401
    for get in ("info", "studies"):
        assert requests.get(f"{address}/medclip/{get}", timeout=10).status_code == 401


def test_an_upload_is_not_read_before_its_sender_is_known(address: str) -> None:
    files = {"files": ("film.dcm", b"x" * 100)}
    assert requests.post(f"{address}/medclip/studies", files=files, timeout=10).status_code == 401


def test_a_token_opens_our_routes_and_the_stock_ones_to_users_only(address: str) -> None:
    ours, stock = f"{address}/medclip/studies", f"{address}/auth/token/valid"
    reader, guest = token(address, "reader"), token(address, "guest")
    assert requests.get(ours, headers=reader, timeout=10).json() == [{"id": "film", "name": "film"}]
    assert requests.get(stock, headers=reader, timeout=10).json()["username"] == "reader"
    refused = requests.get(ours, headers=guest, timeout=10)
    assert refused.status_code == 403
    assert "monailabel-user" in refused.json()["detail"]


def test_the_page_asks_for_name_and_password_and_goes_on(address: str) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"{address}/medclip/")
        page.locator("#username").wait_for()
        assert page.evaluate("() => document.activeElement.id") == "username"
        page.keyboard.type("reader")
        page.keyboard.press("Tab")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.locator("#error", has_text="Name or password are wrong").wait_for()
        page.fill("#password", PASSWORD)
        page.press("#password", "Enter")
        page.locator("#open:enabled").wait_for()
        assert page.locator("#login-section").is_hidden()
        page.click("#open")
        page.locator("#status", has_text="film is open").wait_for()
        assert page.evaluate("() => localStorage.length + sessionStorage.length + document.cookie.length") == 0
