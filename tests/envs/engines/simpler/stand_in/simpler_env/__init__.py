"""A stand-in for SimplerEnv with the surface that the worker uses; no physics.

Names, arguments and return values are the original's (4ab7178, ManiSkill2_real2sim ef7a4d4), as far as they are used.
Bodies lie where the original's do, by the grids and heights of its scripts and scenes, the arm moves by what it is told
(base frame), and an episode succeeds after five control steps if its number, or the place of its object in tenths of a
millimetre, is even. Environment variables steer it: STAND_IN_LOG is a folder in which every call is written down;
STAND_IN_GOLDEN one of recordings of the original that are played back; STAND_IN_FAULTS is JSON:
``"<env id>:<episode_id>"`` -> what goes wrong in that episode. STAND_IN_SAYS is JSON, too: what environments say of
themselves instead of the truth. MS2_REAL2SIM_ASSET_DIR is the original's own: the folder
of its data. Where the mesh of a scene is not in it, the simulator says so in its log and goes on, and all bodies fall.
"""

import json
import os
import signal
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import sapien.core

from . import eggplants, recorded

_CANS = "GraspSingleOpenedCokeCanInScene-v0"
ENVIRONMENT_MAP = {
    "google_robot_pick_coke_can": (_CANS, {}),
    "google_robot_pick_horizontal_coke_can": (_CANS, {"lr_switch": True}),
    "google_robot_pick_vertical_coke_can": (_CANS, {"laid_vertically": True}),
    "google_robot_pick_standing_coke_can": (_CANS, {"upright": True}),
    "google_robot_move_near": ("MoveNearGoogleBakedTexInScene-v1", {}),
    "widowx_spoon_on_towel": ("PutSpoonOnTableClothInScene-v0", {}),
    "widowx_carrot_on_plate": ("PutCarrotOnPlateInScene-v0", {}),
    "widowx_stack_cube": ("StackGreenCubeOnYellowCubeBakedTexInScene-v0", {}),
    "widowx_put_eggplant_in_basket": ("PutEggplantInBasketScene-v0", {}),
}
WIDOWX_TCP = ([0.29207, -0.00609, 0.13532], [0.68671, 0.00526, 0.72687, -0.00808])
GOOGLE_TCP = ([0.43938, -0.21842, 0.96187], [0.16012, -0.60385, 0.78017, -0.03250])
FAULTS = json.loads(os.environ.get("STAND_IN_FAULTS", "{}"))
SAYS = json.loads(os.environ.get("STAND_IN_SAYS", "{}"))
WIDOWX_CONTROL = "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos"


def note(**entry):
    """Write down a call with the types of its values."""
    if "STAND_IN_LOG" in os.environ:
        with open(Path(os.environ["STAND_IN_LOG"]) / f"{os.getpid()}.jsonl", "a") as file:
            file.write(json.dumps(entry, default=lambda value: {"array": np.asarray(value).tolist()}) + "\n")


def make(task_name, **kwargs):
    env_name, env_kwargs = ENVIRONMENT_MAP[task_name]
    env_kwargs["obs_mode"] = ("rgbd",)
    env_kwargs["prepackaged_config"] = True
    env_kwargs.update(kwargs)
    return registered(env_name, **env_kwargs)


def registered(env_name, **kwargs):
    note(make=env_name, kwargs=kwargs)
    limit = kwargs.pop("max_episode_steps", 120 if "Eggplant" in env_name else 60)
    for prefix, kind in FAMILIES.items():
        if env_name.startswith(prefix):
            env = kind(env_name, **kwargs)
            return TimeLimit(env if env._obs_mode == "none" else ObservationWrapper(env), limit)
    raise KeyError(env_name)


class Pose:
    def __init__(self, p, q):
        self.p, self.q = np.array(p, np.float32), np.array(q, np.float32)


def times(a, b):
    w, x, y, z = a
    return np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]]) @ np.asarray(b)


def rotated(q, v):
    w, u = q[0], np.asarray(q[1:])
    return np.asarray(v) + 2 * np.cross(u, np.cross(u, v) + w * np.asarray(v))


class Body:
    """With an identity, as segmentations tell it: that of its name."""

    def __init__(self, name, pose):
        self.name, self.pose, self.id = name, pose, 2 + sum(name.encode()) % 200

    def set_pose(self, pose):
        assert isinstance(pose, Pose)
        self.pose = pose

    def set_velocity(self, velocity):
        assert velocity.shape == (3,)

    set_angular_velocity = set_velocity


