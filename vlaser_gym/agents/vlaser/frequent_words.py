"""Words that are single tokens of the small model in questions and answers."""

from __future__ import annotations

#: What the grounding benchmarks say before the request, so that the model answers with points.
POINTING_PROMPT = (
    "You are InternVL. Your task is to locate several points in the given image according to the task descriptions. "
    'Your answer should be formatted as "<point>[[x1, y1], [x2, y2],...]</point>". The point coordinates are '
    "normalized to integers between 0 and 1000. Return the answer in the point format directly."
)

#: Words that are frequent in the questions that ``python -m vlaser_gym.questions`` makes; _ is the space before them.
_FREQUENT = (
    "_the _gripper _robot _camera _picture _frame _drawer _handle _basket _eggplant _carrot _plate _spoon "
    "_towel _block _green _yellow _sponge _apple _orange _can _coke _pepsi _blue _bottle _top _middle "
    "_bottom _left _right _front _behind _above _below _nearer _farther _closer _higher _lower _highest "
    "_of _to _is _or _in _on _a _and _with _into _from _between _than _one _these _for _are _was _not _no "
    "_yes _nothing _none _how _many _far _move _close _lift _carry _put _down _let _go _over _open _shut "
    "_pick _stack _near _place _up _forward _back _next _must _shall _way _first _second _last _later "
    "_done _task _steps _objects _thing _box _point _points _order _letter _percent _centimetres _cm "
    "_distance _height _opening _side _which _Which _Answer _A _B _C _D The Task Which Where What How "
    "Answer Give Is For Point Draw "
)
#: Checkpoints depend on their order: append only, and 512 tokens in all.
WORDS = (POINTING_PROMPT, *(word.replace("_", " ") for word in _FREQUENT.split()))
