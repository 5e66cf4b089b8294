"""Tasks of one's own from a YAML file: which object goes where, what is said, where things lie.

::

    name: mug_on_plate                      # default: the file's name
    instruction: put the mug on the plate   # or a list, of which each layout has one
    source: objects/mug                     # a thing's name, or the folder of an object of one's own
    target: plate
    relation: onto                          # onto, over or into
    region:                                 # where they are drawn from, metres and degrees
      source: {x: [-0.2, -0.1], y: [-0.1, 0.1], yaw: [0, 360]}
      clearance: 0.03

or another task with something changed::

    like: widowx_carrot_on_plate
    layouts: poses.yaml                     # a list: {source: [x, y, yaw], target: [x, y, yaw]}
    max_steps: 80

Everything is on the WidowX's table; ``docs/own_scenes.md`` describes the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from vlaser_gym.conventions.rotations import heading, turned_about_z
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import google_objects, google_settled, objects, settled, widowx
from vlaser_gym.envs.tasks.base import Floats, Task
from vlaser_gym.envs.tasks.own_objects import Rest, Thing, digest, load_object
from vlaser_gym.envs.tasks.put_on import PutOnTask
from vlaser_gym.envs.tasks.region import Rectangle, Region, Spot
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

ENDINGS = (".yaml", ".yml")
#: Height of the WidowX's table, m.
TABLE = 0.87
#: What the arm reaches and the camera sees well: the benchmark's squares with a margin of 4 cm.
AREA: Rectangle = (-0.275, -0.045, -0.115, 0.115)
#: Relation -> slack of the vertical rule (m), and whether the source may touch nothing but target and robot. No name is
#: a word of YAML, as "on" is, which means true there.
RELATIONS: dict[str, tuple[float, bool]] = {"onto": (0.02, True), "over": (0.02, False), "into": (0.06, False)}
#: Of the first two objects of a task.
ROLES = ("source", "target")
_GRID, _CLEARANCE = 24, 0.03
#: Tasks by file and checksum: one that is asked for again is the same object, which other processes know already.
_MADE: dict[tuple[Path, str], PutOnTask] = {}
_KEYS = ("name", "instruction", "source", "target", "relation", "region", "layouts", "grid", "max_steps", "like")
_OF_PARTS = ("source", "target", "relation", "region", "grid")


def is_task_file(text: str) -> bool:
    """True for the name of a YAML file."""
    return text.endswith(ENDINGS)


def read_task(file: str | Path, find: Callable[[str], Task]) -> PutOnTask:
    """The task that a YAML file describes.

    Args:
        file: its name; names of files in it are relative to its folder.
        find: gives the task of a name, for ``like:``.

    Raises:
        InvalidConfigError: for a file that cannot be read, or an entry that is not as it must be.
        UnknownNameError: for a key, a thing, a relation or a task that does not exist.
        StorageError: for a folder that holds no object.
    """
    path = Path(file)
    values = _read(path)
    if not isinstance(values, Mapping):
        raise InvalidConfigError(f"The task {path} needs lines KEY: VALUE (docs/own_scenes.md); got {values!r:.60}.")
    entry = _Entry(path, values)
    entry.check_keys(_KEYS)
    known = (path.resolve(), _checksum(entry))
    if known not in _MADE:
        task = _changed(entry, find) if entry.has("like") else _from_parts(entry)
        task.definition = known[1]
        _MADE[known] = task
    return _MADE[known]


@dataclass(frozen=True)
class _Entry:
    """A mapping of a task's file, with errors that name the file."""

    file: Path
    values: Mapping[str, Any]
    where: str = ""

    def has(self, key: str) -> bool:
        """True if the file gives this key."""
        return key in self.values

    def get(self, key: str, default: Any = None) -> Any:
        """A value.

        Raises:
            InvalidConfigError: if it is absent and has no default.
        """
        value = self.values.get(key, default)
        if value is None:
            raise InvalidConfigError(f"The task {self.file} needs {self.where}{key}: (docs/own_scenes.md).")
        return value

    def text(self, key: str) -> str:
        """A value that is text.

        Raises:
            InvalidConfigError: if it is absent, or something else.
        """
        value = self.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "a name", value)
        return value

    def check_keys(self, known: Sequence[str]) -> None:
        """Refuse other keys than the known ones.

        Raises:
            UnknownNameError: for the first of them.
        """
        for key in self.values:
            if key not in known:
                raise UnknownNameError(f"key of the task {self.file}", f"{self.where}{key}", known)

    def below(self, key: str) -> _Entry:
        """The keys below a key; none where it is absent or empty.

        Raises:
            InvalidConfigError: if there is a plain value.
        """
        value = self.values.get(key) or {}
        if not isinstance(value, Mapping):
            raise self.wrong(key, "keys below it", value)
        return _Entry(self.file, value, f"{self.where}{key}.")

    def number(self, key: str, default: float, least: float) -> float:
        """A number that is at least ``least``.

        Raises:
            InvalidConfigError: if it is smaller, or no number.
        """
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
            raise self.wrong(key, f"a number from {least:g} on", value)
        return float(value)

    def interval(self, key: str, default: tuple[float, float]) -> tuple[float, float]:
        """Two numbers, of which the first is not the greater one.

        Raises:
            InvalidConfigError: if the value is no such pair.
        """
        value = self.get(key, list(default))
        numbers = isinstance(value, list) and all(isinstance(end, int | float) for end in value)
        if not numbers or len(value) != 2 or value[0] > value[1]:
            raise self.wrong(key, "[LEAST, GREATEST]", value)
        return float(value[0]), float(value[1])

    def sentences(self, key: str) -> tuple[str, ...]:
        """A sentence, or several.

        Raises:
            InvalidConfigError: if there is none, or an empty one.
        """
        value = self.get(key)
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise self.wrong(key, "a sentence or a list of sentences", value)
        return tuple(texts)

    def wrong(self, key: str, expected: str, value: Any) -> InvalidConfigError:
        """The error for a value that is not as it must be."""
        return InvalidConfigError(f"The task {self.file} needs {expected} as {self.where}{key}:; got {value!r}.")


