"""Page: one self-contained HTML file with a switcher between prompts, readable without a network and by keyboard."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.heat import Heat, number
from monai_medclip.writers.overlay import DEFAULT_STYLE, OverlayStyle, legend_colors, overlay, statements, tint
from monai_medclip.writers.report_text import TintedReport, report_html
from monai_medclip.writers.saving import figure_png
from monai_medclip.writers.truth import TRUTH_COLOR, Truth, outlines

__all__ = ["Panel", "explanation_page", "figure_panel", "overlay_panel"]


class Panel(NamedTuple):
    """What the page shows for one prompt."""

    prompt: str
    facts: Mapping[str, str]  # name: what, in the order shown
    picture: str  # HTML, made by `overlay_panel` or `figure_panel`
    report: TintedReport | None = None  # the words that spoke for this prompt


def overlay_panel(
    image: np.ndarray,
    heat: Heat,
    *,
    style: OverlayStyle = DEFAULT_STYLE,
    truth: Truth | None = None,
    report: TintedReport | None = None,
) -> Panel:
    """A 2D image with its map as a layer of its own, which the reader can fade out.

    Args:
        image: gray (rows, columns) or RGB (rows, columns, 3), 0 to 1, in display order.
        heat: the map (rows, columns).
        style: see `OverlayStyle`.
        truth: where the finding really is, if that is known.
        report: the report with its words weighed for this prompt.

    Raises:
        ValueError: image, map and mask differ in shape, or hold what cannot be drawn.
    """
    overlay(image, heat.values, style)  # refuses what cannot be drawn
    rows, columns = image.shape[:2]
    lines = outlines(truth, (rows, columns))
    points = [" ".join(f"{x + 0.5:.2f},{y + 0.5:.2f}" for x, y in line) for line in lines]
    shapes = "".join(f'<polyline points="{line}"/>' for line in points)
    drawing = f'<svg class="truth" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none">{shapes}</svg>'
    layers = (
        f'<img class="base" alt="image" src="{data_uri(pixels_png(image))}">'
        f'<img class="tint" alt="tint" src="{data_uri(pixels_png(tint(heat.values, style)))}">'
        f"{drawing if lines else ''}"
    )
    shape = f"aspect-ratio:{columns}/{rows};width:min(100%,calc(70vh*{columns / rows:.4f}))"
    picture = f'<div class="layers" style="{shape}">{layers}</div>{_legend(heat, style)}'
    return Panel(heat.prompt, _facts(heat, style, bool(lines)), picture, report)


def figure_panel(
    heat: Heat, figure: Figure, *, style: OverlayStyle = DEFAULT_STYLE, report: TintedReport | None = None
) -> Panel:
    """Any figure of this room as it is: the views of a volume, a grid.

    Args:
        heat: the map that it shows.
        figure: made with the same style.
        style: see `OverlayStyle`.
        report: the report with its words weighed for this prompt.
    """
    picture = f'<img class="figure" alt="{escape(heat.prompt)}" src="{data_uri(figure_png(figure))}">'
    return Panel(heat.prompt, _facts(heat, style, False), picture, report)


def explanation_page(panels: Sequence[Panel], *, title: str) -> str:
    """The page: a list of prompts to choose from, the chosen one's picture, figures and report.

    Arrow keys move between prompts, as in any list of radio buttons, and the digits choose one from anywhere. A policy
    inside the page forbids it to load or send anything, and to run any other script than its own.

    Args:
        panels: one per prompt, in the order shown; the first is shown first.
        title: of the page.

    Returns:
        HTML for `write_whole`, after ``.encode()``.

    Raises:
        ValueError: no panel.
    """
    if not panels:
        raise ValueError("a page needs at least one panel: explain at least one prompt.")
    entries = "".join(_entry(index, panel) for index, panel in enumerate(panels))
    sections = "".join(_section(index, panel) for index, panel in enumerate(panels))
    fades = any('class="tint"' in panel.picture for panel in panels)
    slider = '<label>tint <input id="fade" type="range" min="0" max="100" value="100"></label>' if fades else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n{_policy()}\n<style>{_CSS}</style></head>\n'
        f'<body><header><h1>{escape(title)}</h1><p class="notice">{RESEARCH_USE}</p></header>\n'
        f"<main><form><fieldset><legend>Prompt (keys 1 to 9, arrows)</legend>{entries}</fieldset>{slider}</form>\n"
        f"<div>{sections}</div></main>\n<script>{_SCRIPT}</script></body></html>\n"
    )


def _entry(index: int, panel: Panel) -> str:
    chosen = " checked" if index == 0 else ""
    score = f"<small>{escape(panel.facts['score'])}</small>" if "score" in panel.facts else ""
    radio = f'<input type="radio" name="prompt" value="{index}"{chosen}>'
    return f'<label class="entry">{radio} {escape(panel.prompt)} {score}</label>'


def _section(index: int, panel: Panel) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(what)}</dd>" for name, what in panel.facts.items())
    report = report_html(panel.report) if panel.report else ""
    hidden = "" if index == 0 else " hidden"
    body = f"<h2>{escape(panel.prompt)}</h2>{panel.picture}<dl>{rows}</dl>{report}"
    return f'<section id="panel{index}"{hidden}>{body}</section>'


def _facts(heat: Heat, style: OverlayStyle, outlined: bool) -> dict[str, str]:
    facts = {"score": heat.score_label, "method": heat.method, **statements(heat, style)}
    return facts | ({"cyan outline": "ground truth"} if outlined else {})


def _legend(heat: Heat, style: OverlayStyle) -> str:
    """The color bar: the tint over middle gray, with the map's values at its ends."""
    colors, low, high = legend_colors(heat.values, style)
    shares = np.linspace(0, 1, 65)
    stops = ",".join(f"{to_hex(colors(share))} {100 * share:.1f}%" for share in shares)
    bar = f'<span class="bar" style="background:linear-gradient(90deg,{stops})"></span>'
    return f'<p class="legend">{number(low)} {bar} {number(high)} <span>{escape(heat.unit_label)}</span></p>'


