"""Arguments of TRL's other trainers: DPO, KTO, reward models, GRPO and RLOO.

Source: trl 1.16, trainer/{dpo,kto,reward,grpo,rloo}_config.py.
"""

from .reasons import EVALUATED, PLANNED, WATCHED
from .rows import Role, Row, drop, extra, only_with, refuse, take, use
from .values import when_true, words

_REFERENCE = "the reference is the model as it was before training; start from the other model instead"

OTHER: tuple[Row, ...] = (
    use("beta", Role.BETA),
    take("label_smoothing", "preference.label_smoothing", off=(None, 0)),
    take("precompute_ref_log_probs", "preference.precompute_reference", off=(None, False)),
    take("desirable_weight", "preference.desirable_weight"),
    take("undesirable_weight", "preference.undesirable_weight"),
    take("simpo_gamma", "preference.simpo_gamma"),
    take("cpo_alpha", "preference.sft_weight"),
    *extra("ld_alpha", "f_divergence_type", "f_alpha_divergence_coef", "discopop_tau",
           "precompute_ref_batch_size", "center_rewards_coefficient"),
    *extra("use_weighting", off=(None, False)),
    *refuse(_REFERENCE, "ref_model", "sync_ref_model"),
    *only_with("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
    *refuse("several losses at once are not there; preference.sft_weight adds the plain one", "loss_weights"),
    *refuse("dropout is off, as these trainers have it by themselves", "disable_dropout", off=(None, True)),
    *drop("train.max_length is for question and answer together", "max_prompt_length"),
    *refuse("PPO is gone from TRL; stage rm, then rloo or grpo took its place", "num_ppo_epochs"),
    take("num_generations", "rollout.num_generations"),
    take("max_completion_length", "rollout.max_completion_length"),
    take("temperature", "rollout.temperature"),
    take("top_p", "rollout.top_p"),
    take("reward_weights", "rollout.reward_weights"),
    take("reward_model_name_or_path", "rollout.reward_model"),
    take("mask_truncated_completions", "rollout.mask_truncated_completions", off=(None, False)),
    take("scale_rewards", "rollout.scale_rewards",
         words({True: "group", "group": "group", "batch": "batch", False: "none", "none": "none"})),
    take("normalize_advantages", "rollout.scale_rewards", when_true("batch"), off=(None, False)),
    *refuse("a job names a file with each function: rollout.reward_functions: [rewards.py:mine]",
            "reward_funcs", off=(None,)),
    *extra("top_k", "min_p", "generation_kwargs", "chat_template_kwargs", "repetition_penalty",
           "cache_implementation", "num_iterations", "epsilon", "epsilon_high", "delta",
           "importance_sampling_level", "multi_objective_aggregation", "top_entropy_quantile", "entropy_coef",
           "use_adaptive_entropy", "entropy_coef_min", "entropy_coef_max", "entropy_coef_delta",
           "entropy_target", "reward_clip_range", "max_tool_calling_iterations", "off_policy_mask_threshold",
           "use_bias_correction_kl", "cast_lm_head_to_fp32", "sapo_temperature_neg", "sapo_temperature_pos",
           "vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"),
    *drop(PLANNED, "generation_batch_size", "steps_per_generation", "ds3_gather_for_generation"),
    *drop(EVALUATED, "num_generations_eval"),
    *drop(WATCHED, "log_completions", "log_multimodal", "num_completions_to_print", "log_unique_prompts",
          "log_completions_hub_repo"),
    *refuse("answers are sampled by transformers, slower; leave it out", "use_vllm",
            "use_transformers_continuous_batching", "use_transformers_paged"),
    *only_with("use_transformers_continuous_batching", "transformers_continuous_batching_config"),
    *only_with("use_vllm", "vllm_mode", "vllm_model_impl", "vllm_enable_sleep_mode",
               "vllm_structured_outputs_regex", "vllm_server_base_url", "vllm_server_host",
               "vllm_server_port", "vllm_server_timeout", "vllm_group_port", "vllm_gpu_memory_utilization",
               "vllm_max_model_length", "vllm_tensor_parallel_size", "vllm_importance_sampling_correction",
               "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max",
               "vllm_importance_sampling_clip_min", "vllm_importance_sampling_cap"),
)  # fmt: skip
LEARNING_RATES = {
    "dpo": 1e-6, "kto": 1e-6, "orpo": 1e-6, "simpo": 1e-6, "rm": 1e-4, "grpo": 1e-6, "rloo": 1e-6,
}  # fmt: skip
"""What their configurations take when nothing is said."""