def _read(path: Path) -> Any:
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415  who only imports the package reads no file
    from yaml import YAMLError  # noqa: PLC0415

    from vlaser_gym.settings.reading import read_yaml  # noqa: PLC0415

    try:
        found = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        said = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise InvalidConfigError(
            f"{path} cannot be read as YAML ({said}): expected a file that describes a task or its layouts "
            "(docs/own_scenes.md)."
        ) from error
    return found


def put_on_table(
    name: str,
    instruction: Sequence[str],
    things: Sequence[Thing],
    *,
    relation: str = "onto",
    spots: Sequence[Spot] = (),
    clearance: float = _CLEARANCE,
    grid: Floats | int = _GRID,
    max_steps: int = 60,
) -> PutOnTask:
    """The task to put the first of two things on the second, both on the WidowX's table in their first posture.

    Args:
        name: of the task.
        instruction: sentences, of which each layout has one.
        things: source and target.
        relation: one of :data:`RELATIONS`.
        spots: where each may lie; empty: anywhere in :data:`AREA`, in every heading.
        clearance: least distance between their footprints, m.
        grid: layouts ``[n, 2, 7]``, or how many are drawn once by the task's name.
        max_steps: control steps until truncation.

    Raises:
        InvalidConfigError: if the spots leave no room.
    """
    everywhere = [Spot(AREA, (-np.pi, np.pi), thing.rests[0].footprint) for thing in things]
    bases = resting_poses(things)[None]
    region = Region(bases[:0], bases, tuple(spots or everywhere), clearance)
    if isinstance(grid, int):
        grid = np.array([region.draw(Address(name, layout=f"grid:{k}").rng("layout")) for k in range(grid)])
    grid.setflags(write=False)
    region = replace(region, grid=grid)
    margin, alone = RELATIONS[relation]
    specs = tuple(thing.spec for thing in things)
    return PutOnTask(
        name,
        instruction,
        specs,
        region,
        max_steps=max_steps,
        z_margin=margin,
        completely_on=alone,
        region2=region,
    )