class Joint:
    def __init__(self, name):
        self.name = name


class Robot:
    """Links in the world follow from the TCP in the base frame; joints count what the hand was told."""

    def __init__(self, links, qpos, limits, tcp):
        self.links, self.qlimits, self.tcp = links, np.array(limits, np.float32), tcp
        self.qpos = np.array(qpos, np.float32)
        self.pose = Pose([0, 0, 0], [1, 0, 0, 0])

    def get_links(self):
        base, (p, q) = self.pose, self.tcp
        world = Pose(base.p + rotated(base.q, p), times(base.q, q))
        return [Body("root", base), Body(self.links[1], base), Body(self.links[0], world)]

    def get_qpos(self):
        return self.qpos.copy()

    def get_qvel(self):
        return np.zeros_like(self.qpos)

    def get_qlimits(self):
        return self.qlimits

    def set_pose(self, pose):
        self.pose = pose


class Agent:
    def __init__(self, robot):
        self.robot = robot

    def reset(self, qpos):
        self.robot.qpos = np.array(qpos, np.float32)


class Cabinet:
    def __init__(self):
        self.qpos = np.zeros(3, np.float32)

    def get_links(self):
        return [Body("cabinet", None)]

    def get_active_joints(self):
        return [Joint(f"{name}_drawer_joint") for name in ("top", "middle", "bottom")]

    def get_qpos(self):
        return self.qpos

    def set_qpos(self, qpos):
        self.qpos = np.asarray(qpos, np.float32)

    def set_qvel(self, qvel):
        assert qvel.shape == (3,)


class Camera:
    def __init__(self, width, height):
        self.width, self.height = width, height


