"""Several commands in a row, as a file lists them: ``python -m vlaser_gym.recipe first_rl run=runs/first``.

A recipe is a YAML file: under ``stages`` the commands by names of one's own, each with its keys as in Python (groups
are mappings with ``name``); ``${run}`` is the folder of everything, and other keys at the top can be referred to alike.
A stage with ``each``, a mapping, is one stage for each name in it: ``vlm`` with ``each: {qa: {steps: 9}}`` is
``vlm_qa``, in which ``${each.name}`` stands for ``qa`` and ``${each.steps}`` for 9.
The stages run as the commands do, in processes of their own, and are printed first, so that each can be typed alone.
All commands go on where they stopped, and so does a recipe: what is finished is found and not done again.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vlaser_gym.cli import load, named, run, typed
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.settings.commands import COMMAND_SETTINGS, RecipeSettings
from vlaser_gym.settings.words import overrides

#: Recipes of the package, by the names of their files.
RECIPES = Path(str(files("vlaser_gym") / "recipes"))


@dataclass(frozen=True)
class Stage:
    """One command of a recipe.

    Attributes:
        name: the recipe's word for it.
        command: which command.
        words: its ``key=value`` words.
    """

    name: str
    command: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(["python", "-m", f"vlaser_gym.{self.command}", *self.words])


def main(config: DictConfig) -> None:
    """Run the stages one after another; the first that fails ends the recipe with its status."""
    settings = typed(RecipeSettings, config)
    folder = settings.run or f"runs/{Path(settings.recipe).stem}"
    stages = read_recipe(settings.recipe, folder, settings.stages, settings.top)
    for number, stage in enumerate(stages, 1):
        print(f"\n[{number}/{len(stages)}] {stage.name}\n$ {stage}", flush=True)
        if settings.dry:
            continue
        status = _finished([sys.executable, "-m", f"vlaser_gym.{stage.command}", *stage.words])
        if status:
            print(f"\nThe stage {stage.name} ended with status {status}; the same command goes on.", file=sys.stderr)
            sys.exit(status)


def read_recipe(
    name: str, folder: str, changes: Mapping[str, Any] | None = None, top: Mapping[str, Any] | None = None
) -> list[Stage]:
    """The stages of a recipe, every key of them checked.

    Args:
        name: of a recipe in the package, or the path of a YAML file.
        folder: what ``${run}`` stands for.
        changes: keys by stage that replace the recipe's, such as ``{"ppo": {"algo": {"iterations": 5}}}``; ``None``
            for a stage that is left out.
        top: other values of the keys at the top of the recipe, such as ``{"seed": 1}``.

    Raises:
        UnknownNameError: for a recipe, a stage, a command or a key that does not exist.
        InvalidConfigError: for a file that is no recipe, or a value out of its range.
    """
    recipe = _read(name)
    own = [key for key in recipe if key != "stages"]
    for key in top or {}:
        if key not in own:
            raise UnknownNameError(f"key of {name}", key, own)
    try:
        recipe = OmegaConf.merge(recipe, dict(top or {}), {"run": folder})
        parts = [_expanded(str(stage), keys) for stage, keys in recipe.stages.items()]
        listed = {stage: keys for part in parts for stage, keys in part.items()}
        for stage in changes or {}:
            if stage not in listed:
                raise UnknownNameError(f"stage of {name}", stage, list(listed))
        recipe.stages = listed
        resolved = OmegaConf.to_container(OmegaConf.merge(recipe, {"stages": dict(changes or {})}), resolve=True)
    except OmegaConfBaseException as error:
        raise InvalidConfigError(f"{name} is no recipe as it stands: {str(error).splitlines()[0]}.") from error
    assert isinstance(resolved, dict)
    return [_stage(str(stage), dict(keys)) for stage, keys in resolved["stages"].items() if keys is not None]


def _read(name: str) -> DictConfig:
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in RECIPES.glob("*.yaml"))
        raise UnknownNameError("recipe (or YAML file of one)", name, known)
    try:
        recipe = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise InvalidConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error
    stages = recipe.get("stages") if isinstance(recipe, DictConfig) else None
    if not isinstance(stages, DictConfig) or not all(isinstance(keys, DictConfig) for keys in stages.values()):
        raise InvalidConfigError(f"{path} is no recipe: expected stages: with a mapping of keys below each name.")
    assert isinstance(recipe, DictConfig)
    return recipe


def _expanded(name: str, keys: DictConfig) -> dict[str, Any]:
    """The stages that a stage stands for, by name, their references unresolved."""
    template = OmegaConf.to_container(keys)
    assert isinstance(template, dict)
    if template.pop("each", None) is None:
        return {name: template}
    items = OmegaConf.to_container(keys.each) if isinstance(keys.each, DictConfig) else None
    if not isinstance(items, dict) or not all(isinstance(values, dict) for values in items.values()):
        raise InvalidConfigError(f"each of the stage {name} should be a mapping of names to mappings; got {keys.each}.")
    return {f"{name}_{item}": _filled(template, {**values, "name": item}) for item, values in items.items()}


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    """A copy of a stage's keys in which each ``${each.KEY}`` is replaced; other references stay."""
    if isinstance(template, dict):
        return {key: _filled(of, values) for key, of in template.items()}
    if isinstance(template, list):
        return [_filled(of, values) for of in template]
    if not isinstance(template, str):
        return template
    for key, value in values.items():
        if template == f"${{each.{key}}}":
            return value
        template = template.replace(f"${{each.{key}}}", str(value))
    return template


def _stage(name: str, keys: dict[str, Any]) -> Stage:
    """A stage whose words its command takes."""
    command = str(keys.pop("command", None))
    if command not in COMMAND_SETTINGS:
        raise UnknownNameError(f"command of the stage {name}", command, COMMAND_SETTINGS)
    words = tuple(overrides(command, **keys))
    typed(COMMAND_SETTINGS[command], load(command, words))
    return Stage(name, command, words)


def _finished(words: Sequence[str]) -> int:
    """The status of a process that Ctrl-C reaches too: it is waited for, and it says how it ended."""
    with subprocess.Popen(words) as process:
        while True:
            try:
                status = process.wait()
                return status if status >= 0 else 128 - status
            except KeyboardInterrupt:
                continue


def command() -> None:
    """``python -m vlaser_gym.recipe``."""
    run("recipe", main, named(sys.argv[1:], "recipe"))
