"""Why an attempt failed: evidence in, a diagnosis out, by the table of ``causes``. Pure.

When no rule fits, the diagnosis is ``unknown`` and shows the last error.
"""

import re
import signal
from collections.abc import Iterable

from ..specs.run import Diagnosis
from .causes import RULES, Rule
from .evidence import Evidence, Killed
from .policy import describe_exit, signal_name

UNKNOWN = "unknown"
STALL = "stall"
FULL_BELOW_BYTES = 1 << 20
LAST_LINES = 3
"""How many of the last lines an unknown cause is shown with, when no line looks like an error."""

_FROM_OUTSIDE = "somebody or something outside ended it: a person, a scheduler, a memory watcher"
_ERROR_LINE = re.compile(
    r"^(?:\[rank\d+\]:\s*)?[\w.]*(Error|Exception|Interrupt)\b|\b(error|fatal):", re.IGNORECASE
)

_EXCEPTION = re.compile(
    r"(?:\[rank\d+\]:\s*)?(?!torch\.distributed|subprocess\.|.*Inner error is reported)"
    r"[\w.]*(Error|Exception): "
)
"""What Python prints last of an exception; those of launchers tell only that a rank failed."""


def diagnose(evidence: Evidence) -> Diagnosis:
    """Return the cause that the evidence shows, or ``unknown`` with the last error line."""
    if evidence.stalled is not None:
        return _stalled(evidence)
    was_killed = evidence.killed is not None and evidence.killed.signal == signal.SIGKILL
    if evidence.new_oom_kills and (was_killed or evidence.vanished_rank is not None):
        return _oom_killed(evidence)
    if evidence.killed is not None and was_killed:
        return _by_rule(_rules("scheduler"), evidence.lines, evidence) or _killed(evidence.killed)
    causes = tuple(rule for rule in RULES if not rule.is_consequence)
    texts = (*evidence.errors, *evidence.alert_messages)
    return (
        _by_rule(causes, texts, evidence)
        or _by_rule(causes, evidence.lines, evidence)
        or _by_disk(evidence)
        or _by_exit(evidence)
        or _by_consequence(evidence)
        or _unknown(evidence)
    )


def _rules(*causes: str) -> tuple[Rule, ...]:
    return tuple(rule for cause in causes for rule in RULES if rule.cause == cause)


def _by_consequence(evidence: Evidence) -> Diagnosis | None:
    """Find what ranks say of each other, when nothing tells what came before."""
    texts = (*evidence.errors, *evidence.alert_messages, *evidence.lines)
    if (own := _own_error(texts)) is not None:
        return _unknown(evidence, own)
    found = _by_rule(_rules("ranks_timeout", "crashed"), texts, evidence)
    if found is None and evidence.killed is not None:
        found = _killed(evidence.killed)
    if found is None and evidence.vanished_rank is not None:
        found = _vanished(evidence)
    return found or _by_rule((rule for rule in RULES if rule.is_consequence), texts, evidence)


def _by_rule(rules: Iterable[Rule], texts: Iterable[str], evidence: Evidence) -> Diagnosis | None:
    known = tuple(texts)
    for rule in rules:
        shown = next((text for text in known if rule.pattern.search(text)), None)
        if shown is not None:
            return Diagnosis(
                cause=rule.cause,
                message=rule.message + _silent_ranks(rule, evidence),
                evidence=shown.strip(),
                advice=rule.advice,
                command=rule.command.format(run=evidence.run_id) if rule.command else None,
            )
    return None


def _silent_ranks(rule: Rule, evidence: Evidence) -> str:
    """Name the ranks that do not complain of the others: those are waited for."""
    if rule.cause not in {"ranks_timeout", "ranks_lost"} or len(evidence.rank_texts) < 2:  # noqa: PLR2004 - one is alone
        return ""
    silent = [rank for rank, text in sorted(evidence.rank_texts.items()) if not rule.pattern.search(text)]
    if not silent or len(silent) == len(evidence.rank_texts):
        return ""
    names = ", ".join(map(str, silent))
    return f": rank {names} does not complain" if len(silent) == 1 else f": ranks {names} do not complain"


