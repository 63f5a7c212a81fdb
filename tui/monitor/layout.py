"""How many rows each panel of the overview gets: a pure function of the frame and the terminal's size."""

from dataclasses import dataclass

from .devices import num_device_rows
from .result import num_result_rows
from .view import Frame

WIDE = 100
MEDIUM, TALL = 20, 32
_LEAST_LOSS = 8
_MARGINS = 4
_FEW_ROWS = 9


@dataclass(frozen=True, slots=True)
class Heights:
    """Rows of the panels; 0 hides one. The loss takes what is left."""

    metrics: int
    devices: int
    samples: int
    bottom: int
    result: int | None = None
    """``None``: beside the loss, as high as that."""


def heights(frame: Frame, width: int, height: int) -> Heights:
    """Return what the panels get under the header and above the keys."""
    over, num_pairs = frame.record.state.is_over, len(frame.view.pairs)
    samples = 2 + num_pairs if num_pairs else 0
    if height < MEDIUM:
        room = height - 4
        low = num_result_rows(frame, width - 2) if over else 0
        metrics = 0 if over else min(3, max(0, room - 7))
        return Heights(
            metrics=metrics,
            devices=0,
            samples=0,
            bottom=2 if room > _FEW_ROWS else 0,
            result=min(low, room - 3),
        )
    if width < WIDE:
        most = 4 if height < TALL else 10
        return Heights(
            metrics=0 if over else 3,
            devices=num_device_rows(frame, width - 2, most) if not over else 0,
            samples=min(samples, 3 if height < TALL else 8),
            bottom=3 if height < TALL else 6,
            result=min(8, num_result_rows(frame, width - 2)) if over else 0,
        )
    room = height - 3 - _LEAST_LOSS - (_MARGINS if height >= TALL else 0)
    metrics = 6 if height >= TALL else 4
    devices = num_device_rows(frame, width - 2, max(2, room - metrics - 6)) if not over else 0
    samples = min(samples, 10, max(3, room - metrics - devices - 6)) if samples else 0
    bottom = max(3, min(7 if height < 50 else 12, room - metrics - devices - samples))  # noqa: PLR2004
    return Heights(metrics=metrics, devices=devices, samples=samples, bottom=bottom)
