"""The peaks of a walked step, ready to be written down for any batch: the lines of every moment that counts.

A step's walk gives for each phase a few moments that can be its highest. Each is turned into lines once; a
question with its number of tokens then only picks the highest and fills in numbers.
"""

from collections import Counter
from dataclasses import dataclass

from ..specs.estimate import Group, PhaseName, Term
from .blocks_step import EMBEDDING, FORWARD, HEAD, HEAD_FORWARD, Step
from .blocks_step import Group as Layers
from .tape import WEIGHT_GRADIENT
from .tape_sizes import Part, Per, Size

SOURCE = "transformers 5.23, torch 2.13: operation by operation (engine/memory/blocks*.py)"
LAYERS = "layer"
SECTIONS: dict[str, tuple[str, Group]] = {
    "batch": ("batch", "data"),
    "tables": ("position tables and masks", "activations"),
    "embedding": ("embedding output", "activations"),
    LAYERS: ("layer in work", "activations"),
    "head": ("output layer and loss", "logits"),
    "gradient": ("gradients of activations", "activations"),
    "weight copies": ("copies of weights in the compute format", "activations"),
    "unpacked weights": ("unpacked weights", "activations"),
    "adapter weights": ("adapter weights in full", "activations"),
    WEIGHT_GRADIENT: ("gradients of weights being made", "gradients"),
}
"""Section of the tape -> name and group of its term."""
KEPT = "kept for the backward pass"
OUTPUT_LAYER = frozenset({"output layer", "embedding"})


@dataclass(frozen=True, slots=True)
class Line:
    """A term of one moment, for any batch."""

    name: str
    group: Group
    size: Size
    before: str
    """``32 layers x ``, or nothing."""
    widths: tuple[tuple[Per, str], ...]
    """Sums such as ``(16 x 4,096 + 8 x 14,336) B``, by what they are counted for."""

    def term(self, phase: PhaseName, tokens: int, sequence: int) -> Term:
        """Fill in a batch."""
        words: dict[Per, str] = {
            "token": f"{tokens:,} tokens x ",
            "pair": f"{tokens:,} tokens x {sequence:,} positions x ",
            "fixed": "",
        }
        return Term(
            name=self.name,
            group=self.group,
            num_bytes=self.size.at(tokens, sequence),
            phases=(phase,),
            formula=" + ".join(f"{self.before}{words[per]}{text}" for per, text in self.widths).replace(
                "+ -", "- "
            ),
            source=SOURCE,
        )


@dataclass(frozen=True, slots=True)
class Peak:
    """A moment that can be the highest of its phase."""

    size: Size
    lines: tuple[Line, ...]


def peaks_of(step: Step) -> dict[PhaseName, tuple[Peak, ...]]:
    """Return the moments of each phase that can be its highest."""
    groups = step.groups
    every = range(len(groups))
    firsts = [f"back {k} {'first' if groups[k].num_walked > 1 else 'last'}" for k in every]
    cached = [_left_out(group, group.cached) for group in groups]
    kept = [_left_out(group, group.kept) for group in groups]
    candidates: dict[PhaseName, list[tuple[str, list[Counter[Part]]]]] = {
        "forward": [(f"{FORWARD} {k}", cached[: k + 1]) for k in every],
        "head": [(HEAD_FORWARD, cached), (HEAD, kept)],
        "backward start": [(f"back {k} last", kept[: k + 1]) for k in every],
        "backward end": [*((firsts[k], kept[:k]) for k in every), (EMBEDDING, [])],
    }
    after = Counter(step.after_forward)
    for left_out in kept:
        after.update(left_out)
    found: dict[PhaseName, tuple[Peak, ...]] = {
        phase: tuple(
            _peak(step, phase, name, alive) for name, extra in names for alive in _moments(step, name, extra)
        )
        for phase, names in candidates.items()
    }
    found["reference"] = (_peak(step, "reference", HEAD, after),)
    return found


