"""Text can be read: each pair of text and ground that the pages use has the contrast of WCAG's level AA."""

import re
from pathlib import Path

import pytest

import llmjobs

CSS = (Path(llmjobs.__file__).parent / "static" / "llmjobs" / "colours.css").read_text()
LIGHT, DARK = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
ENOUGH = 4.5

PAIRS = [
    *((text, ground) for text in ("text", "muted", "accent") for ground in ("page", "surface", "sunken")),
    *((text, f"{text}-soft") for text in ("accent", "good", "bad", "warn", "calm")),
    *((text, "accent-soft") for text in ("text", "muted")),  # the row of the open job
    ("on-accent", "accent"), ("on-accent", "accent-strong"), ("on-bad", "bad"), ("on-bad", "bad-strong"),
    ("warn", "surface"), ("bad", "surface"),
]  # fmt: skip


def luminance(colour: str) -> float:
    """Relative, 0 to 1, as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("block", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_stands_out_from_its_ground(block: str, text: str, ground: str) -> None:
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    assert contrast(colours[text], colours[ground]) >= ENOUGH


def test_the_measure_is_wcags() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
