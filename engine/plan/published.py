"""What cannot be done with a model that was published packed: ranks cannot split such weights."""

from collections.abc import Iterable

from ..backends.rules import WHOLE_AS_PUBLISHED
from ..errors import BadInput
from ..specs.job import Job
from ..specs.model import ModelSpec
from ..specs.plan import Rejected, Strategy


def splittable(
    ways: Iterable[Strategy], job: Job, model: ModelSpec
) -> tuple[list[Strategy], tuple[Rejected, ...]]:
    """Return the ways that a model allows, and what it rules out with the reason.

    Raises:
        BadInput: It rules out all of them, because one is pinned.
    """
    given = list(ways)
    kept = [way for way in given if not WHOLE_AS_PUBLISHED.broken(way, model)]
    if len(kept) == len(given):
        return given, ()
    text = f"{WHOLE_AS_PUBLISHED.text} ({model.published_packing})"
    if not kept:
        raise BadInput(f"plan.backend is {job.plan.backend}: {text}", hint=WHOLE_AS_PUBLISHED.hint)
    names = dict.fromkeys(
        f"zero{way.zero_stage}" if way.backend == "zero" else way.backend for way in given if way not in kept
    )
    reason = f"{text}; {WHOLE_AS_PUBLISHED.hint}"
    return kept, (Rejected(choice="; ".join(names), text=reason, source=WHOLE_AS_PUBLISHED.source),)