class BaseEnv:
    robot_uid, CAMERA, PHOTOGRAPH = "google_robot_static", "overhead_camera", ""
    #: Those of the base class; families add theirs.
    KWARGS = (
        "obs_mode robot sim_freq control_mode control_freq scene_name camera_cfgs rgb_overlay_path rgb_overlay_cameras "
        "urdf_version shader_dir prepackaged_config"
    )
    MORE = ""

    def __init__(self, env_id, **kwargs):
        unknown = set(kwargs) - set(f"{self.KWARGS} {self.MORE}".split())
        if unknown:
            raise TypeError(f"__init__() got an unexpected keyword argument {sorted(unknown)[0]!r}")
        if "no_such_scene" in str(kwargs):
            raise FileNotFoundError("/assets/hab2_bench_assets/stages/no_such_scene.glb is not found.")
        self.env_id, self.kwargs = env_id, kwargs
        self.prepackaged = bool(kwargs.get("prepackaged_config"))
        self._obs_mode = "none" if kwargs.get("obs_mode") == "none" else "image"
        self.rgb_overlay_cameras = kwargs.get("rgb_overlay_cameras") or [self.CAMERA]
        self.say(kwargs)
        self.set_main_rng(2022)
        self.reset(seed=2022, options={"reconfigure": True})

    def say(self, kwargs):
        """What the original's attributes tell; prepackaged environments set it themselves."""
        sapien.core.render_config.camera_shader_dir = SAYS.get("shader_dir", kwargs.get("shader_dir", "ibl"))
        own = {"control_mode": WIDOWX_CONTROL, "control_freq": 5, "sim_freq": 500, "scene_name": self.SCENE}
        own["rgb_overlay_path"] = f"/assets/real_inpainting/{self.PHOTOGRAPH}"
        told = own if self.prepackaged else {name: kwargs.get(name) for name in own}
        told |= {"enable_shadow": False, "rgb_overlay_mode": "background"}
        for name, value in {**told, **SAYS}.items():
            setattr(self, name, value)
        size = Camera(640, 512 if "google" in self.robot_uid else 480)
        self._camera_cfgs = {"base_camera": Camera(128, 128), self.CAMERA: size}

    def set_main_rng(self, seed):
        note(set_main_rng=self.env_id, seed=seed)
        self.main_rng = np.random.RandomState(seed)

    def build(self):
        self._cameras = OrderedDict((name, None) for name in ("base_camera", self.CAMERA))
        if "widowx" in self.robot_uid:
            qpos = [-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398, 0.037, 0.037]
            limits = [[-3, 3]] * 6 + [[0.015, 0.037]] * 2
            self.agent = Agent(Robot(("ee_gripper_link", "base_link"), qpos, limits, WIDOWX_TCP))
        else:
            qpos = [
                -0.2639457,
                0.0831913,
                0.5017611,
                1.156859,
                0.0285836,
                1.5925984,
                -1.0806529,
                0,
                0,
                -0.00286,
                0.785136,
            ]
            limits = [[-4, 4]] * 7 + [[-0.0001, 1.3]] * 2 + [[-4, 4]] * 2
            self.agent = Agent(Robot(("link_gripper_tcp", "link_base"), qpos, limits, GOOGLE_TCP))

    def reset(self, seed=None, options=None):
        note(reset=self.env_id, seed=seed, options=options)
        self.build()
        self.elapsed, self.stats = 0, {}
        # A seed starts the chain of seeds anew, as it does there.
        seed = self.main_rng.randint(2**32, dtype=np.uint64) if seed is None else seed
        self.main_rng, self.rng = np.random.RandomState(seed), np.random.RandomState(seed)
        # Physics remember how often a scene was reset: bodies settle differently by some micrometres.
        self.resets = 0 if options.get("reconfigure") else self.resets + 1
        self.place({"obj_init_options": self.drawn(), **options})
        for body in self.bodies:
            body.pose.p[0] += np.float32(6e-5 * (self.resets - 1))
        fallen = self.stage_is_missing()
        if fallen:
            for body in self.bodies:
                body.pose.p[2] -= 19
        self.place_robot({"init_xy": [0, 0], "init_rot_quat": [0, 0, 0, 1], **options.get("robot_init_options", {})})
        self.player = None if fallen or options.get("reconfigure") else recorded.find(self)
        if self.player is not None:
            self.player.show(self, 0)
        self.fault = "" if options.get("reconfigure") else FAULTS.get(f"{self.env_id}:{self.number}", "")
        if self.fault == "fail to reset":
            raise RuntimeError("no room\nfor the object")
        return self.get_obs(), {}

    def drawn(self):
        """An episode's place where nobody names it."""
        return {"episode_id": int(self.rng.randint(24)), "init_xy": self.rng.uniform([-0.35, -0.02], [-0.12, 0.42])}

    def stage_is_missing(self):
        folder, scene = os.environ.get("MS2_REAL2SIM_ASSET_DIR"), self.kwargs.get("scene_name", self.SCENE)
        if folder is None or "dummy" in scene:
            return False
        mesh = Path(folder) / "hab2_bench_assets" / "stages" / f"{scene}.glb"
        if not mesh.exists():
            sys.stderr.write(
                f"[2026-01-01 00:00:00.000] [SAPIEN] [error] Failed to load the mesh {mesh}: no such file\n"
            )
        return not mesh.exists()

    def place_robot(self, options):
        robot = self.agent.robot
        if self.prepackaged:
            options = {"init_xy": self.XY, "init_rot_quat": [0, 0, 0, 1]}
        x, y = options["init_xy"]
        robot.set_pose(Pose([x, y, self.HEIGHT], options["init_rot_quat"]))
        if "qpos" in options:
            robot.qpos = np.array(options["qpos"], np.float32)

    def go_wrong(self):
        if self.fault == "die" or (self.fault == "die once" and not self.marked()):
            sys.stdout.write("a last word\n")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "raise":
            raise ValueError("contact lost")

    @staticmethod
    def marked():
        mark = Path(os.environ["STAND_IN_LOG"]) / "died"
        if mark.exists():
            return True
        mark.touch()
        return False

    def step(self, action):
        assert isinstance(action, np.ndarray)
        assert action.shape == (7,)
        if self.elapsed == 2:
            self.go_wrong()
        self.elapsed += 1
        if self.player is not None:
            info, success = self.player.step(self, action)
        else:
            self.move(action)
            success = bool(self.even and self.elapsed >= 5)
            info = self.evaluate(success)
        # Types as in the original: truth values of numpy, strings among the statistics.
        info = {**info, "elapsed_steps": self.elapsed, "success": np.bool_(success), "episode_stats": self.stats}
        return self.get_obs(), float(success), bool(success), False, info

    def move(self, action):
        robot = self.agent.robot
        p, q = robot.tcp
        robot.tcp = (np.asarray(p) + action[:3], q)
        robot.qpos[:6] += action[:6].astype(np.float32)
        robot.qpos[-2 if "widowx" in self.robot_uid else -4] += np.float32(0.001)

    def get_actors(self):
        return [Body("ground", Pose([0, 0, 0], [1, 0, 0, 0])), Body("", Pose([0, 0, 0], [1, 0, 0, 0])), *self.bodies]

    def get_articulations(self):
        return [self.agent.robot, *([self.art_obj] if hasattr(self, "art_obj") else [])]

    def get_obs(self):
        """Images of all cameras, where images are observed: colours, and whose each pixel is.

        Colours show the bodies' places and the time, in the corner, or what was recorded of the same state.
        """
        if self._obs_mode != "image":
            return {}
        for camera in self._cameras:
            note(picture=camera, step=self.elapsed)
        size = self._camera_cfgs[self.CAMERA]
        recorded_picture = recorded.picture(self)
        if recorded_picture is None:
            image = np.full((size.height, size.width, 3), 7, np.uint8)
            image[0, 1] = 100 if not self.bodies else np.uint8(100 + round(100 * float(self.bodies[0].pose.p[1])))
            image[0, 0] = self.elapsed
            mask = np.zeros(image.shape[:2], bool)
        else:
            image, mask = recorded_picture
        segments = np.zeros((*mask.shape, 4), np.uint8)
        segments[mask, 1] = self.agent.robot.get_links()[0].id
        return {"image": {camera: {"Color": image, "Segmentation": segments} for camera in self._cameras}}

    def is_final_subtask(self):
        return True

    @property
    def unwrapped(self):
        return self

    def close(self):
        note(close=self.env_id)


