"""What a training step is, as far as bytes go: the estimator's question, whoever trains.

A job and a strategy make one (``memory.workload_of``); so does a row of published measurements, whose
trainer may be another than ours.
"""

from dataclasses import dataclass, field
from typing import Literal

from .adapter import Adapter
from .model import ModelSpec

DType = Literal["fp32", "bf16", "fp16", "fp8", "int8"]
DTYPE_BYTES: dict[DType, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}

Stage = Literal["pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "grpo", "rloo"]
Method = Literal["full", "freeze", "lora"]
"""``lora`` is every adapter of PEFT; with quantized weights it is QLoRA."""
Checkpointing = Literal["none", "full", "every-2nd", "selective-op"]
"""Which layers keep only their input for the backward pass: none, all, every second; ``selective-op`` keeps
every second matrix product and attention (torchtitan)."""
AttentionKind = Literal["flash", "sdpa", "sdpa-mask", "eager", "flex"]
"""``sdpa``: torch's fused kernel without a mask tensor; ``sdpa-mask``: with one; ``eager`` keeps scores."""
LossHead = Literal[
    "fused-tiles", "logits", "logits-shifted", "logits-fp32", "chunked", "chunked-128", "liger", "cce"
]
"""How the output layer becomes a loss.

``fused-tiles``: trl 1.16, tiles of 4096 tokens x 32768 words, no logits kept. ``logits``: transformers 5,
logits in the compute format and an fp32 copy in the loss. ``logits-shifted``: models that came with their own
code (Qwen 1), a shifted copy and the loss in its format, which only autocast makes fp32. ``logits-fp32``:
transformers before 4.45, the fp32 copy is the output and lives through the backward pass. ``chunked``:
torchtune, 8 chunks of tokens. ``chunked-128``: litgpt, chunks of 128 tokens. ``liger``: Liger-Kernel's fused
linear cross entropy. ``cce``: Cut Cross-Entropy."""
Trainer = Literal["trl", "transformers", "loop", "litgpt", "torchtitan", "torchtune"]
"""Who runs the step. ``loop`` is a plain loop around a transformers model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """Versions of the libraries that decide how a step is computed. ``None``: not used or not known.

    The defaults are those that ftwiz is tested with.
    """

    torch: str | None = "2.13.0"
    transformers: str | None = "5.23.0"
    trl: str | None = "1.16.0"
    peft: str | None = "0.21.2"
    accelerate: str | None = "1.15.0"
    bitsandbytes: str | None = "0.50.2"
    deepspeed: str | None = "0.19.8"
    trainer: str | None = None
    """Day of the code of a trainer that is none of these (``2024-04-26``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """How frozen weights are packed. The output layer and the embedding stay as they are, unless said."""

    kind: Literal["nf4", "fp4", "int8", "gptq", "awq", "hqq", "aqlm", "eetq", "fp8", "mxfp4"]
    bits: float = 4
    double_quant: bool = True
    """bitsandbytes 4-bit: the scales are packed too."""
    block_size: int = 64
    """Weights that share a scale."""
    storage: DType | Literal["uint8"] = "uint8"
    """Type that the packed bytes are kept in. FSDP2 shards them only when it is a float type."""
    quantizes_head: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """How the state of training is spread over ranks. One rank, nothing spread, by default."""

    backend: Literal["single", "ddp", "zero", "fsdp", "fsdp1"] = "single"
    """``fsdp`` is FSDP2 (``fully_shard``); ``fsdp1`` is FullyShardedDataParallel."""
    num_ranks: int = 1
    """Ranks of the whole run."""
    ranks_per_node: int = 1
    num_shards: int = 1
    """Ranks that hold one copy together: ``num_ranks``, or less for hybrid sharding; 1 for ddp."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    reshard_after_forward: bool = True
    """FSDP: gathered layers are dropped after the forward pass (otherwise after the backward pass)."""
    master: DType | None = None
    """Format of a second copy of trained weights that the optimizer works on (DeepSpeed); ``None``: none."""
    reduce: DType | None = None
    """Format that gradients are reduced in; ``None``: their own."""
    offload_optimizer: Literal["none", "cpu", "nvme"] = "none"
    offload_parameters: Literal["none", "cpu", "nvme"] = "none"
    reduce_bucket_elements: int | None = None
    """DeepSpeed; ``None``: what the Hugging Face integration's ``auto`` gives."""
    allgather_bucket_elements: int | None = None
    prefetch_bucket_elements: int | None = None
    persistence_threshold_elements: int | None = None
    max_live_parameters: int | None = None
    sub_group_elements: int | None = None
    overlap_comm: bool = False
    syncs_every_batch: bool = False
    """FSDP with gradient accumulation: gradients are reduced after each micro batch. Otherwise every rank
    holds all of them, unsharded, until the last one (accelerate's ``sync_each_batch``, off by default)."""
    loads_on_rank_0: bool = True
    """FSDP and ZeRO-3: only the first rank of a node reads the weights into host memory (accelerate's
    ``cpu_ram_efficient_loading``, DeepSpeed's ``zero.Init``). Otherwise every rank does."""
    tensor_parallel: int = 1
    context_parallel: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One optimizer step of one rank, with everything that costs bytes."""

    model: ModelSpec
    sequence_tokens: int
    """Tokens of the longest sequence; shorter ones are padded to it (or packed into it)."""
    micro_batch_size: int = 1
    """Sequences per forward pass; of preference stages, pairs."""
    stage: Stage = "sft"
    method: Method = "lora"
    adapter: Adapter | None = None
    num_trainable_layers: int | None = None
    """freeze: how many of the last layers are trained."""
    trained_modules: tuple[str, ...] = ()
    """freeze: ends of names of further modules that are trained."""
    quantization: Quantization | None = None
    weights: DType = "bf16"
    """Format of the loaded weights that are not quantized."""
    trainable: DType = "fp32"
    """Format of what is trained (adapters; of ``full`` the same as ``weights``)."""
    autocast: DType | None = None
    """Format that matrix products are computed in where it differs from that of the weights."""
    upcast_frozen: bool = False
    """peft's ``prepare_model_for_kbit_training``: what is not quantized becomes fp32."""
    optimizer: str = "adamw_torch_fused"
    """Hugging Face's name (``optim`` of TrainingArguments)."""
    optimizer_in_backward: bool = False
    """Every gradient is used and dropped as soon as it is there."""
    clips_gradients: bool = True
    gradient_accumulation_steps: int = 1
    checkpointing: Checkpointing = "full"
    offloads_activations: bool = False
    attention: AttentionKind = "sdpa"
    packing: bool = False
    varied_lengths: bool = False
    """Batches differ in tokens from step to step, so that the allocator's blocks fit less well."""
    loss: LossHead = "fused-tiles"
    keeps_output: bool = False
    """The output object, with its logits, lives through the backward pass."""
    compiles: bool = False
    reference_model: bool = False
    """A second, frozen copy of the model is held (preference stages with full fine-tuning)."""
    num_generations: int = 8
    """grpo, rloo: answers per prompt."""
    completion_tokens: int = 256
    """grpo, rloo: longest generated answer."""
    sharding: Sharding = field(default_factory=Sharding)
    trainer: Trainer = "trl"
    stack: Stack = field(default_factory=Stack)
    device_kind: str = "cuda"
    device_name: str | None = None
    expandable_segments: bool = False
    """``PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True``."""

    @property
    def tokens(self) -> int:
        """Tokens that one rank takes at once: rows of every activation."""
        return self.sequence_tokens * self.micro_batch_size // self.sharding.context_parallel
