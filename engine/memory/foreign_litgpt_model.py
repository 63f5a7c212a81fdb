"""litgpt's models on a tape: what each operation of their code keeps. Pure.

Sources: Lightning-AI/litgpt at the commits that ``foreign_litgpt_facts`` names: model.py, lora.py,
adapter.py, adapter_v2.py, rmsnorm.py, utils.py (``chunked_cross_entropy``) and the scripts of finetune/.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from .blocks_torch import FP32, HALF, Torch
from .foreign_litgpt_facts import (
    CHUNK_TOKENS,
    CHUNKS_FULL_LOSS,
    FIRST_ADAPTED_LAYER,
    FLASH_HEAD,
    FLOAT32_NORMS,
    FLOAT32_SCALES,
    NO_LONGEST_FIRST,
    PADDED_PROMPT,
    PADS_IN_PLACE,
    PROMPT_TOKENS,
    SIXTEEN_BIT_SCALES,
    Step,
)
from .foreign_ops import Kind, Ops
from .tape import Tape, Tensor
from .tape_sizes import Part, Walked


@lru_cache(maxsize=256)
def walk(step: Step) -> Walked:
    """Return what a step holds: phases ``forward``, ``head``, ``backward start`` and ``backward end``."""
    tape = Tape(lands_gradients=False)
    model = _Model(
        Ops(tape, Torch(tape, HALF if step.autocast else None), FP32 if step.autocast else HALF), step
    )
    last: _Last | None = None
    if step.date >= NO_LONGEST_FIRST:
        tape.phase = "before"
        last = model.run(None, "before")
    last = model.run(last, "")
    tape.phase = "optimizer"
    tape.tensor("", 0, 1)
    del last
    return tape.walked()


@dataclass(slots=True)
class _Last:
    """What the variables of the training loop still name of the step before."""

    logits: list[Tensor]
    graph: list[Tensor]


@dataclass(slots=True)
class _Model:
    ops: Ops
    step: Step

    @property
    def tape(self) -> Tape:
        return self.ops.tape

    def run(self, last: _Last | None, phase: str) -> _Last:
        """Run forward and backward; ``phase`` files everything under one name."""
        tape = self.tape
        tape.phase = phase or "forward"
        x = self._embed()
        starts: list[int] = []
        with tape.within("layer"):
            for index in range(self.step.shape.layers):
                starts.append(tape.num_operations)
                x = self._block_or_checkpoint(x, index)
        head_start = tape.num_operations
        with tape.within("head"):
            logits = self._logits(self.norm(x))
            del x
            if last is not None:
                last.logits.clear()
                last.graph.clear()
            tape.phase = phase or "head"
            loss = self._loss(logits)
        tape.backward(loss, until=head_start)
        for index in reversed(range(self.step.shape.layers)):
            names = {self.step.shape.layers - 1: "backward start", 0: "backward end"}
            tape.phase = phase or names.get(index, "backward between")
            tape.resume(until=starts[index])
        tape.resume()
        graph, self.ops.held = self.ops.held, []
        return _Last(logits, graph)

    def _embed(self) -> Tensor:
        shape, item = self.step.shape, self.ops.item
        if self.step.method == "full":
            trains = [self.ops.fixed("embedding weights", shape.hidden * shape.vocab, item)]
            x = self.tape.op([], "embedded", shape.hidden, item, trains=trains)
        else:
            x = self.tape.tensor("embedded", shape.hidden, item)
        return self.ops.torch.times(x, "scaled embedding") if self.step.layout.scales_embedding else x

    def _block_or_checkpoint(self, x: Tensor, index: int) -> Tensor:
        if self.step.checkpoints:
            return self.tape.checkpoint(lambda given: self._block(given, index), x)
        return self._block(x, index)

    def _block(self, x: Tensor, index: int) -> Tensor:
        layout, torch = self.step.layout, self.ops.torch
        normed = self.norm(x)
        attended = self._attention(normed, index)
        if layout.is_parallel:
            second = normed if layout.shares_norm else self.norm(x)
            return torch.add(torch.add(self._mlp(second), attended), x, "layer output")
        x = torch.add(attended, x, "attention residual")
        return torch.add(self._mlp(self.norm(x)), x, "layer output")

    # parts of a layer

    def norm(self, x: Tensor) -> Tensor:
        """Normalise, as ``RMSNorm`` and torch's LayerNorm do."""
        ops, date, trained = self.ops, self.step.date, self.step.trains_norms
        if self.step.layout.norm == "layer":
            return ops.layer_norm(x, trained=trained)
        if date < FLOAT32_NORMS:
            return ops.times_weights(ops.root_mean_square(x), trained=trained)
        normed = ops.root_mean_square(ops.torch.to(x, FP32))
        if SIXTEEN_BIT_SCALES <= date < FLOAT32_SCALES:
            return ops.times_weights(ops.torch.to(normed, x.item_bytes), trained=trained)
        return ops.torch.to(ops.times_weights(normed, trained=trained), x.item_bytes)

    def _attention(self, x: Tensor, index: int) -> Tensor:
        ops, shape, tape = self.ops, self.step.shape, self.tape
        qkv = self._qkv(x)
        if shape.shares_keys:
            query = tape.op([qkv], "queries", shape.queries, qkv.item_bytes)
            key = tape.op([qkv], "expanded keys", shape.queries, qkv.item_bytes)
            value = tape.op([qkv], "expanded values", shape.queries, qkv.item_bytes)
        else:
            query, key, value = tape.same(qkv), tape.same(qkv), tape.same(qkv)
        query, key = self._rotated(query), self._rotated(key)
        out = ops.attention(query, key, value, shape.heads)
        if self.step.method.startswith("adapter") and index >= FIRST_ADAPTED_LAYER:
            out = self._with_prompt(query, out)
        if shape.queries <= FLASH_HEAD * shape.heads:
            out = ops.torch.copy(out, "heads side by side")
        return ops.linear(out, "attention projection", (shape.queries, shape.hidden), self.step.kind("o"))

    def _qkv(self, x: Tensor) -> Tensor:
        shape, ops = self.step.shape, self.ops
        widths = (shape.hidden, shape.queries + 2 * shape.keys)
        enabled = [w for name, w in zip("qkv", (shape.queries, shape.keys, shape.keys), strict=True)
                   if name in self.step.targets]  # fmt: skip
        if not enabled:
            return ops.linear(x, "qkv", widths, self.step.kind("qkv"))
        out = ops.base(x, "qkv", widths, self.step.kind("qkv"))
        high = self._joint_adapter(x, enabled)
        if sum(enabled) < widths[1]:
            high = self._padded(high, widths[1])
        update = ops.torch.times(high, "qkv update")
        del high
        return ops.torch.add(out, update, "qkv")

    def _joint_adapter(self, x: Tensor, enabled: Sequence[int]) -> Tensor:
        """One low-rank product for all, then a grouped convolution, or one for each and a concatenation."""
        ops, step, tape = self.ops, self.step, self.tape
        source = ops.dropped(x) if step.dropout else x
        kind = Kind(trained=True)
        low = ops.base(source, "qkv lora_A", (x.width, step.rank * len(enabled)), kind)
        del source
        weights = [ops.fixed("qkv lora_B", step.rank * width, ops.item) for width in enabled]
        item = ops.product_item
        if not step.shape.shares_keys:
            return tape.op([low], "qkv adapter", sum(enabled), item, keeps=[low], trains=weights)
        parts = [
            tape.op([low], "qkv adapter part", width, item, keeps=[low], trains=[weight])
            for width, weight in zip(enabled, weights, strict=True)
        ]
        return tape.op(parts, "qkv adapter", sum(enabled), item)

    def _padded(self, high: Tensor, width: int) -> Tensor:
        """Spread over the width of the joined projection; ``index_copy`` keeps its source."""
        tape = self.tape
        if self.step.date >= PADS_IN_PLACE:
            return tape.op([high], "padded adapter", width, high.item_bytes, keeps=[high])
        zeros = tape.tensor("zeros", width, high.item_bytes)
        index = tape.tensor("positions", 2 * high.width, FP32, per="fixed")
        source = tape.same(high) if self.step.batch == 1 else self.ops.torch.copy(high, "adapter rows")
        del high
        padded = tape.op([source], "padded adapter", width, zeros.item_bytes, keeps=[source, index])
        del zeros
        return padded

    def _rotated(self, x: Tensor) -> Tensor:
        """``apply_rope``: tables are float32, so that everything is until the result is cast."""
        torch, tape = self.ops.torch, self.tape
        width = x.width if self.step.shape.shares_keys else self.step.shape.queries
        part = width * self.step.layout.rotary_percent // 100
        scratch = [Part("gradient x table", "gradient", part, FP32, "token")]
        straight = tape.op([x], "x cos", part, FP32, backward_scratch=scratch)
        turned = tape.op([x], "turned", part, x.item_bytes, backward_scratch=scratch[:1])
        crossed = tape.op([turned], "turned x sin", part, FP32, backward_scratch=scratch)
        del turned
        rotated = torch.add(straight, crossed, "rotated in float32")
        del straight, crossed
        rotated = torch.to(rotated, x.item_bytes, "rotated")
        return tape.op([rotated, x], "rotated", width, x.item_bytes)

    def _with_prompt(self, query: Tensor, out: Tensor) -> Tensor:
        """Attend to the trained prompt too, gated."""
        ops, shape, tape = self.ops, self.step.shape, self.tape
        mask = tape.tensor("prompt mask", PADDED_PROMPT, HALF)
        sums = tape.tensor("attention sums", shape.heads, FP32)
        trains = [ops.fixed("prompt", PROMPT_TOKENS * shape.hidden, ops.item)]
        seen = tape.op(
            [query], "prompt attention", shape.queries, out.item_bytes,
            keeps=[query, mask, sums], keeps_output=True, trains=trains,
        )  # fmt: skip
        gated = tape.op([seen], "gated prompt attention", seen.width, seen.item_bytes, keeps=[seen])
        del seen
        return ops.torch.add(out, gated, "attention with prompt")

    def _mlp(self, x: Tensor) -> Tensor:
        ops, shape, kind = self.ops, self.step.shape, self.step.kind("mlp")
        up, down = (shape.hidden, shape.mlp), (shape.mlp, shape.hidden)
        first = ops.linear(x, "mlp first", up, kind)
        if not self.step.layout.is_gated:
            return ops.linear(ops.torch.apply(first, "activated"), "mlp projection", down, kind)
        second = ops.linear(x, "mlp second", up, kind)
        gated = ops.torch.mul(ops.torch.apply(first, "activated"), second, "gated")
        del first, second
        return ops.linear(gated, "mlp projection", down, kind)

    # the output layer and the loss

    def _rows(self) -> list[int]:
        """Tokens of every chunk of the output layer, over the whole batch."""
        step = self.step
        whole, rest = divmod(step.sequence, CHUNK_TOKENS)
        return [CHUNK_TOKENS * step.batch] * whole + ([rest * step.batch] if rest else [])

    def _logits(self, x: Tensor) -> list[Tensor]:
        """Return the logits; lightning makes what a module returns float32.

        Source: lightning 2.1 to 2.4, fabric/plugins/precision/half.py, ``convert_output``.
        """
        made = self._outputs(x)
        return [self.ops.torch.to(part, FP32, "logits") for part in made]

    def _outputs(self, x: Tensor) -> list[Tensor]:
        step, ops = self.step, self.ops
        kind, widths = step.kind("head"), (step.shape.hidden, step.shape.vocab)
        if not step.chunks_head:
            return [ops.linear(x, "logits", widths, kind)]
        made = []
        for rows in self._rows():
            chunk = self.tape.op([x], "chunk", x.width * rows, x.item_bytes, per="fixed")
            made.append(ops.linear(chunk, "logits", widths, kind))
        return made

    def _loss(self, logits: list[Tensor]) -> Tensor:
        tape, step = self.tape, self.step
        if not step.chunks_head:
            return self._whole_loss(logits[0])
        losses = []
        for piece in logits:
            scores = tape.op(
                [piece], "log-softmax", piece.width, piece.item_bytes, per="fixed", keeps_output=True
            )
            losses.append(tape.op([scores], "losses", piece.width // step.shape.vocab, FP32, per="fixed"))
        return tape.op(losses, "loss", 1, FP32, per="fixed")

    def _whole_loss(self, logits: Tensor) -> Tensor:
        """The last token is cut off; that is a copy when there are several sequences.

        Since 2024 the loss is made of chunks of tokens: one after the other, their gradients take the place
        of their log-softmax.
        """
        tape, step = self.tape, self.step
        width, item = logits.width, logits.item_bytes
        if step.batch > 1:
            logits = tape.op([logits], "shifted logits", width, item)
        is_chunked = step.date >= CHUNKS_FULL_LOSS
        scores = tape.op([logits], "log-softmax", width, item, keeps_output=True, passes=is_chunked)
        return tape.op([scores], "loss", 1, FP32)
