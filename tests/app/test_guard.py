"""Work in threads for a bounded time, while the event loop answers others."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'monai-medclip[label]'")
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from monai_medclip.app import guard
from monai_medclip.app.guard import GuardedRoute, in_thread
from monai_medclip.app.limits import Refused


def test_work_that_takes_too_long_is_answered_503_and_ends_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCLIP_TIMEOUT_S", "0.05")
    ended = threading.Event()

    def slow() -> None:
        time.sleep(0.3)
        ended.set()

    start = time.perf_counter()
    with pytest.raises(Refused, match=r"no answer within 0\.05 s") as caught:
        asyncio.run(in_thread(slow))
    assert caught.value.status == 503
    assert time.perf_counter() - start < 0.25
    assert ended.wait(2)


def test_work_that_waited_too_long_never_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCLIP_TIMEOUT_S", "0.05")
    release, begun = threading.Event(), threading.Event()
    held = [guard._POOL.submit(release.wait, 5) for _ in range(guard.THREADS)]
    with pytest.raises(Refused):
        asyncio.run(in_thread(begun.set))
    release.set()
    assert all(one.result() for one in held)
    assert not begun.wait(0.2)


def test_others_are_answered_while_one_works() -> None:
    async def both() -> list[str]:
        done: list[str] = []

        async def work() -> None:
            await in_thread(lambda: time.sleep(0.2))
            done.append("work")

        async def other() -> None:
            await asyncio.sleep(0.01)
            done.append("other")

        await asyncio.gather(work(), other())
        return done

    assert asyncio.run(both()) == ["other", "work"]


def test_errors_and_successes_get_one_line_and_the_same_headers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="monai_medclip")
    router = APIRouter(prefix="/medclip", route_class=GuardedRoute)

    @router.get("/{kind}")
    def answer(kind: str) -> str:
        if kind == "refused":
            raise Refused("too long", 413)
        if kind == "broken":
            raise OSError("folder/of/somebody")
        return kind

    app = FastAPI()
    app.include_router(router)
    client = TestClient(app)
    answers = [client.get(f"/medclip/{kind}") for kind in ("good", "refused", "broken")]
    assert [one.status_code for one in answers] == [200, 413, 500]
    assert {one.headers["cache-control"] for one in answers} == {"no-store"}
    assert answers[1].json() == {"detail": "too long"}
    assert "/home" not in answers[2].text
    lines = [one.getMessage().removesuffix(" ms") for one in caplog.records if one.name == guard.__name__]
    assert [line.rsplit(" ", 1)[0] if "failed" not in line else line for line in lines] == [
        "GET /medclip/{kind} 200",
        "GET /medclip/{kind} 413",
        "GET /medclip/{kind} failed: OSError",
        "GET /medclip/{kind} 500",
    ]
