"""How a plan reads on a terminal."""

from ..engine.prepare import Prepared


def plan_text(prepared: Prepared) -> str:
    """Return the plan with its reasons, and what was rejected with the reason against it."""
    strategy = prepared.plan.strategy
    rows = [
        (f"{reason.about} = {getattr(strategy, reason.about, '')}".removesuffix(" = "), reason.text)
        for reason in prepared.plan.reasons
    ]
    rows += [(f"not {rejected.choice}", rejected.text) for rejected in prepared.plan.rejected]
    width = max(len(head) for head, _ in rows)
    lines = [f"  {head:<{width}}  {text}" for head, text in rows]
    return "\n".join([f"plan for {prepared.loaded.name}", *lines])


def files_text(prepared: Prepared) -> str:
    """Return every file that a run would write, each under its name."""
    return "\n".join(f"--- {name}\n{text}" for name, text in prepared.files.items())
