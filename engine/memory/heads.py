"""From the last hidden state to a loss, on a tape: every way of doing it that ftwiz knows.

Sources: trl 1.16, kernels/chunked_logprob.py and trainer/utils.py (add_fused_lm_head); transformers 5.23,
loss/loss_utils.py (ForCausalLMLoss), and 4.44, models/llama (float logits); accelerate 1.15,
utils/operations.py (outputs of a mixed-precision model become float32).
"""

from collections.abc import Callable
from dataclasses import dataclass

from .blocks_torch import FP32, Torch, Weight
from .tape import Tensor
from .tape_sizes import Part

TILE_TOKENS, TILE_WORDS = 4096, 32768
"""trl 1.16: TOKEN_CHUNK_SIZE and _CHUNKED_LOGPROB_CHUNK_SIZE."""


@dataclass(frozen=True, slots=True)
class Head:
    """An output layer and its loss."""

    weight: Weight
    kind: str = "fused-tiles"
    softcap: bool = False
    keeps_output: bool = False
    """The output object, with its logits, lives through the backward pass."""
    widens_output: bool = False
    """accelerate makes the outputs float32."""
    fills_tiles: bool = True
    """A batch has at least as many tokens as a tile."""


def head(t: Torch, x: Tensor, spec: Head) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run the output layer and the loss.

    Returns:
        The loss, and what the program still holds in the backward pass.
    """
    kinds: dict[str, Callable[[Torch, Tensor, Head], tuple[Tensor, tuple[Tensor, ...]]]] = {
        "fused-tiles": _fused_tiles,
        "logits": _logits,
        "logits-shifted": _shifted_logits,
        "logits-fp32": _wide_logits,
        "liger": _liger,
        "cce": _cut,
        "chunked": _logits_in_chunks,
        "chunked-128": _logits_in_chunks,
        "score": _score,
    }
    return kinds[spec.kind](t, x, spec)


def _fused_tiles(t: Torch, x: Tensor, spec: Head) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Select the scored positions, project tile by tile; the backward pass projects again.

    Its gradients are float32 sums, cast when they are whole: of the hidden states, and of the weight when it
    is trained.
    """
    weight, tape = spec.weight, t.tape
    compute = t.autocast or x.item_bytes
    positions = tape.tensor("positions scored", 2, 8)
    zeros = [Part("hidden gradient", "gradient", x.width, x.item_bytes, "token")]
    chosen = tape.op(
        [x], "hidden states scored", x.width, x.item_bytes, keeps=[positions], backward_scratch=zeros
    )
    statistics = [Part("tile statistics", "head", 7, FP32, "token")]
    tile = _tile(spec, compute)
    scratch = _tile(spec, compute, slices=2)
    if x.item_bytes != FP32:
        scratch.append(Part("hidden gradient sum", "gradient", x.width, FP32, "token"))
    if weight.is_trained and weight.item_bytes != FP32:
        scratch.append(weight.part(FP32, "gradient")._replace(name="output layer gradient sum"))
        if not t.counts_weight_gradients:
            scratch.append(weight.part(section="gradient"))
    kept = tape.tensor("targets and normalizers", 1, 8 + 2 * FP32)
    loss = tape.op(
        [chosen], "log probabilities", 3, FP32,
        keeps=[chosen, kept],
        trains=t.landing([weight.part()]) if weight.is_trained else [],
        forward_scratch=statistics + tile, backward_scratch=scratch,
    )  # fmt: skip
    return loss, ()


def _tile(spec: Head, compute: int, slices: int = 1) -> list[Part]:
    """Return the logits of a tile; where formats differ, slices of weight and hidden states too."""
    weight = spec.weight
    words = min(TILE_WORDS, weight.num_out)
    # The buffer is made for a full tile of words, whatever the vocabulary.
    if spec.fills_tiles:
        tile = [Part("logits of a tile", "head", TILE_TOKENS * TILE_WORDS, compute, "fixed")]
    else:
        tile = [Part("logits of a tile", "head", TILE_WORDS, compute, "token")]
    if weight.item_bytes != compute:
        tile.append(Part("output layer slice", "head", words * weight.num_in, compute, "fixed"))
        if slices > 1:  # the name of one slice outlives the making of the next
            words = min(TILE_WORDS, weight.num_out - words)
            tile.append(Part("output layer slice", "head", words * weight.num_in, compute, "fixed"))
        rows = ("fixed", TILE_TOKENS) if spec.fills_tiles else ("token", 1)
        tile.append(Part("hidden states of a tile", "head", rows[1] * weight.num_in, compute, rows[0]))  # type: ignore[arg-type]
    return tile


