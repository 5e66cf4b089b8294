"""The original's assets, and objects of one's own: ``python -m vlaser_gym.assets fetch|import DIR|check|object MESH``.

``--help`` lists the keys.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import track

from vlaser_gym.cli import run, typed
from vlaser_gym.envs.assets import MANIFEST, Status, default_directory
from vlaser_gym.envs.assets.pack import examine
from vlaser_gym.envs.assets.transfer import Outcome, from_directory, importable, over_http, transfer
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.table import make_console
from vlaser_gym.settings.commands import ASSET_ACTIONS, AssetsSettings
from vlaser_gym.settings.fields import check_unread

_SHOWN = 10
#: Keys that ``assets object`` alone reads.
_OF_OBJECTS = (*("output", "unit", "density", "mass", "friction", "colour", "concavity", "pieces", "drops", "tries"),)
#: What the source says about licences, and what it does not say (read on 2026-11-22).
LICENCES = f"""\
These files are not part of vlaser-gym and keep their own licences:
  repository   {MANIFEST.source} at {MANIFEST.commit[:12]}: LICENSE file Apache-2.0 for the whole repository;
               it states no separate licence and no origin for single meshes and textures.
  ManiSkill2   the project it derives from states CC BY-NC 4.0 (no commercial use) for its own assets.
  stages       "Minimalistic Modern Bedroom" is credited as CC BY 4.0 in a comment of the source.
  SimplerEnv   the evaluation code that uses them is MIT (simpler-env).
Whether your use is covered is yours to decide."""


def main(config: DictConfig) -> None:
    """Fetch, import or check, then say what is there, with status 1 unless all of it is; or make an object."""
    settings = typed(AssetsSettings, config)
    if settings.action == "object":
        _make_object(settings)
        return
    check_unread(settings, _OF_OBJECTS, f"assets {settings.action}")
    directory = Path(settings.directory) if settings.directory is not None else default_directory()
    outcomes = [] if settings.action == "check" else _bring(settings, directory)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    lines = [f"failed: {outcome.path}: {outcome.reason}" for outcome in failed[:_SHOWN]]
    lines += [f"... and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else []
    lines += ["Run the same command again: what is whole is kept, what was cut goes on."] if failed else []
    status = examine(directory)
    print("\n".join([*lines, *_report(directory, status)]))
    sys.exit(0 if status.complete and not failed else 1)


def _make_object(settings: AssetsSettings) -> None:
    """Make the object of a mesh, then say how it rests and how often it is held."""
    # Reading meshes and a whole environment take seconds that the other actions do without.
    from vlaser_gym.envs.modelling.making import Recipe, describe, make_object  # noqa: PLC0415
    from vlaser_gym.evaluation.holding import tries_to_hold  # noqa: PLC0415

    check_unread(settings, ("directory", "unverified"), "assets object")
    if settings.source is None:
        raise InvalidConfigError("assets object needs the mesh file: assets object MESH.")
    source = Path(settings.source)
    folder = Path(settings.output) if settings.output is not None else Path("objects") / source.stem
    recipe = Recipe(
        unit=settings.unit,
        density=settings.density,
        mass=settings.mass,
        friction=settings.friction,
        colour=_colour(settings.colour),
        concavity=settings.concavity,
        pieces=settings.pieces,
        drops=settings.drops,
    )
    made = make_object(source, folder, recipe)
    print("\n".join([*describe(made), f"Object: {folder}"]))
    if settings.tries:
        held = tries_to_hold(made.thing, settings.tries)
        print("\n".join(f"rest {number}: held in {count} of {settings.tries} tries" for number, count in held.items()))
        if not held:
            print("No posture has a grasp from above that fits the WidowX's fingers (48 mm): make the object smaller.")


def _colour(given: list[float] | None) -> tuple[float, float, float] | None:
    if given is None:
        return None
    if len(given) != 3 or not all(0 <= part <= 1 for part in given):
        raise InvalidConfigError(f"colour= needs red, green and blue from 0 to 1, as [0.8,0.2,0.1]; got {given}.")
    red, green, blue = given
    return red, green, blue


def _bring(settings: AssetsSettings, directory: Path) -> list[Outcome]:
    print(LICENCES + "\n")
    if settings.action == "fetch":
        source = over_http(settings.source or MANIFEST.address)
        paths = [*MANIFEST.files, *(MANIFEST.unknown if settings.unverified else ())]
        print(f"Fetching {len(paths)} files ({MANIFEST.size / 1e6:.0f} MB) from {settings.source or MANIFEST.address}")
    elif settings.source is None:
        raise InvalidConfigError("assets import needs the folder to read: assets import DIR.")
    else:
        source = from_directory(Path(settings.source))
        paths = importable(Path(settings.source), unverified=settings.unverified)
        print(f"Importing {len(paths)} files from {settings.source}")
    results = transfer(directory, source, paths)
    outcomes = list(track(results, "to " + str(directory), len(paths), console=make_console(), transient=True))
    counts = Counter(outcome.state for outcome in outcomes)
    print(", ".join(f"{counts[state]} {state}" for state in ("new", "kept", "failed")))
    return outcomes


def _report(directory: Path, status: Status) -> list[str]:
    known = len(MANIFEST.files)
    lines = [f"{directory}: {known - len(status.missing) - len(status.damaged)} of {known} files there and right"]
    for title, paths in (("missing", status.missing), ("damaged", status.damaged)):
        lines += [f"  {title}: {path}" for path in paths[:_SHOWN]]
        lines += [f"  {title}: ... and {len(paths) - _SHOWN} more"] if len(paths) > _SHOWN else []
    if status.optional:
        count = len(status.optional)
        lines += [f"  {count} meshes are stood in for (no checksum of them is known; unverified=true takes them)"]
    if status.complete:
        return [*lines, "look=original works with them."]
    return [
        *lines,
        "Get them: python -m vlaser_gym.assets fetch, or assets import DIR. look=builtin needs none of them.",
    ]


def arguments(argv: Sequence[str]) -> list[str]:
    """``fetch``, ``import DIR``, ``check`` and ``object MESH`` as ``key=value``.

    >>> arguments(["import", "some/folder", "directory=x"])
    ['action=import', 'source=some/folder', 'directory=x']
    """
    words = list(argv)
    if words and words[0] in ASSET_ACTIONS:
        action = words.pop(0)
        place = [f"source={words.pop(0)}"] if action in ("import", "object") and words and "=" not in words[0] else []
        return [f"action={action}", *place, *words]
    return words


def command() -> None:
    """``python -m vlaser_gym.assets``."""
    run("assets", main, arguments(sys.argv[1:]))
