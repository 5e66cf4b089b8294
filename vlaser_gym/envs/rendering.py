"""Pictures of recorded states, whoever simulated them.

States are stored by name, so that any engine's can be shown. The built-in engine draws them all; callers need not know.
"""

from vlaser_gym.envs.engines.mujoco.rendering import SceneRenderer

__all__ = ["SceneRenderer"]
