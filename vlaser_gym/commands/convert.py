"""Convert a policy: ``python -m vlaser_gym.convert source=step45390.pt target=FOLDER``; ``--help`` lists the keys."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vlaser_gym.agents.vlaser import layouts
from vlaser_gym.agents.vlaser.averaging import average_into
from vlaser_gym.agents.vlaser.checkpoint import (
    CONFIG_FILE,
    UNUSED_FILE,
    WEIGHTS_FILE,
    CheckpointError,
    LoadReport,
    load_policy,
    read_unused,
    save_pretrained,
    save_released,
)
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import FILE_NAME as PROCESSOR_FILE
from vlaser_gym.agents.vlaser.processor import Processor, own_statistics, stored_files
from vlaser_gym.agents.vlaser.statistics import DATA_SET, OF_ROBOT, Statistics
from vlaser_gym.agents.vlaser.statistics import FILE_NAME as STATISTICS_FILE
from vlaser_gym.agents.vlaser.tokenizer import BUILT_IN, has_qwen_files
from vlaser_gym.cli import run, typed
from vlaser_gym.settings.commands import ConvertSettings
from vlaser_gym.storage.files import write_whole
from vlaser_gym.storage.hub import local_folder


def main(config: DictConfig) -> None:
    """Load a checkpoint, report what it holds and write it in the requested layout."""
    given = typed(ConvertSettings, config)
    source, target = local_folder(given.source, "source"), Path(given.target)
    released = target.suffix == ".pt"
    _check_target(source, target, released=released, overwrite=given.overwrite)
    settings = {} if given.time_max_period is None else {"time_max_period": given.time_max_period}
    policy, report = load_policy(source, robot=given.robot, dtype=given.dtype, seed=given.seed, settings=settings)
    print("\n".join(report.lines()))
    if given.average:
        average_into(policy, source, [local_folder(other, "average") for other in given.average], settings)
        print(f"averaged {len(given.average) + 1} policies, each counting alike")
    statistics = _statistics(source, policy.config, report, given.statistics)
    unused = read_unused(source) if given.keep_unused or released else {}
    unused = {key: tensor.to(policy.dtype) for key, tensor in unused.items()}
    if released:
        _write_released(policy, source, target, unused, statistics)
    else:
        save_pretrained(policy, target, unused)
        _write_processor(policy, source, target, given.tokenizer, statistics)
    size = sum(f.stat().st_size for f in ([target] if released else target.iterdir()) if f.is_file())
    print(f"written  {target} ({size / 1e9:.2f} GB)")


def _statistics(source: Path, config: VlaserConfig, report: LoadReport, given: str | None) -> Statistics | None:
    """Statistics of the result: the given ones, else the source's own, else for an original file the published."""
    own, robot = own_statistics(source) if given is None else Statistics.load(given), str(config.robot)
    if own is None and report.layout == "released":
        print(f"statistics of {DATA_SET[robot]}, which the released policies go by; others: statistics=FILE")
        own = OF_ROBOT[robot]
    if own is None:
        print("statistics none, so that nothing can act by it yet: algo=sft algo.statistics=data gives it its data's")
    elif own.proprio.size != config.proprio_dim:
        raise CheckpointError(
            f"Statistics for {robot} have {config.proprio_dim} proprioceptive dimensions; {given or source} has "
            f"{own.proprio.size}. Give those of the data that the policy was trained on."
        )
    return own


def _check_target(source: Path, target: Path, *, released: bool, overwrite: bool) -> None:
    taken = target if released else target / WEIGHTS_FILE
    if target.resolve() == source.resolve():
        raise CheckpointError(f"Source and target should differ; both are {source}.")
    if not released and target.is_file():
        raise CheckpointError(f"The target should be a folder or end in .pt; {target} is a file.")
    if taken.exists() and not overwrite:
        raise CheckpointError(f"{taken} exists already. Choose another target, or overwrite=true.")
    (target.parent if released else target).mkdir(parents=True, exist_ok=True)


def _write_released(
    policy: VlaserPolicy, source: Path, target: Path, unused: dict[str, Any], statistics: Statistics | None
) -> None:
    """A ``.pt``, and what differs between it and the source."""
    own = {} if statistics is None else {STATISTICS_FILE: asdict(statistics)}
    files = {**stored_files(source), **own}
    made = save_released(policy, target, unused, files)
    for key in made:
        print(f"made up  {key}: zeros, no action depends on it")
    appended = layouts.released_rows(policy.config) - policy.config.vocab_size
    if appended:
        print(f"appended {appended} rows of zeros to the token tables: the original adds tokens that no prompt holds")
    if files.get(PROCESSOR_FILE, {}).get("tokenizer") not in BUILT_IN:
        print("tokenizer not in the file: keep its files beside it")
    if not layouts.fits_original(policy.config):
        print("sizes    of no policy of the original's: this gym alone can read the file")


def _write_processor(
    policy: VlaserPolicy, source: Path, target: Path, tokenizer: str | None, statistics: Statistics | None
) -> None:
    """Tokenizer, prompt and statistics next to the weights: the source's, with what was given in their place."""
    stored = stored_files(source)
    beside = source if source.is_dir() else source.parent
    if (source / PROCESSOR_FILE).is_file() and tokenizer is None:
        weights = {CONFIG_FILE, WEIGHTS_FILE, UNUSED_FILE}
        for file in source.iterdir():
            if file.is_file() and file.name not in weights:
                write_whole(target / file.name, file.read_bytes())
    elif tokenizer is not None or has_qwen_files(beside) or stored.get(PROCESSOR_FILE, {}).get("tokenizer") in BUILT_IN:
        known = statistics or OF_ROBOT[str(policy.config.robot)]
        Processor.load(source, policy.config, tokenizer=tokenizer, statistics=known).save(target)
    else:
        print(f"no tokenizer: put InternVL3's tokenizer files into {target}, or convert again with tokenizer=FOLDER")
        if PROCESSOR_FILE in stored:
            write_whole(target / PROCESSOR_FILE, (json.dumps(stored[PROCESSOR_FILE], indent=2) + "\n").encode())
    if statistics is not None:
        statistics.save(target)
    else:
        (target / STATISTICS_FILE).unlink(missing_ok=True)


def command() -> None:
    """``python -m vlaser_gym.convert``."""
    run("convert", main)
