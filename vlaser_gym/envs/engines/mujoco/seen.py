"""Light, cameras and surfaces of a compiled scene, changed for the image of a perturbed episode."""

from __future__ import annotations

import mujoco
import numpy as np

from vlaser_gym.conventions import rotations
from vlaser_gym.envs.engines.base import Sight

#: Materials of what objects lie on; a cabinet takes their place where there is one. Other scenery is background.
_TABLE = ("scene/visual_desk", "scene/visual_worktop", "scene/visual_top", "scene/visual_fronts")
_CABINET, _BACKGROUND = ("cabinet/",), ("scene/",)


class SeenModel:
    """The fields of a model on which only images depend: they are restored before every image."""

    #: Fields of the model that a sight changes.
    _FIELDS = ("cam_pos", "cam_quat", "cam_intrinsic", "light_dir", "light_diffuse", "light_specular", "mat_rgba")

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self._own = {name: np.array(getattr(model, name)) for name in self._FIELDS}
        self._ambient = np.array(model.vis.headlight.ambient)
        self._shown = Sight()

    def show(self, sight: Sight) -> None:
        """Make the model look like this; images of the scene's own sight are what they were without this class."""
        if sight == self._shown:
            return
        self._shown = sight
        for name, values in self._own.items():
            getattr(self.model, name)[:] = values
        self.model.vis.headlight.ambient[:] = self._ambient * sight.light_colour
        rotation = rotations.matrix_from_quaternion(self._own["cam_quat"])
        self.model.cam_pos[:] += rotations.rotate(rotation, np.array(sight.shift))
        turned = rotation @ rotations.matrix_from_axis_angle(sight.turn)
        self.model.cam_quat[:] = rotations.quaternion_from_matrix(turned)
        self.model.cam_intrinsic[:, :2] *= sight.zoom
        self.model.light_dir[:] = self.model.light_dir @ rotations.matrix_from_axis_angle(sight.light_turn).T
        self.model.light_diffuse[:] *= sight.light_colour
        self.model.light_specular[:] *= sight.light_colour
        if sight.repaint is not None:
            self._repaint(*sight.repaint)

    def _repaint(self, surfaces: str, seed: int, share: float) -> None:
        """Mix each material's colour with one drawn for it: planks and grain of a table get their own."""
        rng = np.random.default_rng(seed)
        names = [self.model.mat(index).name for index in range(self.model.nmat)]
        table = _CABINET if any(name.startswith(_CABINET) for name in names) else _TABLE
        for index, name in enumerate(names):
            colour = rng.random(3)
            is_table = name.startswith(table)
            if is_table if surfaces == "table" else name.startswith(_BACKGROUND) and not is_table:
                self.model.mat_rgba[index, :3] += share * (colour - self.model.mat_rgba[index, :3])
