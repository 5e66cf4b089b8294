"""vlaser-gym: vision-language-action robot policies, scored and improved in simulation."""

from vlaser_gym.envs.registration import register_environments

__version__ = "0.1.0"

register_environments()
