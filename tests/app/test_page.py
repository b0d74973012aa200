"""The page in headless Chromium: asked by mouse and by keyboard, seen in its pixels, and silent to the outside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("monailabel", reason="monailabel is not installed: pip install 'monai-medclip[label]'")
from monai_medclip.app import routes, server
from monai_medclip.engines import BundleModel
from monai_medclip.index import EmbeddingIndex

from .looking import alpha, asked, heat, opened, screenshot, slide
from .served import REPORT, StandIn, chromium, ct_series, radiograph, serving

RULES = (Path(__file__).parent / "accessible.js").read_text()
FOCUS = """() => {
  const {id, tagName} = document.activeElement, {outlineStyle, outlineWidth} = getComputedStyle(document.activeElement);
  return {id, tag: tagName, outline: outlineStyle === "none" ? 0 : parseFloat(outlineWidth)};
}"""
STORED = "async () => localStorage.length + sessionStorage.length + (await indexedDB.databases()).length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory, xray_run: Path, ct_run: Path) -> dict[str, StandIn]:
    folder = tmp_path_factory.mktemp("studies")
    film, volume = radiograph(folder / "film.dcm"), ct_series(folder / "volume")
    known = {"film": film, "volume": volume, "<img src=x>": film}
    return {name: StandIn(BundleModel.open(run), known) for name, run in (("film", xray_run), ("volume", ct_run))}


@pytest.fixture(scope="module")
def app_in_use() -> dict[str, StandIn]:
    return {}


@pytest.fixture(scope="module")
def address(app_in_use: dict[str, StandIn]) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (routes, __import__("monailabel.app", fromlist=["app"])):
            patch.setattr(module, "app_instance", lambda: app_in_use["app"])
        app_in_use["app"] = StandIn(None, {})  # type: ignore[arg-type]  # for the start, which asks no model
        with serving(server.app) as base:
            yield base


@pytest.fixture
def study(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "film")


@pytest.fixture
def page(
    browser: Any, apps: dict[str, StandIn], app_in_use: dict[str, StandIn], address: str, study: str
) -> Iterator[Any]:
    """The page with its list of studies; at the end nothing has failed, left the server, or stayed behind."""
    app_in_use["app"] = apps[study]
    context = browser.new_context(viewport={"width": 1200, "height": 1100}, reduced_motion="reduce")
    opened = context.new_page()
    failures: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.on("request", lambda sent: asked.append(sent.url))
    opened.goto(f"{address}/medclip/")
    opened.locator("#open:enabled").wait_for()
    yield opened
    expected = "status of 4"  # Chromium's own line for an answer of 4xx
    assert [text for text in failures if expected not in text] == []
    assert {url.split("/medclip/")[0] for url in asked if not url.startswith("data:")} == {address}
    assert opened.evaluate(STORED) == 0
    assert context.cookies() == []
    context.close()


volumes_too = pytest.mark.parametrize("study", ["film", "volume"], indirect=True)


@volumes_too
def test_a_prompt_tints_the_picture_where_the_map_is_hot(page: Any, study: str, apps: dict[str, StandIn]) -> None:
    opened(page, study)
    assert alpha(page).max() == 0
    asked(page, "left pleural effusion")
    share = heat(apps[study], study, "left pleural effusion")
    share = share if share.ndim == 2 else share[share.max(axis=(1, 2)).argmax()]
    shown = alpha(page)
    assert np.abs(shown - np.where(share >= 0.25, share, 0))[np.abs(share - 0.25) > 0.01].max() < 0.005
    assert shown.flat[share.argmax()] == 1

    slide(page, "threshold", 0)
    slide(page, "opacity", 0)
    without = screenshot(page)
    slide(page, "opacity", 100)
    change = np.abs(screenshot(page) - without).max(axis=2)
    scaled = Image.fromarray(share.astype(np.float32)).resize(change.shape[::-1], Image.Resampling.BILINEAR)
    hot, cold = change[np.asarray(scaled) > 0.5], change[np.asarray(scaled) < 0.005]
    assert hot.mean() > 40
    assert len(cold) == 0 or cold.mean() < 4
    row, column = np.unravel_index(share.argmax(), share.shape)
    rows, columns = change.shape
    height, width = share.shape
    at = change[int((row + 0.5) * rows / height), int((column + 0.5) * columns / width)]
    assert at > 60


def test_sliders_hide_and_fade_without_asking_the_server(page: Any, study: str, apps: dict[str, StandIn]) -> None:
    opened(page, study)
    asked(page, "mass")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    share = heat(apps[study], study, "mass")
    for threshold in (0, 50, 90):
        slide(page, "threshold", threshold)
        assert (alpha(page) > 0).sum() == pytest.approx(
            (np.round(255 * share) >= max(1, 2.55 * threshold)).sum(), abs=2
        )
    slide(page, "opacity", 30)
    assert page.locator("#overlay").evaluate("canvas => getComputedStyle(canvas).opacity") == "0.3"
    assert page.inner_text("#opacity-value") == "30 %"
    assert sent == []


@pytest.mark.parametrize("study", ["volume"], indirect=True)
def test_slices_turn_by_wheel_and_by_slider(page: Any, study: str, apps: dict[str, StandIn]) -> None:
    opened(page, study)
    asked(page, "nodule")
    share = heat(apps[study], study, "nodule")
    peak = int(share.max(axis=(1, 2)).argmax())
    assert page.input_value("#slice") == str(peak)
    step = 1 if peak < len(share) - 1 else -1
    page.locator("#viewport").hover()
    page.mouse.wheel(0, -100 * step)  # up, toward the head
    page.locator("#caption", has_text=f"Slice {peak + step + 1} of {len(share)}").wait_for()
    slide(page, "threshold", 0)
    assert np.abs(alpha(page) - share[peak + step]).max() < 0.005
    assert f"maximum is in slice {peak + 1}" in page.inner_text("#caption")
    page.focus("#slice")
    page.keyboard.press("Home")
    page.locator("#caption", has_text=f"Slice 1 of {len(share)}").wait_for()
    assert np.abs(alpha(page) - share[0]).max() < 0.005


@volumes_too
def test_everything_works_by_keyboard_and_focus_is_seen(page: Any, study: str) -> None:
    keys = page.keyboard

    def tab_to(wanted: str) -> None:
        for _ in range(40):
            keys.press("Tab")
            focus = page.evaluate(FOCUS)
            assert focus["outline"] >= 2 or focus["tag"] == "BODY", focus
            if focus["id"] == wanted:
                return
        raise AssertionError(f"#{wanted} cannot be reached by the Tab key")

    tab_to("study")
    keys.type(study)
    keys.press("Tab")
    keys.press("Enter")
    page.locator("#show:enabled").wait_for()
    tab_to("prompt")
    keys.type("consolidation")
    keys.press("Enter")
    page.locator("#caption", has_text="“consolidation”").wait_for()
    if study == "volume":
        tab_to("slice")
        before = page.input_value("#slice")
        keys.press("ArrowLeft")
        page.locator("#status", has_text=f"Slice {before} of").wait_for()
    tab_to("threshold")
    keys.press("End")
    assert (alpha(page) > 0).mean() < 0.2
    tab_to("report")
    keys.type(REPORT)
    tab_to("weigh")
    keys.press("Enter")
    page.locator(".sentence").first.wait_for()
    keys.press("Tab")
    keys.press("Space")
    page.locator("#caption", has_text="Large right pneumothorax").wait_for()
    assert page.locator(".sentence").first.get_attribute("aria-pressed") == "true"


@volumes_too
def test_the_rules_for_screen_readers_and_contrast_are_kept(page: Any, study: str) -> None:
    assert page.evaluate(RULES) == []
    opened(page, study)
    asked(page, "mass")
    page.fill("#report", REPORT)
    page.click("#weigh")
    page.locator(".sentence").first.wait_for()
    for details in page.locator("summary").all():
        details.click()
    assert page.evaluate(RULES) == []
    assert "Research use only, not a medical device" in page.inner_text("header")
    box = page.locator(".notice").bounding_box()
    page.evaluate("() => scrollTo(0, 10000)")
    assert page.locator(".notice").bounding_box() == box  # it stays in sight
    assert page.locator(".bar span").first.evaluate("bar => getComputedStyle(bar).transitionProperty") == "none"


@pytest.mark.parametrize("width", [320, 700, 970, 1060, 1600])
def test_nothing_is_cut_off_at_any_width(page: Any, study: str, width: int) -> None:
    opened(page, study)
    asked(page, "mass")
    page.click("#ninths-details summary")
    page.set_viewport_size({"width": width, "height": 900})
    wide = """() => [...document.querySelectorAll("html, section, table")].filter((one) =>
      one.scrollWidth > one.clientWidth || one.getBoundingClientRect().right > innerWidth).map((one) => one.id)"""
    assert page.evaluate(wide) == []
    button = page.get_by_role("button", name="Show where: pneumothorax").bounding_box()
    assert button["height"] < 40 < button["width"]  # its word stands on one line


def test_the_rules_find_what_breaks_them(page: Any) -> None:
    page.evaluate("""() => {
      document.querySelector("main").insertAdjacentHTML("beforeend", "<h1>Two</h1><button></button><img src='data:,'>");
      document.getElementById("status").textContent = "pale";
      document.getElementById("status").className = "help";
      document.querySelector("#status").style.color = "#aaaaaa";
    }""")
    found = "\n".join(page.evaluate(RULES))
    assert "one h1" in found
    assert "<button></button> has no name" in found
    assert re.search(r"#status has a contrast of [12]\.", found)


def test_the_picture_is_told_in_words(page: Any, study: str, apps: dict[str, StandIn]) -> None:
    opened(page, study)
    asked(page, "mass")
    words = page.get_attribute("#picture", "alt")
    assert re.fullmatch(
        r"film\. “mass”: score -?[\d.e-]+ \(logit\), probability .+; "
        r"maximum at the (center|(left|center|right) (upper|middle|lower) third) of the picture\.",
        words,
    )
    share = heat(apps[study], study, "mass")
    row = 3 * (int(share.argmax()) // share.shape[1]) // share.shape[0]
    assert ("upper", "middle", "lower")[row] in words.replace("the center of the picture", "middle")
    page.click("#ninths-details summary")
    cells = [int(text.split()[0]) for text in page.locator("#ninths td").all_inner_texts() if "%" in text]
    assert sum(cells) == pytest.approx(100, abs=5)
    assert len(cells) == 9


def test_a_finding_can_be_shown_and_a_sentence_chosen(page: Any, study: str) -> None:
    opened(page, study)
    assert page.locator("#findings tbody tr").count() == 6
    page.get_by_role("button", name="Show where: cardiomegaly").click()
    page.locator("#caption", has_text="“cardiomegaly”").wait_for()
    first = alpha(page)
    page.fill("#report", REPORT)
    page.click("#weigh")
    page.get_by_role("button", name="The heart is not enlarged.").click()
    page.locator("#caption", has_text="The heart is not enlarged.").wait_for()
    assert not np.array_equal(alpha(page), first)
    tints = page.locator(".sentence span").evaluate_all("spans => spans.map(each => each.style.backgroundColor)")
    assert len({color for color in tints if color}) > 1


def test_dropped_files_are_opened_and_bad_ones_named(page: Any, study: str, apps: dict[str, StandIn]) -> None:
    film = apps[study].known["film"]
    page.set_input_files("#files", film)
    page.locator("#status", has_text="film.dcm is open").wait_for()
    asked(page, "mass")
    page.set_input_files("#files", {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"hello"})
    page.locator("#error", has_text="letter.txt: there is no image").wait_for()
    data = page.evaluate_handle(
        """bytes => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], "dropped.dcm"));
      return data;
    }""",
        list(film.read_bytes()),
    )
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    page.locator("#status", has_text="dropped.dcm is open").wait_for()
    assert page.inner_text("#error") == ""


def test_text_from_elsewhere_stays_text(page: Any) -> None:
    pictures = page.locator("img").count()
    opened(page, "<img src=x>")
    page.fill("#report", "A <b>mass</b>. <img src=x onerror=alert(1)> No nodule.")
    page.click("#weigh")
    page.locator(".sentence").first.wait_for()
    asked(page, "<img src=y>")
    assert page.locator("img").count() == pictures
    assert "<b>mass</b>" in page.inner_text("#sentences")


def test_similar_cases_come_from_the_index_if_there_is_one(
    page: Any, study: str, apps: dict[str, StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert page.locator("#similar-section").is_hidden()
    app = apps[study]
    own = app.medclip.embedding(app.medclip.study(app.known[study]))
    index = EmbeddingIndex.create(tmp_path / "index", len(own), model="test")
    records = [{"id": "near", "labels": ["mass", "nodule"], "text": "A <b>mass</b>."}, {"id": "far"}]
    index.add(torch.stack([own, -own]), records, model="test")
    monkeypatch.setattr(app, "index", index)
    page.reload()
    page.locator("#open:enabled").wait_for()
    opened(page, study)
    page.get_by_role("button", name="Find similar cases").click()
    page.locator("#similar tbody tr").first.wait_for()
    assert page.locator("#similar tbody tr").all_inner_texts() == [
        "near\t1.000\tmass, nodule\tA <b>mass</b>.",
        "far\t-1.000\t\t",
    ]
    assert page.inner_text("#status") == "2 similar cases found."
    assert page.evaluate(RULES) == []


def test_a_bad_question_is_answered_in_words(page: Any, study: str) -> None:
    opened(page, study)
    page.locator("#prompt").evaluate("input => { input.maxLength = 1000; }")
    page.fill("#prompt", "x" * 301)
    page.press("#prompt", "Enter")
    page.locator("#error", has_text="at most 300 characters").wait_for()
    asked(page, "mass")
    assert page.inner_text("#error") == ""
