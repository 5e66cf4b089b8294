"""Images of SAPIEN scenes: a scene that is only drawn, and the photograph behind its foreground.

Scenes that are simulated hold no visible shapes; the images come from one drawn scene per task, variant and cast,
which is put into the state of an environment. In visual matching every pixel that is neither robot nor object nor
cabinet is replaced by the photograph of the real scene, as the original does (hard mask, no shadows on the photograph).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sapien
from numpy.typing import NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.assets.photographs import read_photograph
from vlaser_gym.envs.engines.maniskill.physics import place_bodies
from vlaser_gym.envs.engines.maniskill.scene import build_scene, joints_of, links_of, make_pose
from vlaser_gym.envs.engines.maniskill.start import SceneKey, Start
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks.variants import LIGHTS

#: Objects that the photograph shows: their own pixels are replaced too.
_IN_PHOTOGRAPH = ("sink", "dummy_sink_target_plane")
#: Material of the robots' links where the variant leaves it shiny.
_SPECULAR, _ROUGHNESS = 0.9, 0.3
#: The version of move near whose objects are dull.
_DULL = ("google_robot_move_near", "google_robot_move_near_v1")

Picture = NDArray[np.uint8]


class Artist:
    """Draws the states of one scene.

    Raises:
        RenderingUnavailableError: if there is no Vulkan driver.
    """

    def __init__(self, key: SceneKey, pack: AssetPack) -> None:
        self.scene = build_scene(key, pack, drawn=True)
        self._pack = pack
        setup = get_setup(self.scene.task.robot_setup)
        joints = list(joints_of(self.scene.robot))
        self._columns = np.array([joints.index(joint.name) for joint in setup.robot.moving_joints])
        self._add_lights()
        self._set_materials()
        self._camera = self._add_camera()
        specs = zip(self.scene.objects_spec, self.scene.objects, strict=True)
        shown = [entity for spec, entity in specs if spec.name not in _IN_PHOTOGRAPH]
        links = [*self.scene.robot.links, *([] if self.scene.cabinet is None else self.scene.cabinet.links)]
        self._foreground = [entity.per_scene_id for entity in (*shown, *(link.entity for link in links))]
        self._photographs: dict[str, Picture] = {}

    def draw(self, state: Start) -> Picture:
        """``[H, W, 3]`` image of a state of this scene."""
        colour, foreground = self.layers(state)
        if not self.scene.look.overlay:
            return colour
        name = self.scene.task.photograph(state.key.variant, state.base_pose)
        behind = self._photograph(name, foreground.shape)
        return np.where(foreground[..., None], colour, behind)

    def layers(self, state: Start) -> tuple[Picture, NDArray[np.bool_]]:
        """The rendered image ``[H, W, 3]`` and its foreground mask ``[H, W]``."""
        place_bodies(self.scene, state, self._columns)
        self.scene.scene.sub_scenes[0].update_render()
        self._camera.take_picture()
        colour = np.asarray(self._camera.get_picture("Color"))[..., :3]
        actor = np.asarray(self._camera.get_picture("Segmentation"))[..., 1]
        shown = np.asarray(np.clip(255 * colour, 0, 255), np.uint8)
        return shown, np.isin(actor, self._foreground)

    def _photograph(self, name: str, size: tuple[int, int]) -> Picture:
        if name not in self._photographs:
            self._photographs[name] = read_photograph(self._pack, name, size)
        return self._photographs[name]

    def _add_lights(self) -> None:
        lighting, scene = LIGHTS[self.scene.look.light], self.scene.scene
        scene.set_ambient_light([lighting.ambient] * 3)
        for light in lighting.lights:
            scene.add_directional_light(light.direction, [light.strength] * 3, shadow=light.shadow)

    def _set_materials(self) -> None:
        if self.scene.look.shiny_robot:
            for link in self.scene.robot.links:
                _set_material(link.entity, specular=_SPECULAR, roughness=_ROUGHNESS)
        if self.scene.task.name in _DULL:
            for entity in self.scene.objects:
                _set_material(entity, specular=0.0, roughness=1.0, metallic=0.0)
        for entity in self.scene.objects:
            for material in _materials(entity):
                # Models with baked light glow by a texture whose factor their files leave at zero; the original
                # ignores it.
                if material.emission_texture is not None:
                    material.emission = [1.0, 1.0, 1.0, 1.0]

    def _add_camera(self) -> Any:
        camera = get_setup(self.scene.task.robot_setup).camera
        sapien.render.set_camera_shader_dir("default")
        component = sapien.render.RenderCameraComponent(camera.width, camera.height)
        component.set_focal_lengths(camera.focal, camera.focal)
        component.set_principal_point(camera.cx, camera.cy)
        component.near, component.far = camera.near, camera.far
        links_of(self.scene.robot)[camera.link].entity.add_component(component)
        component.local_pose = make_pose(camera.pose)
        return component


def _set_material(entity: Any, **values: float) -> None:
    for material in _materials(entity):
        for name, value in values.items():
            setattr(material, name, value)


def _materials(entity: Any) -> list[Any]:
    component = entity.find_component_by_type(sapien.render.RenderBodyComponent)
    return [] if component is None else [part.material for shape in component.render_shapes for part in shape.parts]
