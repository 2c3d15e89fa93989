"""Animated GIFs."""

import io
from pathlib import Path

from PIL import Image

from common.run.files import write_file

Colour = tuple[int, int, int]

FRAME_MS = 125
LAST_FRAME_MS = 2500
STEPS = 12  # shades between a colour and white, for smooth edges


def palette_of(inks: list[Colour], fills: list[Colour]) -> Image.Image:
    """A palette for figures: each ink in `STEPS` shades up to white, and the fills as they are.

    A palette chosen from the pictures themselves would drop the colours of small marks.

    Args:
        inks, fills: red, green and blue from 0 to 255; at most 256 entries in all.
    """
    shades = [
        tuple(round(255 + (channel - 255) * step / STEPS) for channel in ink)
        for ink in inks
        for step in range(1, STEPS + 1)
    ]
    entries = [(255, 255, 255), *shades, *fills]
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for entry in entries for channel in entry])
    return palette


def write_gif(pictures: list[Image.Image], palette: Image.Image, width: int, path: Path) -> None:
    """Write an animated GIF, `width` pixels wide, that repeats for ever and rests on its last picture."""
    height = round(pictures[0].height * width / pictures[0].width)
    small = [picture.resize((width, height), Image.Resampling.LANCZOS) for picture in pictures]
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in small]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    write_file(path, buffer.getvalue())