#: Ordered pairs of distinct corners, in the original's order.
PAIRS = [(i, j) for i in range(4) for j in range(4) if i != j]


def turned(degrees):
    """Quaternion of a turn about z."""
    return [np.cos(np.radians(degrees) / 2), 0, 0, np.sin(np.radians(degrees) / 2)]


def square(x, y, half):
    """Corners, x outer."""
    return [(x + i * half, y + j * half) for i in (-1, 1) for j in (-1, 1)]


class PutOn(BaseEnv):
    XY, HEIGHT, SCENE, CAMERA = (0.147, 0.028), 0.87, "bridge_table_1_v1", "3rd_view_camera"
    PHOTOGRAPH = "bridge_real_eval_1.png"
    NAMES = {  # noqa: RUF012
        "PutCarrot": ("bridge_carrot_generated_modified", "bridge_plate_objaverse_larger", "put carrot on plate"),
        "PutSpoon": ("bridge_spoon_generated_modified", "table_cloth_generated_shorter", "put the spoon on the towel"),
        "StackGreen": ("baked_green_cube_3cm", "baked_yellow_cube_3cm", "stack the green block on the yellow block"),
        "PutEggplant": ("eggplant", "dummy_sink_target_plane", "put eggplant into yellow basket"),
    }
    #: Heights of source and target at rest, and the yaws of the source (degrees); the eggplant has a table.
    RESTS = {  # noqa: RUF012
        "PutCarrot": (0.888, 0.870, (180, -90)),
        "PutSpoon": (0.880, 0.875, (0, 90)),
        "StackGreen": (0.885, 0.885, (0,)),
    }

    def __init__(self, env_id, **kwargs):
        self.kind = next(prefix for prefix in self.NAMES if env_id.startswith(prefix))
        self.names = self.NAMES[self.kind]
        sink = self.kind == "PutEggplant"
        self.robot_uid = "widowx_sink_camera_setup" if sink else "widowx"
        if sink:
            self.XY, self.HEIGHT, self.SCENE = (0.127, 0.06), 0.85, "bridge_table_1_v2"
            self.PHOTOGRAPH = "bridge_sink.png"
        super().__init__(env_id, **kwargs)

    def poses(self):
        """Of source and target at rest."""
        if self.kind == "PutEggplant":
            eggplant = eggplants.POSES[self.number]
            return Pose(eggplant[:3], eggplant[3:]), Pose([-0.148, 0.022, 0.936], turned(0))
        source_z, target_z, yaws = self.RESTS[self.kind]
        pair, yaw = divmod(self.number, len(yaws))
        corners = square(-0.16, 0.0, 0.075 if self.kind != "StackGreen" else 0.05 if pair < 12 else 0.1)
        source, target = (corners[i] for i in PAIRS[pair % 12])
        return Pose([*source, source_z], turned(yaws[yaw])), Pose([*target, target_z], turned(0))

    def place(self, options):
        self.number = options["obj_init_options"]["episode_id"]
        self.even = self.number % 2 == 0
        poses = self.poses()
        self.bodies = [Body(name, pose) for name, pose in zip(self.names, poses)]  # noqa: B905
        if self.robot_uid != "widowx":
            self.bodies.append(Body("sink", Pose([-0.16, 0.13, 0.88], [1, 0, 0, 0])))

    def evaluate(self, success):
        grasped = self.elapsed == 3
        ever = self.stats.get("is_src_obj_grasped", False) or grasped
        self.stats = {
            "moved_correct_obj": np.bool_(success),
            "moved_wrong_obj": np.bool_(False),
            "is_src_obj_grasped": np.bool_(ever),
            "consecutive_grasp": False,
            "src_on_target": np.bool_(success),
        }
        return {**self.stats, "is_src_obj_grasped": np.bool_(grasped)}

    def get_language_instruction(self):
        return self.names[2]


