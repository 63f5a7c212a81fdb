"""litgpt's models for a trace: the operations of its code of a day (see foreign_litgpt_facts)."""

import torch
from torch import Tensor, nn

from ..memory import foreign_litgpt_facts as facts
from ..memory.foreign_litgpt_facts import Step
from .foreign_parts import Attention, Dropped, Linear, parameter


class RootMeanSquareNorm(nn.Module):  # type: ignore[misc]
    """RMSNorm, in the formats of its day."""

    def __init__(self, step: Step, dtype: torch.dtype) -> None:
        super().__init__()
        self.date = step.date
        self.weight = parameter(step.shape.hidden, dtype=dtype, trained=step.trains_norms)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor as large."""
        dtype = x.dtype
        wide = x if self.date < facts.FLOAT32_NORMS else x.float()
        normed = wide * torch.rsqrt(torch.mean(wide * wide, dim=-1, keepdim=True) + 1e-5)
        if self.date < facts.SIXTEEN_BIT_SCALES:
            return (self.weight * normed).to(dtype)
        if self.date < facts.FLOAT32_SCALES:
            return normed.to(dtype) * self.weight
        return (normed * self.weight.float()).to(dtype)


class LayerNorm(nn.Module):  # type: ignore[misc]
    """torch's, in its own format."""

    def __init__(self, step: Step, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.bias = (
            parameter(step.shape.hidden, dtype=dtype, trained=step.trains_norms) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor as large."""
        return nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias)


def _norm(step: Step, dtype: torch.dtype) -> nn.Module:
    return LayerNorm(step, dtype) if step.layout.norm == "layer" else RootMeanSquareNorm(step, dtype)


class JointProjection(nn.Module):  # type: ignore[misc]
    """Queries, keys and values in one; one adapter for those that have any."""

    def __init__(self, step: Step, dtype: torch.dtype) -> None:
        super().__init__()
        shape, self.step = step.shape, step
        widths = {"q": shape.queries, "k": shape.keys, "v": shape.keys}
        self.enabled = [width for name, width in widths.items() if name in step.targets]
        self.width = sum(widths.values())
        self.inner = Linear(shape.hidden, self.width, step.kind("qkv"), dtype)
        if self.enabled:
            self.low = parameter(step.rank * len(self.enabled), shape.hidden, dtype=dtype, trained=True)
            self.high = parameter(sum(self.enabled), step.rank, dtype=dtype, trained=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the three, side by side."""
        if not self.enabled:
            out: Tensor = self.inner(x)
            return out
        out = self.inner.base(x)
        low = nn.functional.linear(Dropped.apply(x) if self.step.dropout else x, self.low)
        high = self._grouped(low.transpose(-2, -1)).transpose(-2, -1)
        return out + (self._padded(high) if sum(self.enabled) < self.width else high) * 2.0

    def _grouped(self, low: Tensor) -> Tensor:
        weight = self.high.unsqueeze(-1)
        if not self.step.shape.shares_keys:
            return nn.functional.conv1d(low, weight, groups=len(self.enabled))
        parts = zip(low.chunk(len(self.enabled), dim=1), weight.split(self.enabled), strict=True)
        return torch.cat([nn.functional.conv1d(part, own) for part, own in parts], dim=1)

    def _padded(self, high: Tensor) -> Tensor:
        index = torch.arange(sum(self.enabled))
        if self.step.date >= facts.PADS_IN_PLACE:
            return high.new_zeros(*high.shape[:-1], self.width).index_copy_(-1, index, high)
        turned = high.transpose(0, 1)
        zeros = turned.new_zeros(*turned.shape[:-1], self.width).view(-1, self.width)
        zeros = zeros.index_copy(1, index, turned.reshape(-1, sum(self.enabled)))
        return zeros.view(*turned.shape[:-1], self.width).transpose(0, 1)


class SelfAttention(nn.Module):  # type: ignore[misc]
    """Attention with rotary positions; with LLaMA-Adapter also over a trained prompt."""

    def __init__(self, step: Step, dtype: torch.dtype, index: int) -> None:
        super().__init__()
        shape, self.step = step.shape, step
        self.attn = JointProjection(step, dtype)
        self.proj = Linear(shape.queries, shape.hidden, step.kind("o"), dtype)
        self.head = shape.queries // shape.heads
        self.groups = shape.keys // self.head
        self.prompt: nn.Parameter | None = None
        if step.method.startswith("adapter") and index >= facts.FIRST_ADAPTED_LAYER:
            self.prompt = parameter(facts.PROMPT_TOKENS, shape.hidden, dtype=dtype, trained=True)
            self.gate = parameter(1, 1, shape.heads, 1, dtype=dtype, trained=True)

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """Return what the heads see, projected."""
        batch, tokens, _ = x.shape
        each = self.step.shape.heads // self.groups
        qkv = self.attn(x)
        qkv = qkv.view(batch, tokens, self.groups, each + 2, self.head).permute(0, 2, 3, 1, 4)
        query, key, value = qkv.split((each, 1, 1), dim=2)
        if self.step.shape.shares_keys:
            key, value = (part.expand(batch, self.groups, each, tokens, self.head) for part in (key, value))
        query, key, value = (part.reshape(batch, -1, tokens, self.head) for part in (query, key, value))
        query, key = self._rotated(query, tables), self._rotated(key, tables)
        seen = Attention.apply(query, key, value, self.head <= facts.FLASH_HEAD).transpose(1, 2)
        if self.prompt is not None:
            seen = seen + self.gate * self._of_prompt(query)
        return self.proj(seen.reshape(batch, tokens, -1))

    def _of_prompt(self, query: Tensor) -> Tensor:
        assert self.prompt is not None
        both = self.attn(self.prompt.unsqueeze(0))[..., : 2 * self.head * self.step.shape.heads]
        key, value = both.view(1, facts.PROMPT_TOKENS, 2, -1, self.head).permute(2, 0, 3, 1, 4)
        seen: Tensor = Attention.apply(query, key, value, False).transpose(1, 2)  # noqa: FBT003 - autograd passes no names
        return seen

    def _rotated(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        cosine, sine = tables
        part = cosine.shape[-1]
        first = x[..., :part]
        half = part // 2
        turned = torch.cat((-first[..., half:], first[..., :half]), dim=-1)
        rotated = ((first * cosine) + (turned * sine)).to(x.dtype)
        return torch.cat((rotated, x[..., part:]), dim=-1)


class FeedForward(nn.Module):  # type: ignore[misc]
    """An MLP of two layers, or of three with a gate."""

    def __init__(self, step: Step, dtype: torch.dtype) -> None:
        super().__init__()
        hidden, width, kind = step.shape.hidden, step.shape.mlp, step.kind("mlp")
        self.first = Linear(hidden, width, kind, dtype)
        self.second = Linear(hidden, width, kind, dtype) if step.layout.is_gated else None
        self.last = Linear(width, hidden, kind, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor as wide."""
        first = self.first(x)
        if self.second is None:
            return self.last(nn.functional.gelu(first))
        second = self.second(x)
        return self.last(nn.functional.silu(first) * second)


class Block(nn.Module):  # type: ignore[misc]
    """A layer; attention and MLP one after the other or beside each other."""

    def __init__(self, step: Step, dtype: torch.dtype, index: int) -> None:
        super().__init__()
        self.layout = step.layout
        self.norm_1, self.attn = _norm(step, dtype), SelfAttention(step, dtype, index)
        self.norm_2 = None if step.layout.shares_norm else _norm(step, dtype)
        self.mlp = FeedForward(step, dtype)

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """Return a tensor as large."""
        normed = self.norm_1(x)
        attended = self.attn(normed, tables)
        if self.layout.is_parallel:
            second = normed if self.norm_2 is None else self.norm_2(x)
            return self.mlp(second) + attended + x
        assert self.norm_2 is not None
        x = attended + x
        return self.mlp(self.norm_2(x)) + x


class Gpt(nn.Module):  # type: ignore[misc]
    """The whole model."""

    def __init__(self, step: Step, num_layers: int, dtype: torch.dtype) -> None:
        super().__init__()
        shape, self.step = step.shape, step
        is_full = step.method == "full"
        self.wte = parameter(shape.vocab, shape.hidden, dtype=dtype, trained=is_full)
        self.blocks = nn.ModuleList(Block(step, dtype, index) for index in range(num_layers))
        self.ln_f = _norm(step, dtype)
        self.lm_head = Linear(shape.hidden, shape.vocab, step.kind("head"), dtype)
        part = shape.queries // shape.heads * step.layout.rotary_percent // 100 // 2 * 2
        self.register_buffer("cosine", torch.empty(step.sequence, part))
        self.register_buffer("sine", torch.empty(step.sequence, part))

    def body(self, ids: Tensor) -> Tensor:
        """Return the last hidden states, normed."""
        x = nn.functional.embedding(ids, self.wte)
        if self.step.layout.scales_embedding:
            x = x * self.step.shape.hidden**0.5
        for block in self.blocks:
            x = block(x, (self.cosine, self.sine))
        normed: Tensor = self.ln_f(x)
        return normed

    def logits(self, x: Tensor) -> list[Tensor]:
        """Return the logits, in chunks of tokens unless everything is trained."""
        parts = x.split(facts.CHUNK_TOKENS, dim=1) if self.step.chunks_head else [x]
        return [self.lm_head(part) for part in parts]


def loss_of(step: Step, logits: list[Tensor], labels: Tensor) -> Tensor:
    """Return the loss as ``chunked_cross_entropy`` makes it; the last token predicts nothing."""
    entropy = nn.functional.cross_entropy
    if not step.chunks_head:
        flat, goals = (part.reshape(-1, *part.shape[2:]) for part in (logits[0][:, :-1], labels[:, 1:]))
        if step.date < facts.CHUNKS_FULL_LOSS:
            return entropy(flat, goals)
        pieces = list(zip(flat.split(facts.CHUNK_TOKENS), goals.split(facts.CHUNK_TOKENS), strict=True))
    else:
        logits[-1] = logits[-1][..., :-1, :]
        parts = labels[:, 1:].split(facts.CHUNK_TOKENS, dim=1)
        flat_parts = [part.reshape(-1, part.shape[-1]) for part in logits]
        pieces = list(zip(flat_parts, (part.reshape(-1) for part in parts), strict=True))
    return torch.cat([entropy(part, goal, reduction="none") for part, goal in pieces]).mean()
