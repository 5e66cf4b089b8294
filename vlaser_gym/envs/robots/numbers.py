"""Plain data that single engines need of a robot beyond its description. No engine is imported here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MujocoNumbers:
    """Numbers of a robot for the built-in engine.

    Attributes:
        shapes: import string ``module:function`` of what gives links their shapes, called once per link as
            ``function(spec, body, link, colour)``: an ``MjSpec``, the link's body in it, the link's name and the
            variant's ``robot_colour``. It is imported when a scene is built.
        substeps: physics substeps of a control step.
        impedance: of contacts, smallest and largest (MuJoCo's ``solimp``).
        friction_weight: weight of friction against normal forces (MuJoCo's ``impratio``).
        rolling_friction: of the objects that the robot handles, m.
        iterations: of the original's solver, which end before a blocked drive delivers its whole force; ``None`` for
            the whole force.
    """

    shapes: str
    substeps: int
    impedance: tuple[float, float] = (0.95, 0.99)
    friction_weight: float = 10.0
    rolling_friction: float = 0.0
    iterations: int | None = None


@dataclass(frozen=True)
class ManiskillNumbers:
    """Numbers of a robot for SAPIEN 3: how the drives of the fingers press, as the original's older PhysX has it.

    There, a drive that meets resistance delivers only a share of its force: in each of the solver's 25 iterations it is
    damped as if the finger moved freely. In free motion nothing of this is seen, because stiffness and damping are
    lowered alike.

    Attributes:
        share: measured on recorded impulses of held objects (cube 0.0128 N s in 2 ms, can 0.303 N s in 1.95 ms).
        rotor: inertia (kg m^2 or kg) added to the finger joints; it delays them by less than a physics substep, and
            without it light fingers on stiff drives make today's solver throw the arm about.
        speed: joint speed that the original reports per unit of blocked drive force (rad/s per N m). The Google
            Robot's finger motion is planned on from the measured speed, and so keeps pressing from step to step.
        hull_per_part: collision files of the description hold several parts, each of which is a hull of its own.
    """

    share: float
    rotor: float = 0.0
    speed: float = 0.0
    hull_per_part: bool = True


@dataclass(frozen=True)
class SimplerNumbers:
    """Numbers of a robot for the original SimplerEnv, which has the robot itself.

    Attributes:
        control_mode: the original's name of what our controller does.
        open_at_limit: the gripper is open with its joints at their upper limits, and closed at the lower; else it is
            open at 0 and closed at the upper limits.
    """

    control_mode: str
    open_at_limit: bool
