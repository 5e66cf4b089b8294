"""Draws ``certificate.npz`` from recordings of the original: ``python tests/evaluation/draw_certificate.py GOLDEN``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

TABLE = ("moved_correct_obj", "moved_wrong_obj", "is_src_obj_grasped", "consecutive_grasp", "src_on_target")
CAN = ("is_grasped", "consecutive_grasp", "lifted_object", "lifted_object_significantly")
NEAR = ("all_obj_keep_height", "moved_correct_obj", "moved_wrong_obj", "near_tgt_obj", "is_closest_to_tgt")
#: Our flags that are the original's running statistics.
EVER = {
    TABLE: {"ever_grasped": "is_src_obj_grasped", "ever_consecutive_grasp": "consecutive_grasp"},
    CAN: {"ever_grasped": "grasped", "ever_consecutive_grasp": "consec_grasp"},
    NEAR: {},
    (): {},
    ("apple",): {"is_drawer_open": "is_drawer_open", "has_contact": "has_contact"},
}
SPOON, SINK, PICK = "widowx_spoon_on_towel", "widowx_put_eggplant_in_basket", "google_robot_pick_horizontal_coke_can"
DRAWER, APPLE = "google_robot_open_top_drawer", "google_robot_place_apple_in_closed_top_drawer"
#: Task, folder, recording, layout (for the apple one before the same cabinet), flags, how many steps (None: all).
#: Of the apple only the drawer's opening: what comes after hangs on how the finger slips.
CHOSEN = (
    (SPOON, SPOON, "000_ok", 0, TABLE, None),
    (SPOON, SPOON, "004_miss", 4, TABLE, None),
    (SINK, SINK, "000_ok", 0, TABLE, None),
    (SINK, SINK, "004_miss", 4, TABLE, None),
    (PICK, "google_robot_pick_coke_can.horizontal", "112_ok", 12, CAN, None),
    (PICK, "google_robot_pick_coke_can.horizontal", "118_ok", 18, CAN, None),
    ("google_robot_move_near", "google_robot_move_near", "020_ok", 20, NEAR, None),
    ("google_robot_move_near", "google_robot_move_near", "006_drop", 6, NEAR, None),
    (DRAWER, "google_robot_open_drawer.top", "006_ok", 3, (), None),
    (DRAWER, "google_robot_open_drawer.top", "000_miss", 5, (), None),
    (APPLE, APPLE, "000_ok", 0, ("apple",), 56),
)  # fmt: skip


def drawn(golden: Path) -> bytes:
    """The file."""
    index: list[dict[str, Any]] = []
    actions, states = [], []
    for task, folder, key, layout, flags, most in CHOSEN:
        place = golden / "replay_task" / folder
        meta = json.loads((place / "index.json").read_text())[key]
        arrays = dict(np.load(place / f"{key}.npz"))
        told = arrays["action"][:most]
        end, rows = len(told), [*range(0, len(told), 8), len(told)]
        if flags in ((), ("apple",)):
            opened = arrays["drawer_qpos"][:, [name.startswith("top") for name in meta["drawer_joint_names"]]]
            thing = np.pad(opened, ((0, 0), (0, 2)))
        if flags != ():
            named = "baked_apple_v2" if flags == ("apple",) else meta["source_object"]
            thing = arrays["obj_pose"][:, meta["object_names"].index(named), :3]
        truth = {"success": arrays["flag_success"], **{n: arrays[f"flag_{n}"] for n in flags if n != "apple"}}
        truth |= {ours: arrays[f"flag_stat_{theirs}"] for ours, theirs in EVER[flags].items()}
        objects = arrays["obj_pose"][0].tolist() if flags == ("apple",) else None
        index.append({
            "task": task, "layout": f"grid:{layout}", "objects": objects, "steps": end,
            "flags": {name: bool(values[end - 1] > 0) for name, values in truth.items()},
        })  # fmt: skip
        actions.append(told)
        states.append(np.concatenate([arrays["eef_pos"][rows, :3], thing[rows]], 1))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        index=np.frombuffer(json.dumps(index).encode(), np.uint8),
        actions=np.concatenate(actions),
        states=np.concatenate(states).astype(np.float32),
    )
    return buffer.getvalue()


if __name__ == "__main__":
    Path("vlaser_gym/evaluation/certificate.npz").write_bytes(drawn(Path(sys.argv[1])))
