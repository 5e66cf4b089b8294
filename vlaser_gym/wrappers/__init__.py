"""What stands between the world and an agent.

All wrap the vector environment; for one episode at a time put :class:`~vlaser_gym.envs.single.SingleLane` on top. The
adapter for Stable-Baselines3 is in :mod:`vlaser_gym.wrappers.sb3`, apart, because it imports torch.
"""

from vlaser_gym.wrappers.action import ACTION_RANGE, ChunkActions, ScaleActions
from vlaser_gym.wrappers.base import ObservationWrapper, SceneWrapper
from vlaser_gym.wrappers.observation import ResizeImage, SelectObservation, TokenizeInstruction, byte_tokens
from vlaser_gym.wrappers.record import RecordStates
from vlaser_gym.wrappers.reward import LastStepReward, ReachReward, SubgoalReward

__all__ = [
    "ACTION_RANGE",
    "ChunkActions",
    "LastStepReward",
    "ObservationWrapper",
    "ReachReward",
    "RecordStates",
    "ResizeImage",
    "ScaleActions",
    "SceneWrapper",
    "SelectObservation",
    "SubgoalReward",
    "TokenizeInstruction",
    "byte_tokens",
]
