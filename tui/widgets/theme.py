"""The palette: calm, dark, and made of colours that a 256-colour terminal shows as they are."""

from typing import Final

from textual.theme import Theme

THEME: Final = Theme(
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
        "mark": "#ffaf5f",
    },
)
