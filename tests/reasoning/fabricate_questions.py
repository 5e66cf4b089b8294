"""A small folder of questions made on the spot: coloured squares on grey images, of every form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from vlaser_gym.reasoning.coordinates import encode_mask, number_of, point_text
from vlaser_gym.reasoning.folder import FORMAT, SETTINGS_FILE, Question, write_split

WIDTH, HEIGHT = 64, 48


def square(x: int, y: int, side: int = 8) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def write_folder(folder: Path, layouts: int = 6) -> Path:
    """Training and test questions; squares are to the left in most training images."""
    (folder / "images").mkdir(parents=True)
    (folder / SETTINGS_FILE).write_text(json.dumps({"format": FORMAT}) + "\n")
    for split, first in (("train", 100), ("test", 0)):
        questions = []
        for i in range(layouts):
            x, y = 4 + 8 * (i % 4), 10 + 4 * (i % 3)
            if split == "train":
                x, y = (4, 10) if i else (36, 30)
            picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
            picture[square(x, y)] = (200, 20, 20)
            name = f"images/{split}{i}.png"
            Image.fromarray(picture).save(folder / name)
            questions += five(split, i, first + i, name, x, y)
        write_split(folder, split, questions)
    return folder


def five(split: str, i: int, layout: int, name: str, x: int, y: int) -> list[Question]:
    """A point, a box, a choice with letters, a number and a trace about the square at (x, y)."""
    kind = "grid" if split == "test" else "region"
    shared = {
        "split": split,
        "images": [name],
        "sizes": [[WIDTH, HEIGHT]],
        "about": "square",
        "task": "squares",
        "layout": f"{kind}:{layout}",
        "steps": [0],
    }
    side = "left" if x < WIDTH / 2 - 4 else "right"
    options = ["left", "right"] if i % 2 else ["right", "left"]
    points = [[x + 2.0 * k, y + 1.0] for k in range(3)]

    def made(form: str, text: str, answer: str, **more: object) -> Question:
        return Question(id=f"{split}-{form}{i}", kind=form, family=form, form=form, text=text, answer=answer,
                        **{**shared, **more})  # fmt: skip

    middle = [[number_of(x + 4, WIDTH), number_of(y + 4, HEIGHT)]]
    return [
        made("point", "Point to the square.", point_text(middle), truth={"mask": encode_mask(square(x, y))}),
        made("box", "Box it.", f"<box>[[{x}, {y}, {x + 8}, {y + 8}]]</box>", truth={"box": [x, y, x + 8, y + 8]}),
        made("choice", f"Side?\nA. {options[0]}\nB. {options[1]}", "AB"[options.index(side)], options=options,
             right=side, lettered=True),
        made("number", "How far from the left, in cm?", f"{x} cm", truth={"value": float(x), "unit": "cm"}),
        made("trace", "Trace it.", point_text([[number_of(int(a), WIDTH), number_of(int(b), HEIGHT)]
                                               for a, b in points]), truth={"points": points}),
    ]  # fmt: skip