def _left_out(group: Layers, held: Counter[Part]) -> Counter[Part]:
    """Return what the layers of a kind hold that were not walked."""
    number = group.number - group.num_walked
    return Counter({part: count * number for part, count in held.items()} if number else {})


def _moments(step: Step, name: str, extra: list[Counter[Part]]) -> list[Counter[Part]]:
    found = []
    for moment in step.walked.phases.get(name, ()):
        alive = Counter(moment.alive)
        for left_out in extra:
            alive.update(left_out)
        found.append(alive)
    return found


def _peak(step: Step, phase: PhaseName, name: str, alive: Counter[Part]) -> Peak:
    counted = Counter(
        {part: n for part, n in alive.items() if part.width and not _is_of_states(step, part, phase)}
    )
    embedding = step.embedding_gradient
    if (
        embedding
        and step.is_tied
        and not step.lands_gradients
        and phase in ("backward start", "backward end")
    ):
        # The output layer's gradient waits for the embedding's; then both are added to what is there.
        counted[embedding._replace(name="output layer", section=WEIGHT_GRADIENT)] += 1
    is_early = phase == "backward end" and name != EMBEDDING and step.lands_gradients and not step.is_tied
    lines = _lines(step.groups, counted)
    if embedding and is_early:
        lines = [_less(lines, embedding)]
    return Peak(_sum([line.size for line in lines]), tuple(lines))


def _is_of_states(step: Step, part: Part, phase: PhaseName) -> bool:
    """Say whether the states' terms count it in this phase: gradients that stay."""
    if part.section != WEIGHT_GRADIENT or not step.lands_gradients:
        return False
    if phase == "backward end":
        return not (step.is_tied and part.name == "embedding")
    return phase == "backward start" and part.name in OUTPUT_LAYER


def _less(lines: list[Line], embedding: Part) -> Line:
    """Join all and take off the embedding's gradient: the states count it, but it is made last."""
    total = _sum([line.size for line in lines])
    text = f"-({embedding.item_bytes:,} x {embedding.width:,}) B"
    return Line(
        "first layer in work, less the embedding's gradient that is not made yet",
        "activations",
        total._replace(fixed=total.fixed - embedding.size.fixed),
        "",
        (*(piece for line in lines for piece in line.widths), ("fixed", text)),
    )


def _sum(sizes: list[Size]) -> Size:
    return Size(*(sum(axis) for axis in zip(*sizes, strict=True))) if sizes else Size()


def _lines(groups: tuple[Layers, ...], alive: Counter[Part]) -> list[Line]:
    kept: Counter[Part] = Counter()
    for group in groups:
        kept.update({part: n * group.number for part, n in group.kept.items() if part.section == LAYERS})
    layers = alive & kept
    sections: dict[str, Counter[Part]] = {}
    for part, number in (alive - layers).items():
        sections.setdefault(part.section, Counter())[part] = number
    number = groups[0].number if len(groups) == 1 and layers == kept else 1
    lines = [_line(KEPT, "activations", layers, number)] if layers else []
    for section, parts in sections.items():
        name, group_name = SECTIONS.get(section, (section, "activations"))
        lines.append(_line(name, group_name, parts))
    return lines


def _line(name: str, group: Group, parts: Counter[Part], layers: int = 1) -> Line:
    sums: dict[Per, Counter[int]] = {"token": Counter(), "pair": Counter(), "fixed": Counter()}
    for part, number in parts.items():
        sums[part.per][part.width] += part.item_bytes * number // layers
    return Line(
        name,
        group,
        _total(parts),
        f"{layers:,} layers x " if layers > 1 else "",
        tuple((per, _written(widths)) for per, widths in sums.items() if widths),
    )


def _written(widths: Counter[int]) -> str:
    return f"({' + '.join(f'{number:,} x {width:,}' for width, number in sorted(widths.items()))}) B"


def _total(parts: Counter[Part]) -> Size:
    token = pair = fixed = 0
    for part, number in parts.items():
        size = part.size
        token, pair, fixed = (
            token + size.token * number,
            pair + size.pair * number,
            fixed + size.fixed * number,
        )
    return Size(token, pair, fixed)
