"""Other things on the table: distractors, another size, colour, object or target."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from vlaser_gym.conventions.rotations import heading
from vlaser_gym.envs.engines.base import Body, Placement
from vlaser_gym.envs.perturbations.base import Floats, Moment, Perturbation
from vlaser_gym.envs.perturbations.beside import TABLES, Table
from vlaser_gym.envs.tasks import cabinet, get_task, settled
from vlaser_gym.envs.tasks.base import Layout, Task
from vlaser_gym.envs.tasks.google import TABLE_HEIGHT
from vlaser_gym.envs.tasks.google_objects import spoken
from vlaser_gym.envs.tasks.google_settled import resting
from vlaser_gym.errors import InvalidConfigError

_MUJOCO, _BUILTIN = ("mujoco",), ("builtin",)
_CLOTH, _PLATE = "table_cloth_generated_shorter", "bridge_plate_objaverse_larger"
#: What lies about, in this order, where it is not the task's own; and how it rests. All of them lie or stand firmly.
_DISTRACTORS = {
    "bridge_table": (
        ("eggplant", "flat"),
        ("bridge_spoon_generated_modified", "flat"),
        ("yellow_cube_3cm", "flat"),
        ("bridge_carrot_generated_modified", "flat"),
        ("green_cube_3cm", "flat"),
    ),
    "google_table": (
        ("opened_7up_can", "upright"),
        ("sponge", "flat"),
        ("opened_sprite_can", "upright"),
        ("opened_fanta_can", "upright"),
        ("opened_redbull_can", "upright"),
        ("green_cube_3cm", "flat"),
        ("yellow_cube_3cm", "flat"),
    ),
}
#: How the two targets of the WidowX table rest.
_TARGETS = {_PLATE: settled.PLATE[0], _CLOTH: settled.CLOTH[0]}
#: Another target for each of its tasks, and the sentence's word for it.
_OTHER_TARGET = {_PLATE: (_CLOTH, "towel"), _CLOTH: (_PLATE, "plate"), "baked_yellow_cube_3cm": (_PLATE, "plate")}
#: What is new to a task, by its own source on the WidowX table, and for the Google Robot; and how it rests.
_NEW = {
    "bridge_carrot_generated_modified": (("eggplant", "flat"), ("bridge_spoon_generated_modified", "flat")),
    "bridge_spoon_generated_modified": (("eggplant", "flat"), ("bridge_carrot_generated_modified", "flat")),
}
_GROCERIES = (("opened_sprite_can", "upright"), ("sponge", "flat"))
#: Colours that no source object of either robot has.
COLOURS: dict[str, tuple[float, float, float]] = {"blue": (0.16, 0.3, 0.85), "pink": (0.95, 0.45, 0.7)}
_COLOUR_WORDS = r"\b(green|yellow|orange|red|blue)(?= block| cube)"


def _on_a_table(task: Task) -> bool:
    return task.source >= 0 and task.scenery in TABLES


def _ground(task: Task) -> float:
    """Height of what objects stand on, m."""
    return cabinet.TOP if task.scenery == "google_cabinet" else TABLE_HEIGHT


def _source_of(task: Task, layout: Layout) -> int:
    return task.source if layout.source is None else layout.source


def _cast(placement: Placement) -> list[str]:
    """Names of an episode's objects."""
    return [body.name for body in placement.task.objects_of(placement.layout.cast)]


def _shape_family(name: str) -> str:
    """The same for models of one thing: with another texture or for another robot."""
    return spoken(name.removesuffix("_3cm"))


class Distractors(Perturbation):
    """Things that the task is not about lie on the table."""

    name, family, engines = "distractors", "vision", _MUJOCO
    sentence = "{strength} more object(s) on the table, at rest, clear of the task's own and of the way to the goal"
    strengths = (1.0, 2.0, 3.0)

    def applies(self, task: Task) -> bool:
        """Only to tasks with objects on a table."""
        return _on_a_table(task)

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Add them, one after another: those of a milder level stay where they are."""
        own, rng = _cast(placement), moment.of_episode()
        families = {_shape_family(name) for name in own}
        free = [(n, p) for n, p in _DISTRACTORS[placement.task.scenery] if _shape_family(n) not in families]
        table, chosen = Table(placement), free[: int(self.strength)]
        poses = [table.place(resting(n, p, 0.0, (0.0, 0.0), TABLE_HEIGHT), n, rng) for n, p in chosen]
        layout = placement.layout
        cast = "+".join([*own, *(name for name, _ in chosen)])
        together = np.concatenate([layout.object_pose, poses])
        return replace(placement, layout=replace(layout, object_pose=together, cast=cast))


class ObjectSize(Perturbation):
    """The object is larger or smaller than usual."""

    name, family, engines, looks = "object_size", "execution", _MUJOCO, _BUILTIN
    sentence = "size of the object to be moved times {strength}, or divided by it, by chance; its density stays"
    strengths = (1.1, 1.2, 1.35)

    def applies(self, task: Task) -> bool:
        """To objects on something level: in the sink they lean on each other."""
        return task.source >= 0 and task.scenery != "bridge_sink"

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Scale it about the place that it stands on: what rests goes on resting."""
        layout, task = placement.layout, placement.task
        index = _source_of(task, layout)
        scale = self.strength if moment.of_episode().random() < 0.5 else 1 / self.strength
        poses = np.array(layout.object_pose)
        poses[index, 2] = _ground(task) + scale * (poses[index, 2] - _ground(task))
        bodies = (*placement.bodies, Body(_cast(placement)[index], scale))
        return replace(placement, layout=replace(layout, object_pose=poses), bodies=bodies)


