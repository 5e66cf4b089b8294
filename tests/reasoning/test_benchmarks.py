"""Every reader on a fabricated sample of its format; what was written by hand here is what must be read."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlaser_gym.errors import MissingAssetError, StorageError, UnknownNameError
from vlaser_gym.reasoning.benchmarks import READERS, convert
from vlaser_gym.reasoning.coordinates import decode_mask
from vlaser_gym.reasoning.folder import Question, missing_pictures, read_questions
from vlaser_gym.reasoning.scores import score

SIZE = (40, 30)


def picture(file: Path, value: int = 90, size: tuple[int, int] = SIZE) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(file)


def mask(file: Path) -> None:
    """White in columns 10 to 19 of rows 5 to 9."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((30, 40), np.uint8)
    pixels[5:10, 10:20] = 255
    Image.fromarray(pixels).save(file)


def lines(file: Path, *entries: dict[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def converted(name: str, data: Path) -> list[Question]:
    output = data.parent / "converted"
    count = convert(name, data, output)
    questions = read_questions(output, ["test"])
    assert len(questions) == count
    assert missing_pictures(output, questions) == []
    return questions


def check_masked(question: Question, request: str) -> None:
    inside, outside = "<point>[[375, 250]]</point>", "<point>[[800, 250]]</point>"  # pixels (15, 7) and (32, 7)
    assert request in question.text
    assert question.sizes == [list(SIZE)]
    assert decode_mask(question.truth["mask"]).sum() == 50
    assert (score(question, inside).value, score(question, outside).value) == (1, 0)
    assert score(question, question.answer).value == 1


def test_where2place(tmp_path: Path) -> None:
    data = tmp_path / "data"
    suffix = " Your answer should be formatted as a list of tuples."
    lines(data / "point_questions.jsonl", {"question_id": 0, "image": "00.jpg", "text": f"Free space.{suffix}"})
    picture(data / "images" / "00.jpg")
    mask(data / "masks" / "00.png")
    (question,) = converted("where2place", data)
    check_masked(question, "Free space.")
    assert "tuples" not in question.text, "points are asked for in one way"


def test_refspatial(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split, keys in (("Location", ("rgb_path", "mask_path")), ("Unseen", ("image", "mask"))):
        entry = {"id": 0, "prompt": f"Point at the {split}.", "step": 1}
        entry |= dict(zip(keys, ("image/0.png", "mask/0.png"), strict=True))
        picture(data / split / "image" / "0.png")
        mask(data / split / "mask" / "0.png")
        (data / split / "question.json").write_text(json.dumps([entry]))
    questions = converted("refspatial", data)
    assert [question.kind for question in questions] == ["Location", "Unseen"]
    for question in questions:
        check_masked(question, question.kind)


def test_pointarena(tmp_path: Path) -> None:
    data = tmp_path / "data"
    entries = [
        {"image_filename": f"{c}.jpg", "mask_filename": f"{c}.png", "user_input": f"Point: {c}", "category": c}
        for c in ("affordable", "counting")
    ]
    data.mkdir()
    (data / "data.json").write_text(json.dumps(entries))
    picture(data / "images" / "affordable" / "affordable.jpg")
    mask(data / "masks" / "affordable" / "affordable.png")
    picture(data / "images" / "counting.jpg")
    mask(data / "masks" / "counting.png")
    for question, name in zip(converted("pointarena", data), ("affordable", "counting"), strict=True):
        assert question.kind == name
        check_masked(question, f"Point: {name}")


def test_pixmo_points(tmp_path: Path) -> None:
    data = tmp_path / "data"
    picture(data / "pictures" / "a.jpg", size=(200, 100))
    entry = {"image": "pictures/a.jpg", "label": "cups", "points": [{"x": 50, "y": 50}, {"x": 10, "y": 10}]}
    lines(data / "questions.jsonl", entry, {**entry, "points": []})
    (question,) = converted("pixmo_points", data)
    assert "Point to the cups." in question.text
    assert question.truth["points"] == [[100, 50], [20, 10]]
    assert score(question, "<point>[[600, 500], [100, 100]]</point>").value == 1, "20 pixels off, and exact"
    assert score(question, "<point>[[640, 500], [100, 100]]</point>").value == 0.5, "28 pixels off"


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: dict[str, list[bytes] | list[int]]) -> bytes:
    entries = b""
    for name, values in features.items():
        if isinstance(values[0], bytes):
            feature = field(1, b"".join(field(1, value) for value in values))  # type: ignore[arg-type]
        else:
            feature = field(3, field(1, b"".join(varint(value) for value in values)))  # type: ignore[arg-type]
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((30, 40, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_erqa(tmp_path: Path) -> None:
    text = "Which way? Choices: A. Left. B. To the right of it. C. Down. Please answer directly with only the letter."
    message = example(
        {
            "question": [text.encode()],
            "answer": [b"B"],
            "image/encoded": [png(1), png(2)],
            "question_type": [b"Action Reasoning"],
            "visual_indices": [0, 9],
        }
    )
    data = tmp_path / "data"
    data.mkdir()
    record = struct.pack("<Q", len(message)) + bytes(4) + message + bytes(4)
    (data / "erqa.tfrecord").write_bytes(record * 2)
    questions = converted("erqa", data)
    assert len(questions) == 2
    assert questions[0].kind == "Action Reasoning"
    assert len(questions[0].images) == 2
    assert questions[0].options == ["Left", "To the right of it", "Down"]
    assert (questions[0].right, questions[0].answer) == ("To the right of it", "B")
    assert (score(questions[0], "B").value, score(questions[0], "A").value) == (1, 0)
    (data / "erqa.tfrecord").write_bytes(record[:-9])
    with pytest.raises(MissingAssetError, match="ends within a record"):
        convert("erqa", data, tmp_path / "other")


def test_vsibench(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shared = {"dataset": "scannet", "scene_name": "scene0"}
    lines(
        data / "test.jsonl",
        {**shared, "question_type": "object_counting", "question": "How many chairs?", "options": None,
         "ground_truth": "4"},
        {**shared, "question_type": "route_planning", "question": "Turn?", "options": ["A. left", "B. right"],
         "ground_truth": "B"},
    )  # fmt: skip
    for i in range(20):
        picture(data / "frames" / "scannet" / "scene0" / f"{i:03d}.jpg", value=10 * i)
    count, route = converted("vsibench", data)
    assert len(count.images) == len(route.images) == 8
    assert (count.form, score(count, "4").value, score(count, "5").value) == ("number", 1, pytest.approx(0.5))
    assert route.options == ["left", "right"]
    assert (score(route, "B").value, score(route, "left").value) == (1, 0)


def test_plain(tmp_path: Path) -> None:
    data = tmp_path / "data"
    picture(data / "a.png")
    mask(data / "m.png")
    lines(
        data / "questions.jsonl",
        {"image": "a.png", "question": "Free space?", "mask": "m.png"},
        {"image": "a.png", "question": "Corner?", "points": [[0, 0]], "radius": 3},
        {"image": "a.png", "question": "Box?", "box": [10, 5, 20, 10]},
        {"images": ["a.png", "a.png"], "question": "Same?", "options": ["yes", "no"], "answer": "yes", "kind": "pair"},
        {"image": "a.png", "question": "How far?", "value": 12, "unit": "cm"},
    )
    space, corner, box, same, far = converted("plain", data)
    check_masked(space, "Free space?")
    assert [score(corner, f"<point>[[{x}, 0]]</point>").value for x in (50, 150)] == [1, 0]  # 2 and 6 pixels
    assert score(box, "<box>[[250, 167, 500, 333]]</box>").value == 1
    assert (same.kind, same.answer, score(same, "yes").value) == ("pair", "A", 1)
    assert score(far, "0.12 m").value == 1


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="benchmark format"):
        convert("where3place", tmp_path, tmp_path / "out")
    for name in READERS:
        with pytest.raises(MissingAssetError, match=r"docs/reasoning\.md"):
            convert(name, tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(StorageError, match="not empty"):
        convert("plain", tmp_path, tmp_path / "full")