def _logits(t: Torch, x: Tensor, spec: Head) -> tuple[Tensor, tuple[Tensor, ...]]:
    logits = _project(t, x, spec)
    loss = _cross_entropy(t, logits)
    held: tuple[Tensor, ...] = ()
    if spec.widens_output:
        wide = t.to(t.tape.detach(logits), FP32, "float32 logits of the output")
        held = (wide,)
    elif spec.keeps_output:
        held = (logits,)
    return loss, held if spec.keeps_output else ()


def _project(t: Torch, x: Tensor, spec: Head) -> Tensor:
    logits = t.linear(x, spec.weight, "logits")
    if not spec.softcap:
        return logits
    scaled = t.times(logits, "scaled logits")
    del logits
    tanh = t.tape.op([scaled], "tanh of logits", scaled.width, scaled.item_bytes, keeps_output=True)
    del scaled
    return t.times(tanh, "capped logits")


def _cross_entropy(t: Torch, logits: Tensor) -> Tensor:
    """ForCausalLMLoss: float32 logits, log_softmax keeps its output, nll makes a gradient of zeros."""
    wide = t.to(logits, FP32, "float32 logits")
    chances = t.tape.op([wide], "log probabilities", wide.width, FP32, keeps_output=True)
    return t.tape.op([chances], "loss", 1, FP32, keeps=[chances])


def _shifted_logits(t: Torch, x: Tensor, spec: Head) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run models that came with their own code: a shifted copy, and the loss in its format or autocast's.

    Logits and the copy are names in ``forward`` and live until it returns.
    """
    logits = _project(t, x, spec)
    shifted = t.copy(logits, "shifted logits")
    wide = t.to(shifted, FP32, "float32 logits") if t.autocast else shifted
    chances = t.tape.op([wide], "log probabilities", wide.width, wide.item_bytes, keeps_output=True)
    loss = t.tape.op([chances], "loss", 1, FP32, keeps=[chances])
    return loss, (logits,) if spec.keeps_output else ()


def _wide_logits(t: Torch, x: Tensor, spec: Head) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run transformers before 4.45: the float32 copy is the output; the shifted logits are a copy too."""
    wide = t.to(_project(t, x, spec), FP32, "float32 logits")
    shifted = t.copy(wide, "shifted logits")
    chances = t.tape.op([shifted], "log probabilities", wide.width, FP32, keeps_output=True)
    loss = t.tape.op([chances], "loss", 1, FP32, keeps=[chances])
    return loss, (wide,) if spec.keeps_output else ()


def _logits_in_chunks(t: Torch, x: Tensor, spec: Head) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits of all tokens in the compute format, the loss of one chunk of tokens at a time."""
    logits = _project(t, x, spec)
    return t.tape.op([logits], "loss", 1, FP32, keeps=[logits]), ()


def _score(t: Torch, x: Tensor, spec: Head) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run the output layer of a reward model: one number per token (transformers, modeling_layers.py)."""
    weight = Weight("score", x.width, 1, spec.weight.item_bytes, is_trained=True)
    return t.matmul(x, weight, "score"), ()


def _liger(t: Torch, x: Tensor, spec: Head) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Liger's fused linear cross entropy: gradients are made in the forward pass, chunk by chunk.

    A chunk has tokens x hidden / vocabulary tokens (a power of two), so that its logits take about as much as
    the hidden states. Source: liger_kernel/ops/fused_linear_cross_entropy.py.
    """
    weight = spec.weight
    compute = t.autocast or x.item_bytes
    gradients = [t.tape.tensor("hidden gradient", x.width, x.item_bytes)]
    if weight.is_trained:
        with t.tape.within("gradient"):
            name = "output layer gradient sum"
            gradients.append(t.tape.tensor(name, weight.num_elements, weight.item_bytes, per="fixed"))
    chunk = [
        Part("logits of a chunk", "head", x.width, compute, "token"),
        Part("float32 logits of a chunk", "head", x.width, FP32, "token"),
    ]
    trains = t.landing([weight.part()]) if weight.is_trained else []
    return t.tape.op([x], "loss", 1, FP32, keeps=gradients, trains=trains, forward_scratch=chunk), ()


def _cut(t: Torch, x: Tensor, spec: Head) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run Cut Cross-Entropy: no logits, float32 gradients. Source: arXiv 2411.09009, section 4."""
    weight = spec.weight
    normalizers = t.tape.tensor("normalizers", 1, 2 * FP32)
    scratch = [Part("hidden gradient sum", "gradient", x.width, FP32, "token")]
    if weight.is_trained:
        scratch.append(weight.part(FP32, "gradient")._replace(name="output layer gradient sum"))
    trains = t.landing([weight.part()]) if weight.is_trained else []
    loss = t.tape.op([x], "loss", 1, FP32, keeps=[x, normalizers], trains=trains, backward_scratch=scratch)
    return loss, ()
