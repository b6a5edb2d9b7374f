"""A contact sheet: a film on one page, one row a shot, evenly spaced frames from left to right.

Lengths are in pixels of the sheet, colours 8-bit RGB. Text may be in any script; it is drawn in the
first installed font that has all its characters.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shotstream_jax.files import atomic_file
from shotstream_jax.story import spread_frames
from shotstream_jax.typing import UInt8

_Font = ImageFont.FreeTypeFont
_Colour = tuple[int, int, int]

# Frames are judged against a dark neutral ground, as in grading; text in three steps of brightness,
# each with a contrast of 4.5 to 1 or more (WCAG AA), and one warm colour for what needs attention.
_BACKGROUND: _Colour = (18, 19, 23)
_EDGE: _Colour = (48, 51, 60)
_BRIGHT: _Colour = (240, 241, 244)
_SOFT: _Colour = (176, 181, 192)
_FAINT: _Colour = (124, 130, 144)
_BADGE: _Colour = (242, 178, 74)

# Six tiles of 192 with gaps and margins make 1264 pixels: a laptop's screen without scrolling
# sideways. A tiny film's width (96) goes into 192 twice.
_MARGIN = 36
_GAP = 8
_ROW_GAP = 30  # more than a caption's lines are apart, so that rows read as units
_TILE_WIDTH = 192
_TITLE_SIZE, _LABEL_SIZE, _TEXT_SIZE, _BADGE_SIZE = 30, 18, 16, 15
_LINE = 1.4  # of a font's size, from line to line; tall scripts need more than Latin's 1.2
_CAPTION_LINES = 2  # the sheet shows frames; whole captions are in the story's file

COLUMNS = 6
"""Frames of a shot on a sheet."""

# The fonts of Linux, then of macOS and Windows, those with most scripts among them.
_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
)
"""Fonts for characters that Pillow's own font lacks."""

# A code point that is never assigned: every font draws its "missing" box for it.
_NO_CHARACTER = "\uffff"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContactRow:
    """One row of the sheet.

    Attributes:
      label: name of the shot.
      caption: its own caption.
      seed: its PRNG seed.
      frames: its video frames.
    """

    label: str
    caption: str
    seed: int
    frames: UInt8[np.ndarray, "video_frame height width 3"]

    @classmethod
    def of_film(
        cls,
        film: UInt8[np.ndarray, "video_frame height width 3"],
        *,
        label: str,
        caption: str,
        seed: int,
        columns: int = COLUMNS,
    ) -> "ContactRow":
        """A row with copies of the frames that a sheet of `columns` shows, and no others.

        Frames larger than a tile are copied at a tile's size: the rows of a long film at full size
        would otherwise take 7 MB a shot.
        """
        shown = film[list(spread_frames(0, len(film) - 1, min(columns, len(film))))]
        tile = _tile_size(film.shape[1], film.shape[2])
        if tile[0] < film.shape[2]:
            shown = np.stack([np.asarray(_scaled(frame, tile)) for frame in shown])
        return cls(label=label, caption=caption, seed=seed, frames=shown)


def contact_sheet(
    rows: Sequence[ContactRow], *, title: str, badge: str = "", columns: int = COLUMNS
) -> Image.Image:
    """Draw a film on one page.

    Args:
      rows: the shots, each with one frame or more.
      title: name of the film.
      badge: a warning, such as "random weights".
      columns: frames of each shot.

    Raises:
      ValueError: no shots, a shot without frames, or no columns.
    """
    if not rows or columns < 1:
        raise ValueError(f"A sheet of {len(rows)} shots and {columns} columns; give 1 of each.")
    for row in rows:
        if not len(row.frames):
            raise ValueError(f"Shot {row.label} has no frames to show; film it first.")
    # All shots of a film have the size of its first.
    tile = _tile_size(rows[0].frames.shape[1], rows[0].frames.shape[2])
    width = columns * (tile[0] + _GAP) - _GAP
    strips = [_draw_row(row, width, tile, columns) for row in rows]
    strips.insert(0, _draw_header(title, badge, width))
    height = sum(strip.height + _ROW_GAP for strip in strips) - _ROW_GAP
    sheet = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), _BACKGROUND)
    top = _MARGIN
    for strip in strips:
        sheet.paste(strip, (_MARGIN, top))
        top += strip.height + _ROW_GAP
    return sheet


def save_png(image: Image.Image, path: pathlib.Path | str) -> None:
    """Write a picture, whole or not at all.

    Raises:
      OSError: no room.
    """
    with atomic_file(pathlib.Path(path)) as temporary:
        # Not optimised: searching for the best filters took as long as filming the miniature's
        # story, for a file a few per cent smaller.
        image.save(temporary, format="PNG")