UPRIGHT = [np.sqrt(0.5), np.sqrt(0.5), 0, 0]


class Google(BaseEnv):
    HEIGHT, SCENE = 0.07905, "google_pick_coke_can_1_v4"

    def place(self, options):
        self.where = where = options["obj_init_options"]
        self.number = where.get("episode_id")
        places = where.get("init_xy")
        self.even = (self.number if places is None else round(1e4 * places[0])) % 2 == 0
        names = self.cast(options)
        self.bodies = [Body(name, self.pose_at(i, name, places)) for i, name in enumerate(names)]


class Pick(Google):
    MORE = "upright laid_vertically lr_switch slightly_darker_lighting slightly_brighter_lighting distractor_config"
    LESS = ("opened_pepsi_can", "apple", "sponge", "orange")
    MANY = ("opened_7up_can", "opened_sprite_can", "sponge", "orange", "opened_fanta_can",
            "bridge_spoon_generated_modified")  # fmt: skip

    def cast(self, options):
        self.model = options.get("model_id", "opened_coke_can")
        others = (
            () if "Distractor" not in self.env_id else self.MANY if "distractor_config" in self.kwargs else self.LESS
        )
        return (self.model, *others)

    def pose_at(self, i, name, places):
        """Distractors lie anywhere."""
        if i:
            return Pose([*self.rng.uniform([-0.5, 0.05], [-0.1, 0.35]), 0.9], turned(0))
        if self.kwargs.get("upright"):
            return Pose([*places, 0.939], UPRIGHT)
        return Pose([*places, 0.902], turned(90 if self.kwargs.get("laid_vertically") else 180))

    def evaluate(self, success):
        self.stats = {"n_lift_significant": 3, "consec_grasp": np.bool_(success), "grasped": np.bool_(True)}
        return {
            "is_grasped": np.bool_(self.elapsed == 3),
            "consecutive_grasp": False,
            "lifted_object": np.bool_(success),
            "lifted_object_significantly": False,
        }

    def get_language_instruction(self):
        words = [
            word for word in self.model.split("_") if word not in ("opened", "bridge", "generated", "modified", "3cm")
        ]
        return "pick " + " ".join(words)


