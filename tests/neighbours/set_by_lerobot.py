"""A data set with the names of BridgeData V2, written by ``LeRobotDataset`` itself.

Arguments: its folder, which must not exist, and ``video`` or ``image``. Of an episode's images each has one brightness,
ten times its row plus its episode. States are poses within reach; the gripper is 0 or 1.
"""

import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

TEXTS = ("put carrot on plate", "put the spoon on the towel")
STATE = ["x", "y", "z", "roll", "pitch", "yaw", "pad", "gripper"]
CAMERA = "observation.images.image_0"


def main(folder, kind):
    features = {
        CAMERA: {"dtype": kind, "shape": (48, 64, 3), "names": ["height", "width", "rgb"]},
        "observation.state": {"dtype": "float32", "shape": (8,), "names": {"motors": STATE}},
        "action": {"dtype": "float32", "shape": (7,), "names": {"motors": [*STATE[:6], "gripper"]}},
    }
    written = LeRobotDataset.create(
        "here/bridge", fps=5, features=features, root=folder, robot_type="widowx", use_videos=kind == "video"
    )
    rng = np.random.default_rng(0)
    for episode in range(3):
        for row in range(6 + episode):
            state = rng.uniform(-0.3, 0.3, 8)
            state[6], state[7] = 0, rng.uniform(0, 1)
            action = rng.normal(0, 0.02, 7)
            action[6] = rng.integers(0, 2)
            frame = {CAMERA: np.full((48, 64, 3), 10 * row + episode, np.uint8), "task": TEXTS[episode % 2]}
            frame |= {"observation.state": state.astype(np.float32), "action": action.astype(np.float32)}
            written.add_frame(frame)
        written.save_episode()
    written.finalize()


if __name__ == "__main__":
    main(*sys.argv[1:])