def resting_poses(things: Sequence[Thing]) -> Floats:
    """Poses on the table, at its origin, ``[n, 7]``."""
    return np.array([thing.rests[0].pose(TABLE) for thing in things])


def _from_parts(entry: _Entry) -> PutOnTask:
    """Source and target on the table, and the rule for them."""
    relation = str(entry.get("relation", "onto"))
    if relation not in RELATIONS:
        raise UnknownNameError(f"relation of the task {entry.file}", relation, RELATIONS)
    things = [_thing(entry, role) for role in ROLES]
    if things[0].spec.name == things[1].spec.name:
        raise InvalidConfigError(f"The task {entry.file} needs two different things; got {things[0].spec.name} twice.")
    where = entry.below("region")
    where.check_keys((*ROLES, "clearance"))
    grid: Floats | int = int(entry.number("grid", _GRID, 1))
    if entry.has("layouts"):
        grid = _layouts(entry, [thing.spec.name for thing in things], resting_poses(things))
    return put_on_table(
        _name(entry),
        entry.sentences("instruction"),
        things,
        relation=relation,
        spots=[_spot(where.below(role), thing.rests[0]) for role, thing in zip(ROLES, things, strict=True)],
        clearance=where.number("clearance", _CLEARANCE, 0),
        grid=grid,
        max_steps=int(entry.number("max_steps", 60, 1)),
    )


def _changed(entry: _Entry, find: Callable[[str], Task]) -> PutOnTask:
    """A task that is there, with other layouts, words or limit."""
    base = find(entry.text("like"))
    if not isinstance(base, PutOnTask):
        raise InvalidConfigError(
            f"The task {entry.file} needs a task of the WidowX as like:; got {base.name}, whose layouts are not poses "
            "of objects alone."
        )
    for key in _OF_PARTS:
        if entry.has(key):
            raise InvalidConfigError(f"The task {entry.file} takes {key} from like: {base.name}; leave {key}: out.")
    grid = None
    if entry.has("layouts"):
        grid = _layouts(entry, [str(body.name) for body in base.objects], base.layout("grid:0").object_pose)
    steps = int(entry.number("max_steps", base.max_steps, 1))
    words = entry.sentences("instruction") if entry.has("instruction") else None
    return base.like(_name(entry), instruction=words, grid=grid, max_steps=steps)


def _name(entry: _Entry) -> str:
    return entry.text("name") if entry.has("name") else entry.file.stem


def _checksum(entry: _Entry) -> str:
    """Checksum of the file, its layouts and its objects."""
    value = crc32(entry.file.read_bytes())
    if isinstance(entry.values.get("layouts"), str):
        value = crc32(repr(_read(entry.file.parent / entry.values["layouts"])).encode(), value)
    folders = [entry.file.parent / _named(entry, role)[0] for role in ROLES if entry.has(role)]
    for folder in folders:
        value = crc32(digest(folder).encode(), value) if folder.is_dir() else value
    return f"{value:08x}"


def _named(entry: _Entry, role: str) -> tuple[str, int]:
    """The name of a thing and the number of its posture."""
    if isinstance(entry.get(role), Mapping):
        below = entry.below(role)
        below.check_keys(("object", "rest"))
        return below.text("object"), int(below.number("rest", 0, 0))
    return entry.text(role), 0


def _thing(entry: _Entry, role: str) -> Thing:
    """A thing in the posture that is asked for, its likeliest without a word about it."""
    name, number = _named(entry, role)
    folder = entry.file.parent / name
    known = table_things()
    if name not in known and not folder.is_dir():
        raise UnknownNameError(f"{role} of the task {entry.file} (a thing, or a folder of assets object)", name, known)
    thing = known[name] if name in known else load_object(folder)
    if number >= len(thing.rests):
        raise entry.wrong(role, f"rest: from 0 to {len(thing.rests) - 1}", entry.get(role))
    return replace(thing, rests=(thing.rests[number],))


