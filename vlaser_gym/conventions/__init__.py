"""What numbers mean: units, frames and signs of each robot's actions and proprioception. Imports no other room."""

from vlaser_gym.conventions.robots import CONVENTIONS, Quantity, RobotConvention, get_convention

__all__ = ["CONVENTIONS", "Quantity", "RobotConvention", "get_convention"]
