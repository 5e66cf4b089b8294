"""Wrappers between a vector environment and an agent.

All wrap the vector environment; for one episode at a time put :class:`~vlaser_gym.envs.single.SingleLane` on top. The
adapter for Stable-Baselines3 is in :mod:`vlaser_gym.wrappers.sb3`, apart, because it imports torch.
"""

from vlaser_gym.wrappers.action import ACTION_RANGE, ChunkActions, ScaleActions
from vlaser_gym.wrappers.base import ObservationWrapper, SceneWrapper
from vlaser_gym.wrappers.observation import ResizeImage, SelectObservation, TokenizeInstruction, byte_tokens
from vlaser_gym.wrappers.record import RecordStates
from vlaser_gym.wrappers.reward import LastStepReward, ReachReward, SubgoalReward
from vlaser_gym.wrappers.state import ArrayObservation, ScaledAction, StateEnv, state_lanes

__all__ = [
    "ACTION_RANGE",
    "ArrayObservation",
    "ChunkActions",
    "LastStepReward",
    "ObservationWrapper",
    "ReachReward",
    "RecordStates",
    "ResizeImage",
    "ScaleActions",
    "ScaledAction",
    "SceneWrapper",
    "SelectObservation",
    "StateEnv",
    "SubgoalReward",
    "TokenizeInstruction",
    "byte_tokens",
    "state_lanes",
]
