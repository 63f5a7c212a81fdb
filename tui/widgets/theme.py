"""The palettes: dark, light and of high contrast, of colours that 256-colour terminals show as they are."""

from collections.abc import Mapping
from typing import Final

from textual.theme import Theme

DARK: Final = Theme(
    name="ftwiz",
    primary="#87afd7",
    secondary="#5f8787",
    accent="#5fd7af",
    success="#87d787",
    warning="#ffd75f",
    error="#ff8787",
    foreground="#d0d0d0",
    background="#121212",
    surface="#1c1c1c",
    panel="#262626",
    dark=True,
    variables={
        "bright": "#eeeeee",
        "dim": "#949494",
        "faint": "#4e4e4e",
        "curve": "#5fd7af",
        "envelope": "#5f8787",
        "other": "#d787d7",
        "mark": "#ffaf5f",
        "weights": "#5f87d7",
        "gradients": "#d7af5f",
        "optimizer": "#af87d7",
        "activations": "#5fd7af",
        "overhead": "#949494",
    },
)
LIGHT: Final = Theme(
    name="ftwiz-light",
    primary="#005faf",
    secondary="#5f8787",
    accent="#00875f",
    success="#008700",
    warning="#af5f00",
    error="#af0000",
    foreground="#303030",
    background="#eeeeee",
    surface="#e4e4e4",
    panel="#dadada",
    dark=False,
    variables={
        "bright": "#080808",
        "dim": "#626262",
        "faint": "#bcbcbc",
        "curve": "#00875f",
        "envelope": "#87afaf",
        "other": "#870087",
        "mark": "#af5f00",
        "weights": "#005faf",
        "gradients": "#af8700",
        "optimizer": "#8700af",
        "activations": "#00875f",
        "overhead": "#767676",
    },
)
CONTRAST: Final = Theme(
    name="ftwiz-contrast",
    primary="#ffffff",
    secondary="#ffffff",
    accent="#ffffff",
    success="#ffffff",
    warning="#ffff00",
    error="#ff8787",
    foreground="#eeeeee",
    background="#080808",
    surface="#080808",
    panel="#121212",
    dark=True,
    variables={
        "bright": "#ffffff",
        "dim": "#bcbcbc",
        "faint": "#767676",
        "curve": "#ffffff",
        "envelope": "#8a8a8a",
        "other": "#ffff00",
        "mark": "#ffff00",
        "weights": "#ffffff",
        "gradients": "#bcbcbc",
        "optimizer": "#8a8a8a",
        "activations": "#eeeeee",
        "overhead": "#767676",
    },
)
THEME: Final = DARK
THEMES: Final = {"dark": DARK, "light": LIGHT, "contrast": CONTRAST}
"""By the word that ``FTWIZ_THEME`` chooses them with."""
CHOICE = "FTWIZ_THEME"


def theme_for(environ: Mapping[str, str]) -> Theme:
    """Return the palette that the user wants, or that fits what the terminal tells of its background.

    Without colour (``NO_COLOR``) it is the one of high contrast. ``COLORFGBG`` is set by rxvt, konsole and
    others: its last number is the background, 7 and 15 are light.
    """
    wanted = THEMES.get(environ.get(CHOICE, ""))
    if wanted is not None:
        return wanted
    if environ.get("NO_COLOR"):
        return CONTRAST
    return LIGHT if environ.get("COLORFGBG", "").rpartition(";")[2] in {"7", "15"} else DARK