class ObjectColour(Perturbation):
    """The object has a colour that its kind does not have."""

    name, family, engines, looks = "object_colour", "semantics", _MUJOCO, _BUILTIN
    sentence = "the object to be moved is blue or pink, by chance, and called so where its colour is named"
    reads_words = True
    strengths = (1.0,)

    def applies(self, task: Task) -> bool:
        """To tasks that move an object."""
        return task.source >= 0

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Paint it."""
        name = _cast(placement)[_source_of(placement.task, placement.layout)]
        body = Body(name, colour=COLOURS[self._colour(moment)])
        return replace(placement, bodies=(*placement.bodies, body))

    def instruction(self, text: str, moment: Moment) -> str:
        """``"stack the blue block on the yellow block"``: the first colour is the source's."""
        return re.sub(_COLOUR_WORDS, self._colour(moment), text, count=1)

    @staticmethod
    def _colour(moment: Moment) -> str:
        return list(COLOURS)[moment.of_episode().integers(len(COLOURS))]


class UnseenObject(Perturbation):
    """Another object lies in the place of the task's own."""

    name, family, engines = "unseen_object", "semantics", _MUJOCO
    sentence = "an object that is new to the task in place of the one to be moved, one of two by chance, named so"
    reads_words = True
    strengths = (1.0,)

    def applies(self, task: Task) -> bool:
        """To carrot and spoon, and to objects that the Google Robot picks or puts into a drawer."""
        return self._kind(task) != ""

    @staticmethod
    def _kind(task: Task) -> str:
        if task.scenery == "bridge_table":
            return "put" if task.objects[task.source].name in _NEW else ""
        grocery = task.source >= 0 and task.target < 0 and task.robot_setup.startswith("google")
        return "grocery" if grocery else ""

    def _choose(self, moment: Moment) -> tuple[str, str]:
        address, task = moment.address, get_task(moment.address.task)
        layout = task.layout(address.layout, address.variant)
        own = task.objects_of(layout.cast)[_source_of(task, layout)].name
        choices = _NEW[own] if self._kind(task) == "put" else _GROCERIES
        others = [one for one in choices if _shape_family(one[0]) != _shape_family(own)]
        return others[moment.of_episode().integers(len(others))]

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """Put it where the other one lies, turned as it is."""
        model, posture = self._choose(moment)
        layout, task = placement.layout, placement.task
        index, names = _source_of(task, layout), _cast(placement)
        poses = np.array(layout.object_pose)
        x, y = poses[index, :2]
        poses[index] = resting(model, posture, float(heading(poses[index, 3:])), (float(x), float(y)), _ground(task))
        names[index] = model
        return replace(placement, layout=replace(layout, object_pose=poses, cast="+".join(names)))

    def instruction(self, text: str, moment: Moment) -> str:
        """``"pick sponge"``."""
        model, _ = self._choose(moment)
        return re.sub(r"^(put|pick|place) (the )?(.+?)(?= on | into |$)", rf"\1 \g<2>{spoken(model)}", text)


class AnotherTarget(Perturbation):
    """The object belongs elsewhere than usual, and where it usually belongs is there too."""

    name, family, engines = "another_target", "semantics", _MUJOCO
    sentence = "another target than the usual one, which is there as well; both goals are scored"
    reads_words = True
    strengths = (1.0,)
    flags = ("original_goal",)

    def applies(self, task: Task) -> bool:
        """To tasks that put something on something on a table, or move it near something."""
        known = task.scenery != "bridge_table" or task.objects[task.target].name in _OTHER_TARGET
        return _on_a_table(task) and task.target >= 0 and known

    def place(self, placement: Placement, moment: Moment) -> Placement:
        """The third object of ``move_near``; on the WidowX table a plate or a towel in a free place."""
        layout = placement.layout
        if layout.target is not None:
            return replace(placement, layout=replace(layout, target=self._third(layout)))
        names = _cast(placement)
        other, _ = _OTHER_TARGET[names[placement.task.target]]
        pose = Table(placement).place(_TARGETS[other], other, moment.of_episode())
        poses: Floats = np.stack([layout.object_pose[0], pose, layout.object_pose[1]])
        cast = "+".join((names[0], other, names[1]))
        return replace(placement, layout=replace(layout, object_pose=poses, cast=cast))

    @staticmethod
    def _third(layout: Layout) -> int:
        others = [index for index in range(len(layout.object_pose)) if index not in (layout.source, layout.target)]
        if not others:
            raise InvalidConfigError(
                "perturb=another_target needs a third object, which variant=no_distractor leaves out: choose another."
            )
        return others[0]

    def original_target(self, moment: Moment) -> int:
        """See :meth:`Perturbation.original_target`."""
        address = moment.address
        usual = get_task(address.task).layout(address.layout, address.variant).target
        return 2 if usual is None else usual

    def instruction(self, text: str, moment: Moment) -> str:
        """``"put carrot on towel"``."""
        task, address = get_task(moment.address.task), moment.address
        layout = task.layout(address.layout, address.variant)
        if layout.target is not None:
            third = spoken(task.objects_of(layout.cast)[self._third(layout)].name)
            return re.sub(r"(?<= near ).+$", third, text)
        _, word = _OTHER_TARGET[task.objects[task.target].name]
        told = re.sub(r"(?<= on )(the )?.+$", rf"\g<1>{word}", text)
        return re.sub(r"^stack ", "put ", told)
