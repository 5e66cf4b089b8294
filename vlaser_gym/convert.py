"""Convert a policy: ``python -m vlaser_gym.convert source=step45390.pt target=FOLDER``; ``--help`` lists the keys."""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from vlaser_gym.agents.vlaser.checkpoint import (
    CONFIG_FILE,
    UNUSED_FILE,
    WEIGHTS_FILE,
    CheckpointError,
    load_policy,
    read_unused,
    save_pretrained,
    save_released,
)
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.agents.vlaser.tokenizer import has_qwen_files, load_tokenizer
from vlaser_gym.cli import run


def main(config: DictConfig) -> None:
    """Load, report, write."""
    source, target = Path(config.source), Path(config.target)
    released = target.suffix == ".pt"
    _check_target(source, target, released=released, overwrite=config.overwrite)
    settings = {} if config.time_max_period is None else {"time_max_period": config.time_max_period}
    policy, report = load_policy(source, robot=config.robot, dtype=config.dtype, seed=config.seed, settings=settings)
    print("\n".join(report.lines()))
    unused = read_unused(source) if config.keep_unused or released else {}
    unused = {key: tensor.to(policy.dtype) for key, tensor in unused.items()}
    if released:
        made = save_released(policy, target, unused)
        print(*(f"made up  {key}: zeros, no action depends on it" for key in made), sep="\n", end="\n" if made else "")
    else:
        save_pretrained(policy, target, unused)
        _write_processor(policy, source, target, config.tokenizer)
    size = sum(f.stat().st_size for f in ([target] if released else target.iterdir()) if f.is_file())
    print(f"written  {target} ({size / 1e9:.2f} GB)")


def _check_target(source: Path, target: Path, *, released: bool, overwrite: bool) -> None:
    taken = target if released else target / WEIGHTS_FILE
    if target.resolve() == source.resolve():
        raise CheckpointError(f"Source and target should differ; both are {source}.")
    if not released and target.is_file():
        raise CheckpointError(f"The target should be a folder or end in .pt; {target} is a file.")
    if taken.exists() and not overwrite:
        raise CheckpointError(f"{taken} exists already. Choose another target, or overwrite=true.")
    (target.parent if released else target).mkdir(parents=True, exist_ok=True)


def _write_processor(policy: VlaserPolicy, source: Path, target: Path, tokenizer: str | None) -> None:
    """Tokenizer and statistics next to the weights: copied from a folder of ours, else made for the robot."""
    if (source / "processor.json").is_file() and tokenizer is None:
        weights = {CONFIG_FILE, WEIGHTS_FILE, UNUSED_FILE}
        for file in source.iterdir():
            if file.is_file() and file.name not in weights:
                shutil.copyfile(file, target / file.name)
    elif tokenizer is not None or has_qwen_files(source):
        Processor.build(policy.config, load_tokenizer(tokenizer or source)).save(target)
    else:
        print(f"no tokenizer: put InternVL3's tokenizer files into {target}, or convert again with tokenizer=FOLDER")


if __name__ == "__main__":
    run("convert", main)