class MoveNear(Google):
    MORE = "slightly_darker_lighting slightly_brighter_lighting no_distractor"
    TRIPLETS = (
        ("blue_plastic_bottle", "opened_pepsi_can", "orange"),
        ("opened_7up_can", "apple", "sponge"),
        ("opened_coke_can", "opened_redbull_can", "apple"),
        ("sponge", "blue_plastic_bottle", "opened_7up_can"),
        ("orange", "opened_pepsi_can", "opened_redbull_can"),
    )
    SPOTS = (
        ((-0.33, 0.04), (-0.33, 0.34), (-0.13, 0.19)),
        ((-0.13, 0.04), (-0.33, 0.19), (-0.13, 0.34)),
    )
    #: What a model's name holds -> height over the table at rest, and how it stands.
    STANDS = {  # noqa: RUF012
        "bottle": (0.087, [0.5, 0.5, 0.5, 0.5]),
        "coke": (0.069, UPRIGHT),
        "can": (0.065, UPRIGHT),
        "orange": (0.035, turned(90)),
        "sponge": (0.018, turned(90)),
        "apple": (0.037, turned(0)),
    }

    def cast(self, options):
        pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
        triplet, self.pair = self.TRIPLETS[self.number // 12], pairs[self.number % 6]
        suffix = {"v0": "", "v1": "_v2"}[self.env_id[-2:]] if "Baked" in self.env_id else None
        plain = ("blue_plastic_bottle", "orange")
        names = [name if suffix is None or name in plain else f"baked_{name}{suffix}" for name in triplet]
        self.spoken = [" ".join(w for w in triplet[i].split("_") if w != "opened") for i in self.pair]
        spots = self.SPOTS[self.number % 12 // 6]
        self.spots = dict(zip(names, spots))  # noqa: B905
        return [names[i] for i in self.pair] if self.kwargs.get("no_distractor") else names

    def pose_at(self, i, name, places):
        word = next(word for word in self.STANDS if word in name)
        return Pose([*self.spots[name], 0.87 + self.STANDS[word][0]], self.STANDS[word][1])

    def evaluate(self, success):
        self.stats = dict.fromkeys(
            ("all_obj_keep_height", "moved_correct_obj", "moved_wrong_obj", "near_tgt_obj", "is_closest_to_tgt"),
            np.bool_(success),
        )
        return dict(self.stats)

    def get_language_instruction(self):
        return "move {} near {}".format(*self.spoken)


class Drawer(Google):
    MORE = "light_mode station_name disable_bad_material model_ids"

    def stage_is_missing(self):
        """Nothing lies on the room's mesh: the cabinet carries."""
        return False

    def cast(self, options):
        self.art_obj = Cabinet()
        self.drawer = next(name for name in ("top", "middle", "bottom") if name.capitalize() in self.env_id)
        if self.env_id.startswith("Close"):
            self.art_obj.qpos[("top", "middle", "bottom").index(self.drawer)] = 0.2
        return ()

    def evaluate(self, success):
        self.stats = {"qpos": "0.100"}
        return {"qpos": np.float32(0.1)}

    def get_language_instruction(self):
        return f"{'open' if self.env_id.startswith('Open') else 'close'} {self.drawer} drawer"


class PlaceIn(Drawer):
    def cast(self, options):
        super().cast(options)
        self.advanced = False
        return (self.kwargs["model_ids"],)

    def pose_at(self, i, name, places):
        return Pose([*places, 0.918], turned(0))

    def evaluate(self, success):
        self.stats = {"qpos": "0.100", "is_drawer_open": np.bool_(self.elapsed > 2), "has_contact": self.elapsed // 4}
        return {"qpos": np.float32(0.1)}

    def is_final_subtask(self):
        return self.advanced or self.elapsed >= 100

    def advance_to_next_subtask(self):
        self.advanced = True

    def get_language_instruction(self):
        if self.is_final_subtask():
            return (
                f"place {self.kwargs['model_ids'].replace('baked_', '').replace('_v2', '')} into {self.drawer} drawer"
            )
        return f"open {self.drawer} drawer"


FAMILIES = {"Grasp": Pick, "MoveNear": MoveNear, "Open": Drawer, "Close": Drawer, "PlaceInto": PlaceIn,
            "Put": PutOn, "Stack": PutOn}  # fmt: skip


class Wrapper:
    def __init__(self, env):
        self.env = env
        self.unwrapped = env.unwrapped

    def reset(self, **kwargs):
        return self.env.reset(**kwargs)

    def step(self, action):
        return self.env.step(action)

    def close(self):
        self.env.close()


class ObservationWrapper(Wrapper):
    """Raw observation -> what is seen."""

    def observation(self, raw):
        return {"image": {camera: {"rgb": seen["Color"]} for camera, seen in raw["image"].items()}}

    def reset(self, **kwargs):
        raw, info = self.env.reset(**kwargs)
        return self.observation(raw), info

    def step(self, action):
        raw, *rest = self.env.step(action)
        return (self.observation(raw), *rest)


class TimeLimit(Wrapper):
    def __init__(self, env, limit):
        super().__init__(env)
        self._max_episode_steps = limit

    def step(self, action):
        *rest, _, info = self.env.step(action)
        return (*rest, self.unwrapped.elapsed >= self._max_episode_steps, info)


sys.stdout.write("Control mode: none\n")  # the original prints too
