"""Moments: images of episodes, and beside each what is true in it.

A moment is a line of ``moments.jsonl`` in a folder of questions. Questions are made from these lines alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions import rotations
from vlaser_gym.reasoning.coordinates import Mask, decode_mask, encode_mask, mask_box
from vlaser_gym.reasoning.episodes import Episode
from vlaser_gym.reasoning.subtasks import next_subtask, subtasks
from vlaser_gym.reasoning.things import thing_masks

#: A thing is seen if it covers this many pixels.
LEAST_PIXELS = 80
#: A pixel of a thing that is asked about is this far from the thing's outline, where the thing is wide enough.
_PROBE_DEPTH = 3.0


@dataclass(frozen=True)
class SeenThing:
    """A thing in an image.

    Attributes:
        kind: ``object``, ``handle``, ``gripper`` or ``container``.
        moves: it may be elsewhere in another image.
        area: pixels that show it.
        mask: those pixels, in COCO's run lengths; ``None`` where it is not seen.
        box: around them; left, top, right, bottom, the last two one past the last pixel.
        inside: the pixel (column, row) that is deepest inside.
        probe: a pixel inside, drawn at random.
        world: its centre in the world, m.
        robot: its centre in the robot's frame (forward, left, up), m.
        camera: its centre as the camera sees it (right, down, forward), m.
        pixel: where that is in the image.
    """

    kind: str
    moves: bool
    area: int
    mask: dict[str, Any] | None
    box: list[int]
    inside: list[int]
    probe: list[int]
    world: list[float]
    robot: list[float]
    camera: list[float]
    pixel: list[float]

    @property
    def is_seen(self) -> bool:
        """Enough of it is in the image."""
        return self.area >= LEAST_PIXELS

    def decoded(self) -> Mask:
        """The mask ``[H, W]`` of a thing that is seen."""
        assert self.mask is not None
        return decode_mask(self.mask)


@dataclass(frozen=True)
class Moment:
    """An image and what is true in it.

    Attributes:
        id: number among the moments of a folder, as text.
        image: path of the image below the folder.
        step, last: control steps so far, and those of the whole episode.
        done: what the robot is told is done now.
        succeeded: the task is done at the episode's end.
        held: what the gripper holds, ``""`` for nothing, ``None`` where that is not clear.
        openness: of the gripper, 0 to 1.
        direction, trace: where the gripper goes next; see :class:`~vlaser_gym.reasoning.episodes.Episode`.
        openings: of the drawers, m.
        subtasks, subtask: the task's sub-tasks, and the number of the one that comes next.
        ending: how the episode ended, told at its last step.
        on_target: the task's own flag for the source being on its target; ``None`` in tasks without it.
        things: by name.
    """

    id: str
    image: str
    width: int
    height: int
    look: str
    robot: str
    task: str
    variant: str
    layout: str
    trial: int
    run: str
    step: int
    last: int
    instruction: str
    source: str
    target: str
    drawer: str
    done: bool
    succeeded: bool
    held: str | None
    openness: float
    direction: str
    trace: list[list[float]]
    openings: dict[str, float]
    subtasks: list[str]
    subtask: int | None
    ending: str
    on_target: bool | None
    things: dict[str, SeenThing]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Moment:
        """The moment of a line.

        Raises:
            TypeError: if fields are missing or there are others.
        """
        things = {name: SeenThing(**thing) for name, thing in data["things"].items()}
        return cls(**{**data, "things": things})

    def as_json(self) -> dict[str, Any]:
        """Dictionary for a line of JSON."""
        return asdict(self)

    @property
    def episode(self) -> tuple[str, str, str, str, int]:
        """The identifier of its episode."""
        return self.run, self.task, self.variant, self.layout, self.trial

    def seen(self, *kinds: str) -> list[str]:
        """Names of the things of these kinds (of all, if none is given) that are in the image, sorted."""
        return sorted(n for n, thing in self.things.items() if thing.is_seen and (not kinds or thing.kind in kinds))


def choose_steps(last: int, count: int, rng: np.random.Generator) -> list[int]:
    """Steps of an episode that are shown: the first, the last, and others between them at random.

    Example:
        >>> choose_steps(10, 2, np.random.default_rng(0))
        [0, 10]
    """
    between = rng.permutation(np.arange(1, last))[: max(0, count - 2)]
    return sorted({0, last, *(int(step) for step in between)}) if count > 1 else [0]


def observe(
    episode: Episode,
    step: int,
    number: str,
    run: str,
    look: str,
    segmentation: NDArray[np.uint8],
    labels: tuple[str, ...],
    rng: np.random.Generator,
) -> Moment:
    """The facts at a step of an episode, in the image with the segmentation ``[H, W]``.

    Args:
        number: id of the moment.
        run: name of the run that the episode is of.
        look: of the image.
        labels: what the segmentation's values stand for.
        rng: draws the probes.
    """
    height, width = segmentation.shape
    masks = thing_masks(episode.things, segmentation, labels)
    is_last = step == episode.last
    return Moment(
        id=number,
        image=f"images/{number}.jpg",
        width=width,
        height=height,
        look=look,
        robot=episode.robot,
        task=episode.address.task,
        variant=episode.address.variant,
        layout=episode.address.layout,
        trial=episode.address.trial,
        run=run,
        step=step,
        last=episode.last,
        instruction=episode.instruction(step),
        source=episode.source,
        target=episode.target,
        drawer=episode.drawer,
        done=episode.done(step),
        succeeded=episode.succeeded,
        held=episode.held(step),
        openness=round(float(episode.openness[step]), 4),
        direction=episode.direction(step) if episode.succeeded else "",
        trace=_inside(episode.trace(step), width, height) if episode.succeeded else [],
        openings={name: round(value, 4) for name, value in episode.openings(step).items()},
        subtasks=subtasks(episode, step),
        subtask=next_subtask(episode, step),
        ending=episode.ending() if is_last else "",
        on_target=episode.flag("src_on_target", step) if "src_on_target" in episode.task.flags else None,
        things=_places(episode, step, masks, rng),
    )


def _inside(trace: list[list[float]], width: int, height: int) -> list[list[float]]:
    """A trace that stays in the image; else none."""
    return trace if all(0 <= x < width and 0 <= y < height for x, y in trace) else []


def _places(episode: Episode, step: int, masks: Mapping[str, Mask], rng: np.random.Generator) -> dict[str, SeenThing]:
    names = list(episode.things)
    world = np.array([episode.centres[name][step] for name in names])
    qpos, base = (np.repeat(array[step : step + 1], len(names), axis=0) for array in (episode.qpos, episode.base))
    camera = episode.projector.seen(qpos, base, world)
    pixels = episode.projector.pixels(camera)
    robot = _in_frame(base[0], world)
    return {
        name: _place(episode, name, masks[name], rng, world[i], robot[i], camera[i], pixels[i])
        for i, name in enumerate(names)
    }


def _in_frame(base: NDArray[np.float64], world: NDArray[np.float64]) -> NDArray[np.float64]:
    back = rotations.matrix_from_quaternion(base[3:]).T
    return np.asarray(rotations.rotate(back, world - base[:3]))


def _place(
    episode: Episode, name: str, mask: Mask, rng: np.random.Generator, *centres: NDArray[np.float64]
) -> SeenThing:
    thing, area = episode.things[name], int(np.count_nonzero(mask))
    world, robot, camera, pixel = ([round(float(value), 4) for value in centre] for centre in centres)
    if not area:
        return SeenThing(thing.kind, thing.moves, 0, None, [], [], [], world, robot, camera, pixel)
    box = mask_box(mask)
    inside, probe = _pixels_inside(mask, box, rng)
    return SeenThing(
        thing.kind, thing.moves, area, encode_mask(mask), list(box), inside, probe, world, robot, camera, pixel
    )


def _pixels_inside(mask: Mask, box: Sequence[int], rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """The deepest pixel of a mask (column, row), and one drawn from those that are not at its outline."""
    left, top, right, bottom = box
    part = np.pad(mask[top:bottom, left:right], 1).astype(np.uint8)
    depth = cv2.distanceTransform(part, cv2.DIST_L2, 5)[1:-1, 1:-1]
    deepest = int(depth.argmax())
    inner = np.flatnonzero(depth >= min(_PROBE_DEPTH, float(depth.max())))
    places = [divmod(int(index), depth.shape[1]) for index in (deepest, inner[rng.integers(len(inner))])]
    inside, probe = ([left + column, top + row] for row, column in places)
    return inside, probe
