"""Common names of settings that have another name here."""

from __future__ import annotations

from collections.abc import Iterable

_SYNONYMS = {
    "learning_rate": ("lr", "actor_lr", "policy_lr", "optimizer_lr", "step_size"),
    "critic_learning_rate": ("critic_lr", "value_lr", "vf_lr"),
    "batch_size": ("bs", "batch", "train_batch_size", "global_batch_size", "minibatch_size"),
    "micro_batch": ("micro_batch_size", "per_device_batch_size", "per_device_train_batch_size"),
    "accumulate": ("gradient_accumulation_steps", "grad_accum", "accumulation_steps", "accumulate_grad_batches"),
    "weight_decay": ("wd", "decay", "l2"),
    "epochs": ("n_epochs", "num_epochs", "update_epochs", "ppo_epochs"),
    "iterations": ("num_iterations", "n_iterations", "updates", "num_updates"),
    "steps": ("max_steps", "train_steps", "num_train_steps", "training_steps"),
    "timesteps": ("total_timesteps", "total_steps", "env_steps"),
    "warmup": ("warmup_steps", "num_warmup_steps"),
    "clip": ("max_grad_norm", "grad_clip", "gradient_clip", "clip_grad_norm", "grad_norm"),
    "clip_range": ("clip_eps", "clip_epsilon", "clip_ratio", "clip_coef", "cliprange", "epsilon"),
    "entropy": ("ent_coef", "entropy_coef", "entropy_coeff"),
    "gamma": ("discount", "discount_factor"),
    "gae_lambda": ("lam", "lambda", "lambda_", "gae"),
    "target_kl": ("kl", "kl_target", "desired_kl"),
    "ema": ("ema_decay", "polyak"),
    "lora": ("lora_rank", "lora_r", "rank"),
    "precision": ("amp", "mixed_precision", "bf16", "fp16"),
    "n_steps": ("rollout_length", "num_steps", "rollout_steps", "horizon_length"),
    "flow_steps": ("num_flow_steps", "denoising_steps", "num_inference_steps"),
    "group_size": ("num_generations", "n_samples_per_prompt"),
    "num_envs": ("n_envs", "envs", "num_environments", "n_environments"),
    "episodes": ("n_episodes", "num_episodes", "eval_episodes"),
    "trials": ("num_trials", "n_trials", "seeds", "repeats"),
    "evaluate_every": ("eval_every", "eval_freq", "eval_interval"),
    "evaluate_episodes": ("eval_episodes", "n_eval_episodes", "num_eval_episodes"),
    "save_every": ("save_freq", "save_interval", "save_steps", "checkpoint_every", "checkpoint_interval"),
    "log_every": ("log_freq", "log_interval", "logging_steps"),
    "max_minutes": ("time_limit", "max_time", "minutes"),
    "checkpoint": ("ckpt", "ckpt_path", "model", "model_path", "weights", "policy_path"),
    "init": ("pretrained", "resume_from", "init_from", "model_name_or_path"),
    "data": ("dataset", "data_dir", "dataset_path", "data_path"),
    "run": ("run_dir", "output_dir", "out_dir", "logdir", "log_dir", "save_dir"),
    "output": ("output_dir", "out_dir", "save_dir"),
    "task": ("env", "env_id", "env_name", "tasks", "task_name"),
    "threads": ("n_threads", "num_threads", "workers", "num_workers"),
}


def likely_keys(wrong: str, valid: Iterable[str]) -> list[str]:
    """Keys that are meant by one that does not exist: of the same name elsewhere, or what the field calls so.

    Args:
        wrong: dotted name that was given.
        valid: dotted names that there are.

    Example:
        >>> likely_keys("algo.lr", ["algo.learning_rate", "algo.lora"])
        ['algo.learning_rate']
        >>> likely_keys("learning_rate", ["algo.learning_rate", "seed"])
        ['algo.learning_rate']
    """
    word = wrong.rpartition(".")[2].lower()
    meant = {word, *(key for key, synonyms in _SYNONYMS.items() if word in synonyms)}
    return [key for key in valid if key.rpartition(".")[2] in meant]
