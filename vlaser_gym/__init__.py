"""vlaser-gym: vision-language-action robot policies, scored and improved in simulation."""

from vlaser_gym.envs.registration import register_environments, register_task

__version__ = "0.1.0"
__all__ = ["__version__", "register_environments", "register_task"]

register_environments()
