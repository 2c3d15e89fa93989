"""Pictures that play: an animated GIF, and a web page with play button and slider that needs nothing but itself."""

import base64
import html
import io
import json
from pathlib import Path

from PIL import Image

from common.animation import FRAME_MS
from common.run.files import write_file

Colour = tuple[int, int, int]

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
  * {{ box-sizing: border-box; }}
  body {{ margin: .8rem auto; max-width: {width}px; padding: 0 1rem; color: #222; font: 16px/1.5 sans-serif; }}
  h1 {{ font-size: 1.3rem; margin: 0 0 .2rem; }}
  p {{ margin: .2rem 0 .4rem; color: #555; font-size: .9rem; line-height: 1.35; }}
  img {{ display: block; max-width: 100%; max-height: calc(100vh - 11rem); margin: auto; }}
  .controls {{ display: flex; flex-wrap: wrap; gap: .4rem .8rem; align-items: center; margin: .3rem 0; }}
  button {{ width: 5.5rem; padding: .4rem; font: inherit; cursor: pointer; }}
  input {{ flex: 1 1 8rem; min-width: 6rem; accent-color: #7d4cc2; }}
  output {{ min-width: 9.5rem; text-align: right; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
<div class="controls">
  <button id="play" type="button" title="or the space bar">Play</button>
  <input id="seek" type="range" min="0" value="0" step="1" aria-label="Moment of training">
  <select id="speed" aria-label="Speed">
    <option value="4">slow</option><option value="1" selected>normal</option><option value="0.4">fast</option>
  </select>
  <output id="label" for="seek"></output>
</div>
<img id="picture" alt="Samples, discriminator and curves at the chosen moment of training">
<script>
const labels = {labels};
const pictures = {pictures}.map(data => "data:image/png;base64," + data);
const [picture, play, seek, speed, label] = ["picture", "play", "seek", "speed", "label"].map(
  id => document.getElementById(id));
let timer = null;

function show(index) {{
  seek.value = index;
  picture.src = pictures[index];
  label.textContent = labels[index];
}}
function pause() {{
  clearTimeout(timer);
  timer = null;
  play.textContent = "Play";
}}
function advance() {{
  const next = Number(seek.value) + 1;
  if (next >= pictures.length) return pause();
  show(next);
  timer = setTimeout(advance, {frame_ms} * Number(speed.value));
}}
play.addEventListener("click", () => {{
  if (timer !== null) return pause();
  if (Number(seek.value) === pictures.length - 1) show(0);
  play.textContent = "Pause";
  timer = setTimeout(advance, {frame_ms} * Number(speed.value));
}});
document.addEventListener("keydown", event => {{
  if (event.key !== " " || event.target === play) return;
  event.preventDefault();
  play.click();
}});
seek.addEventListener("input", () => {{ pause(); show(Number(seek.value)); }});
seek.max = pictures.length - 1;
show(0);
</script>
</body>
</html>
"""


def write_page(
    pictures: list[Image.Image], palette: Image.Image, labels: list[str], title: str, text: str, path: Path
) -> None:
    """Write a self-contained HTML page that plays the pictures: play and pause, a slider, three speeds.

    Args:
        pictures: RGB, all of one size; stored as PNG in the colours of `palette`.
        labels: what the page says beside each picture.
        title, text: plain text above the picture.
    """
    stored = [base64.b64encode(_png(picture, palette)).decode() for picture in pictures]
    page = PAGE.format(
        title=html.escape(title),
        text=html.escape(text),
        width=pictures[0].width,
        labels=json.dumps(labels).replace("<", "\\u003c"),
        pictures=json.dumps(stored),
        frame_ms=FRAME_MS,
    )
    write_file(path, page.encode())


def _png(picture: Image.Image, palette: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
