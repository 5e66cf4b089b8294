"""Failure diagnosis: a class and a sentence for each episode, patterns over many, changes between two runs."""

from vlaser_gym.evaluation.diagnosis.classes import FAILURE_CLASSES, FailureClass
from vlaser_gym.evaluation.diagnosis.events import Event
from vlaser_gym.evaluation.diagnosis.rules import Diagnosis, diagnose

__all__ = ["FAILURE_CLASSES", "Diagnosis", "Event", "FailureClass", "diagnose"]