def table_things() -> dict[str, Thing]:
    """The things of the WidowX's table, as they rest there."""
    carrot, spoon, cubes = (task.region().spots for task in widowx.TASKS[:3])
    eggplant = google_settled.resting("eggplant", "flat", 0.0, (0.0, 0.0), 0.0)
    return {
        "carrot": Thing(objects.CARROT, (_rest(settled.CARROT[0], carrot[0]),)),
        "plate": Thing(objects.PLATE, (_rest(settled.PLATE[0], carrot[1]),)),
        "spoon": Thing(objects.SPOON, (_rest(settled.SPOON[0], spoon[0]),)),
        "towel": Thing(objects.CLOTH, (_rest(settled.CLOTH[0], spoon[1]),)),
        "green_cube": Thing(objects.GREEN_CUBE, (_rest(settled.CUBE[0], cubes[0]),)),
        "yellow_cube": Thing(objects.YELLOW_CUBE, (_rest(settled.CUBE[0], cubes[1]),)),
        "eggplant": Thing(
            google_objects.catalogued("eggplant"),
            (Rest(float(eggplant[2]), tuple(eggplant[3:]), google_settled.footprint("eggplant", "flat")),),
        ),
    }


def _rest(pose: Floats, spot: Spot) -> Rest:
    unturned = turned_about_z(pose[3:], -float(heading(pose[3:])))
    return Rest(float(pose[2]) - TABLE, tuple(unturned.tolist()), spot.footprint)


def _spot(entry: _Entry, rest: Rest) -> Spot:
    entry.check_keys(("x", "y", "yaw"))
    low_x, high_x, low_y, high_y = AREA
    x, y = entry.interval("x", (low_x, high_x)), entry.interval("y", (low_y, high_y))
    low, high = np.deg2rad(entry.interval("yaw", (-180.0, 180.0)))
    return Spot((*x, *y), (float(low), float(high)), rest.footprint)


def _layouts(entry: _Entry, names: Sequence[str], rests: Floats) -> Floats:
    """Layouts that are given ``[n, n_objects, 7]``: a list, or the name of a file with it.

    Args:
        entry: the task's.
        names: of the objects; the first two are also called source and target.
        rests: a resting pose of each, ``[n_objects, 7]``, for poses that are given by place and heading alone.
    """
    given = entry.get("layouts")
    rows = _read(entry.file.parent / given) if isinstance(given, str) else given
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise entry.wrong("layouts", "a list of layouts, each with a pose of every object,", given)
    grid = np.array([_layout(entry, k, row, names, rests) for k, row in enumerate(rows)])
    grid.setflags(write=False)
    return grid


def _layout(entry: _Entry, number: int, row: Mapping[str, Any], names: Sequence[str], rests: Floats) -> Floats:
    poses = np.array(rests)
    places = {name: index for index, name in enumerate(names)} | {role: index for index, role in enumerate(ROLES)}
    for name, values in row.items():
        if name not in places:
            raise UnknownNameError(f"object of layout {number} of the task {entry.file}", str(name), places)
        pose = np.array(values if isinstance(values, list) else [], object)
        if not all(isinstance(part, int | float) for part in pose) or len(pose) not in (3, 7):
            raise entry.wrong(f"layouts.{number}.{name}", "[x, y, yaw in degrees] or [x, y, z, qw, qx, qy, qz]", values)
        poses[places[name]] = _posed(pose.astype(np.float64), rests[places[name]])
    for role in ROLES:
        if not {role, names[places[role]]} & row.keys():
            raise InvalidConfigError(f"Layout {number} of the task {entry.file} needs a pose of {role}.")
    return poses


def _posed(values: Floats, rest: Floats) -> Floats:
    if len(values) == 7:
        return np.concatenate([values[:3], values[3:] / np.linalg.norm(values[3:])])
    turn = np.deg2rad(values[2]) - heading(rest[3:])
    return np.array([*values[:2], rest[2], *turned_about_z(rest[3:], float(turn))])
