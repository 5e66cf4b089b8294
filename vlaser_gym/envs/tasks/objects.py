"""The objects of the WidowX scenes, as numbers.

Masses, principal moments and centre-of-mass frames were read from the running original (SimplerEnv, ManiSkill2_real2sim
ef7a4d4, SAPIEN 2.2.2: volume of the convex pieces times the database's density); boxes are those of its model
databases ``info_bridge_custom_v0.json`` and ``info_bridge_custom_baked_tex_v0.json``. Success rules use these boxes
even where the mesh has another size.
"""

from __future__ import annotations

from vlaser_gym.envs.tasks.base import ObjectSpec

CARROT = ObjectSpec(
    name="bridge_carrot_generated_modified",
    mass=0.0547269136,
    com=(0.00680288067, -0.000209795136, 0.000570481468),
    com_rotation=(0.995006084, 0.0668405369, -0.0741197094, -0.00129510823),
    inertia=(7.57639145e-06, 4.29659704e-05, 4.25954495e-05),
    bbox=(0.115, 0.032, 0.038),
)
PLATE = ObjectSpec(
    name="bridge_plate_objaverse_larger",
    mass=0.0391887799,
    com=(-0.000101033133, 7.68015161e-05, 0.00353625044),
    com_rotation=(0.998004556, 9.78126991e-05, -0.000139164273, -0.0631416664),
    inertia=(2.27551773e-05, 2.22552953e-05, 4.48017197e-05),
    bbox=(0.11, 0.11, 0.006),
)
SPOON = ObjectSpec(
    name="bridge_spoon_generated_modified",
    mass=0.0430584773,
    com=(0.00872480683, 0.000136839895, 0.000674798968),
    com_rotation=(0.99988544, -0.0146284727, -0.00327159581, 0.00213893247),
    inertia=(2.70405667e-06, 6.20747232e-05, 6.23051237e-05),
    bbox=(0.14, 0.0346, 0.026042),
)
CLOTH = ObjectSpec(
    name="table_cloth_generated_shorter",
    mass=0.0266970526,
    com=(0.000669389556, -0.00174137519, -0.000544312585),
    com_rotation=(0.999784708, -0.00429735612, -0.00207566796, 0.0201946683),
    inertia=(2.25014646e-05, 2.09395675e-05, 4.31210356e-05),
    bbox=(0.1, 0.1, 0.01),
)
GREEN_CUBE = ObjectSpec(
    name="baked_green_cube_3cm",
    mass=0.027,
    com=(0.0, 0.0, 0.0),
    com_rotation=(1.0, 0.0, 0.0, 0.0),
    inertia=(4.05e-06, 4.05e-06, 4.05e-06),
    bbox=(0.03, 0.03, 0.03),
)
YELLOW_CUBE = ObjectSpec(
    name="baked_yellow_cube_3cm",
    mass=0.027,
    com=(0.0, 0.0, 0.0),
    com_rotation=(1.0, 0.0, 0.0, 0.0),
    inertia=(4.05e-06, 4.05e-06, 4.05e-06),
    bbox=(0.03, 0.03, 0.03),
)
EGGPLANT = ObjectSpec(
    name="eggplant",
    mass=0.0208888073,
    com=(0.000196495559, 4.59781149e-05, -8.75347760e-05),
    com_rotation=(0.996863723, -0.0233931597, 0.0747699067, -0.0111784795),
    inertia=(2.78088055e-06, 7.67061101e-06, 7.59165187e-06),
    bbox=(0.0783, 0.0374, 0.038),
)
#: The goal of the eggplant task: an invisible plate of steel weight that lies free on the basket's bottom.
SINK_PLANE = ObjectSpec(
    name="dummy_sink_target_plane",
    mass=2.08,
    com=(0.0, 0.0, 0.0),
    com_rotation=(1.0, 0.0, 0.0, 0.0),
    inertia=(0.00111002661, 0.0029300265, 0.00403866637),
    bbox=(0.13, 0.08, 0.002),
)
SINK = ObjectSpec(
    name="sink",
    mass=372.081268,
    com=(0.00668674242, -0.0121244611, 0.045697242),
    com_rotation=(0.999352098, -0.0238155928, 0.0163576603, -0.021462962),
    inertia=(5.1566205, 2.82097459, 7.20305157),
    bbox=(0.269, 0.393, 0.115),
    fixed=True,
)