def wrap_text(text: str, font: _Font, width: int, lines: int) -> tuple[str, ...]:
    """Break text into at most `lines` lines of `width` pixels; an ellipsis ends what is cut short.

    Lines break at spaces, or anywhere in a word that is longer than a line.
    """
    # Greedy: each line takes as much as fits. Two lines of a caption need no better breaks.
    rest = _clean(text)
    broken = []
    while rest and len(broken) < lines:
        end = _fitting(rest, font, width)
        if end < len(rest) and len(broken) == lines - 1:
            end = _fitting(rest, font, width - round(font.getlength("…")))
            broken.append(f"{rest[:end].rstrip()}…")
            break
        if end < len(rest) and " " in rest[: end + 1].rstrip():
            end = rest.rindex(" ", 0, end + 1)
        broken.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return tuple(broken)


def font_for(text: str, size: int) -> _Font:
    """The first font that has every character of `text`, else the one that lacks the fewest."""
    fonts = _fonts(size)
    text = _clean(text)
    return min(fonts, key=lambda font: _missing(font, text)) if text else fonts[0]


def _fitting(text: str, font: _Font, width: int) -> int:
    """How many characters fit into `width`; one at least, or no line would ever end."""
    # Measured from the start each time: kerning makes a text's width no sum of its characters'.
    end = 1
    while end < len(text) and font.getlength(text[: end + 1]) <= width:
        end += 1
    return end


def _tile_size(height: int, width: int) -> tuple[int, int]:
    """Width and height of a tile: small frames whole multiples, so that every pixel is even."""
    # Enlarged by 1.5, every other pixel would be twice as wide as its neighbour.
    scale = max(1, round(_TILE_WIDTH / width)) if width <= _TILE_WIDTH else _TILE_WIDTH / width
    return round(width * scale), round(height * scale)


def _draw_header(title: str, badge: str, width: int) -> Image.Image:
    strip = Image.new("RGB", (width, round(_TITLE_SIZE * _LINE)), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    room = width
    if badge:
        # A capsule: the radius is the font's size, and as much room is left at either end.
        text, font = _clean(badge), font_for(badge, _BADGE_SIZE)
        left = width - round(font.getlength(text)) - 2 * _BADGE_SIZE
        box = (left, 4, width - 1, 4 + 2 * _BADGE_SIZE)
        draw.rounded_rectangle(box, radius=_BADGE_SIZE, outline=_BADGE, width=2)
        draw.text(((left + width - 1) / 2, 4 + _BADGE_SIZE), text, _BADGE, font, anchor="mm")
        room = left - 2 * _GAP
    font = font_for(title, _TITLE_SIZE)
    for line in wrap_text(title, font, room, 1):
        draw.text((0, 0), line, _BRIGHT, font)
    return strip


def _draw_row(row: ContactRow, width: int, tile: tuple[int, int], columns: int) -> Image.Image:
    caption_font = font_for(row.caption, _TEXT_SIZE)
    caption = wrap_text(row.caption, caption_font, width, _CAPTION_LINES)
    text_height = round(_LABEL_SIZE * _LINE + len(caption) * _TEXT_SIZE * _LINE) + _GAP
    strip = Image.new("RGB", (width, text_height + tile[1]), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    seed, seed_font = f"seed {row.seed}", font_for("seed", _TEXT_SIZE)
    draw.text((width, 0), seed, _FAINT, seed_font, anchor="ra")
    label_font = font_for(row.label, _LABEL_SIZE)
    room = width - round(seed_font.getlength(seed)) - 2 * _GAP
    for line in wrap_text(row.label, label_font, room, 1):
        draw.text((0, 0), line, _BRIGHT, label_font)
    for index, line in enumerate(caption):
        y = _LABEL_SIZE * _LINE + index * _TEXT_SIZE * _LINE
        draw.text((0, y), line, _SOFT, caption_font)
    shown = spread_frames(0, len(row.frames) - 1, min(columns, len(row.frames)))
    for column, index in enumerate(shown):
        left = column * (tile[0] + _GAP)
        strip.paste(_scaled(row.frames[index], tile), (left, text_height))
        corner = (left + tile[0] - 1, text_height + tile[1] - 1)
        draw.rectangle((left, text_height, *corner), outline=_EDGE)
    return strip


def _scaled(frame: UInt8[np.ndarray, "height width 3"], tile: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(frame)
    # Enlarged pixels stay visible as pixels; Lanczos keeps detail where frames shrink.
    enlarges = tile[0] > image.width
    return image.resize(tile, Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS)


def _clean(text: str) -> str:
    # Half characters cannot be drawn, and a sheet has no use for tabs and line ends.
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


@functools.cache
def _fonts(size: int) -> tuple[_Font, ...]:
    own = ImageFont.load_default(size)
    found = [own] if isinstance(own, _Font) else []
    for name in _FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue  # another system's font
    return tuple(found)


def _missing(font: _Font, text: str) -> int:
    # Pillow does not tell which characters a font has: one drawn like the missing box is missing.
    blank = _drawn(font, _NO_CHARACTER)
    return sum(_drawn(font, character) == blank for character in set(text) - {" "})


# A few fonts times the distinct characters of a story; a Chinese one has a thousand or two.
@functools.lru_cache(maxsize=4096)
def _drawn(font: _Font, character: str) -> bytes:
    side = round(2 * font.size)
    image = Image.new("L", (side, side))
    ImageDraw.Draw(image).text((0, 0), character, 255, font)
    return image.tobytes()