def _stalled(evidence: Evidence) -> Diagnosis:
    return Diagnosis(
        cause=STALL,
        message="the run stood still",
        evidence=evidence.stalled,
        advice="see what the rank that is behind was doing: its log, and stall-rank-N.txt (needs py-spy)",
    )


def _by_disk(evidence: Evidence) -> Diagnosis | None:
    # On a full disk the logs end before the error: the disk itself is the witness.
    if evidence.free_bytes is None or evidence.free_bytes >= FULL_BELOW_BYTES:
        return None
    rule = next(rule for rule in RULES if rule.cause == "disk_full")
    seen = f"{evidence.free_bytes} bytes are free on the disk of the run folder"
    return Diagnosis(cause=rule.cause, message=rule.message, evidence=seen, advice=rule.advice)


def _own_error(texts: Iterable[str]) -> str | None:
    """Return an exception that no rule knows and that is not about other ranks: that one came first."""
    errors = (text.strip() for text in texts if _EXCEPTION.match(text))
    return next((text for text in errors if not any(rule.pattern.search(text) for rule in RULES)), None)


def _by_exit(evidence: Evidence) -> Diagnosis | None:
    # A watchdog or a library aborts a rank because of something: SIGABRT itself is no cause.
    if evidence.killed is not None and evidence.killed.signal != signal.SIGABRT:
        return _killed(evidence.killed)
    if evidence.launcher_code is not None and evidence.launcher_code < 0:
        message = f"the launcher {describe_exit(evidence.launcher_code)}"
        return Diagnosis(cause="killed", message=message, advice=_FROM_OUTSIDE)
    return None


def _vanished(evidence: Evidence) -> Diagnosis:
    return Diagnosis(
        cause="rank_died",
        message=f"rank {evidence.vanished_rank} died without a word",
        evidence=evidence.failed_rank,
        advice=f"{_FROM_OUTSIDE}; see ftwiz logs {evidence.run_id} --rank {evidence.vanished_rank}",
    )


def _oom_killed(evidence: Evidence) -> Diagnosis:
    rank = evidence.killed.rank if evidence.killed is not None else evidence.vanished_rank
    return Diagnosis(
        cause="host_oom",
        message=f"the host ran out of memory and the kernel killed rank {rank}",
        evidence=f"the kernel's count of out-of-memory kills rose by {evidence.new_oom_kills} meanwhile",
        advice="use fewer ranks or a smaller micro batch, or raise the memory limit of the job or container",
        command=f"ftwiz resume {evidence.run_id} --replan",
    )


def _killed(killed: Killed) -> Diagnosis:
    is_outside = killed.signal in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    crash = next(rule for rule in RULES if rule.cause == "crashed")
    return Diagnosis(
        cause="killed" if is_outside else crash.cause,
        message=f"rank {killed.rank} was killed by signal {killed.signal} ({signal_name(killed.signal)})",
        evidence="the launcher reports it",
        advice=_FROM_OUTSIDE if is_outside else crash.advice,
    )


def _unknown(evidence: Evidence, error: str | None = None) -> Diagnosis:
    last_error = error or next((line for line in reversed(evidence.lines) if _ERROR_LINE.search(line)), None)
    last_lines = " | ".join(line.strip() for line in evidence.lines[-LAST_LINES:]) or "the logs are empty"
    message = next(iter(evidence.errors), None) or f"the launcher {describe_exit(evidence.launcher_code)}"
    return Diagnosis(
        cause=UNKNOWN,
        message=message,
        evidence=(last_error or last_lines).strip(),
        advice=f"read the logs: ftwiz logs {evidence.run_id}",
    )