def pixels_png(pixels: np.ndarray) -> bytes:
    """Gray (rows, columns), RGB or RGBA (rows, columns, 3 or 4) in [0, 1] as an 8-bit PNG."""
    stream = BytesIO()
    Image.fromarray((np.asarray(pixels) * 255).round().astype(np.uint8)).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG inside the page itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    rules = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


_CSS = f"""
body{{font:15px/1.45 system-ui,sans-serif;margin:0;color:#1a1a1a;background:#f6f6f4}}
header{{padding:.6em 1.2em;background:#fff;border-bottom:1px solid #ddd}}
h1{{font-size:1.25em;margin:0}} h2{{font-size:1.1em;margin:0 0 .5em}}
.notice{{margin:0;font-weight:600;color:#8c2d04}}
main{{display:grid;grid-template-columns:minmax(13em,19em) minmax(0,1fr);gap:1.2em;padding:1.2em}}
@media(max-width:45em){{main{{grid-template-columns:minmax(0,1fr)}}}}
fieldset{{border:1px solid #ccc;background:#fff;margin:0 0 1em}}
.entry{{display:block;padding:.25em;overflow-wrap:anywhere}} .entry:focus-within{{outline:2px solid #1a5fb4}}
small,.legend,dt{{color:#555}}
.layers{{position:relative;background:#000}}
.layers>*{{position:absolute;inset:0;width:100%;height:100%}} img.figure{{max-width:100%}}
.base,.tint{{image-rendering:pixelated}}
.truth polyline{{fill:none;stroke:{TRUTH_COLOR};stroke-width:2px;vector-effect:non-scaling-stroke}}
.bar{{display:inline-block;width:min(20em,40%);height:.9em;border:1px solid #999;vertical-align:middle}}
dl{{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1em 1em}} dd{{margin:0;overflow-wrap:anywhere}}
figure.report{{margin:1em 0;padding:.6em 1em;background:#fff;border:1px solid #ddd}}
[hidden]{{display:none}}
"""

_SCRIPT = """
const form = document.forms[0], radios = [...form.querySelectorAll('input[name=prompt]')];
const fade = document.getElementById('fade');
function show() {
  for (const radio of radios) document.getElementById('panel' + radio.value).hidden = !radio.checked;
  if (fade) for (const tint of document.querySelectorAll('.tint')) tint.style.opacity = fade.value / 100;
}
form.addEventListener('input', show);
document.addEventListener('keydown', event => {
  const radio = event.ctrlKey || event.altKey || event.metaKey ? undefined : radios[event.key - 1];
  if (radio) { radio.checked = true; radio.focus(); show(); }
});
show();
"""
