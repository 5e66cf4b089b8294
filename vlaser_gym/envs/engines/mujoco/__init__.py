"""The built-in engine.

``import mujoco`` loads the OpenGL backend that ``MUJOCO_GL`` names and fails where that backend does not work. Physics
needs no OpenGL, and images are made in other processes, which report the failure when an image is asked for. So
where the backend stands in the way, MuJoCo is imported without one.
"""

import os

try:
    import mujoco
except Exception:  # drivers fail in many ways, with many types
    _backend = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disable"
    try:
        import mujoco  # noqa: F401
    finally:
        if _backend is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = _backend
