"""Runs of answers: stored, continued, scored, compared, and what is said when something is wrong."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from fabricate_questions import HEIGHT, WIDTH, write_folder
from fabricate_vlm import write_vlm
from PIL import Image

from vlaser_gym import cli
from vlaser_gym.agents.vlaser.chat import Reply, Request
from vlaser_gym.commands import compare as compare_command
from vlaser_gym.commands import reason as reason_command
from vlaser_gym.errors import InvalidConfigError, MissingAssetError, RemoteError, StorageError, UnknownNameError
from vlaser_gym.reasoning.asking import ask_all, read_answers, request_of
from vlaser_gym.reasoning.comparison import compare_answers
from vlaser_gym.reasoning.folder import read_questions
from vlaser_gym.reasoning.models import make_answerer
from vlaser_gym.settings.commands import ReasonSettings


def looked(image: np.ndarray) -> tuple[int, int]:
    """Upper left corner of the red square."""
    rows, columns = np.nonzero(image[..., 0] > image[..., 1] + 100)
    return int(columns.min()), int(rows.min())


class Seer:
    """Answers by looking; without an image, or for every ``errs``-th question, it says left, 4 cm, (0, 0)."""

    name = "seer"

    def __init__(self, errs: int = 0, stop_after: int | None = None) -> None:
        self.errs, self.asked, self.stop_after = errs, 0, stop_after

    def replies(self, requests: Sequence[Request]) -> list[Reply]:
        return [self.reply(request) for request in requests]

    def reply(self, request: Request) -> Reply:
        self.asked += 1
        if self.stop_after is not None and self.asked > self.stop_after:
            raise RemoteError("gone")
        wrong = not request.images or (self.errs and self.asked % self.errs == 0)
        x, y = (0, 0) if wrong else looked(request.images[0])
        text = request.question
        if "Point" in text:
            return Reply(f"({(x + 4) / WIDTH:.4f}, {(y + 4) / HEIGHT:.4f})", False)
        if "Box" in text:
            return Reply(f"[{x / WIDTH}, {y / HEIGHT}, {(x + 8) / WIDTH}, {(y + 8) / HEIGHT}]", False)
        if "Side" in text:
            return Reply("left" if x < WIDTH / 2 - 4 else "right", False)
        if "How far" in text:
            return Reply(f"{x or 4} cm", False)
        points = [[(x + 2 * k) / WIDTH, (y + 1) / HEIGHT] for k in range(3)]
        return Reply(f"<point>{points}", True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "q", layouts=12)


def settings(data: Path, run: Path, **more: Any) -> ReasonSettings:
    return ReasonSettings(**{"data": str(data), "checkpoint": "seer", "run": str(run), "pictures": 4, **more})


def test_a_run_scores_beside_constant_and_blind(data: Path, tmp_path: Path) -> None:
    found = ask_all(settings(data, tmp_path / "a"), Seer())
    kinds = found.rows["kind"]
    assert {name: row.mean for name, row in kinds.items()} == dict.fromkeys(kinds, 1.0)
    assert kinds["choice"].n == kinds["choice"].layouts == 12
    assert kinds["trace"].cut == 12
    # Squares of test images: x is 4, 12, 20, 28, three times each; those of training are at 4 but for one.
    assert kinds["point"].blind == 0
    assert kinds["choice"].blind == 0.75, "left of the middle are 4, 12 and 20"
    assert kinds["choice"].constant == 0.75
    assert kinds["number"].blind == kinds["number"].constant == pytest.approx(3 / 12, abs=0.01)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["kind"]["point"]["mean"] == 1
    assert summary["questions"] == 60


def test_an_interrupted_run_goes_on(data: Path, tmp_path: Path) -> None:
    run = settings(data, tmp_path / "run", batch=4)
    with pytest.raises(RemoteError):
        ask_all(run, Seer(stop_after=26))
    kept = (tmp_path / "run" / "answers.jsonl").read_bytes()
    assert len(read_answers(tmp_path / "run")) == 24
    with (tmp_path / "run" / "answers.jsonl").open("ab") as file:
        file.write(b'{"id": "cut')
    seer = Seer()
    found = ask_all(run, seer)
    assert seer.asked == 2 * 60 - 24
    assert (tmp_path / "run" / "answers.jsonl").read_bytes().startswith(kept)
    other = ask_all(settings(data, tmp_path / "whole"), Seer())
    assert found.rows == other.rows
    assert (tmp_path / "run" / "answers.jsonl").read_bytes() == (tmp_path / "whole" / "answers.jsonl").read_bytes()
    with pytest.raises(StorageError, match="another run"):
        ask_all(settings(data, tmp_path / "run", max_new_tokens=9), Seer())


def test_comparison_is_paired_by_question(data: Path, tmp_path: Path) -> None:
    ask_all(settings(data, tmp_path / "a", blind=False), Seer(errs=3))
    ask_all(settings(data, tmp_path / "b", blind=False, limit=None), Seer())
    found = compare_answers(tmp_path / "a", tmp_path / "b")
    by_kind = {row.kind: row for row in found.kinds}
    scores = {}
    for name in "ab":
        summary = json.loads((tmp_path / name / "summary.json").read_text())["kind"]
        scores[name] = {kind: row["mean"] for kind, row in summary.items()}
    for kind, row in by_kind.items():
        assert row.n == 12
        assert row.difference == pytest.approx(scores["b"][kind] - scores["a"][kind])
        assert row.interval[0] <= row.difference <= row.interval[1]
    mean = np.mean([row.difference for row in found.kinds])
    assert found.overall.difference == pytest.approx(mean)
    assert found.overall.p < 0.01
    same = compare_answers(tmp_path / "b", tmp_path / "b")
    assert (same.overall.difference, same.overall.p) == (0, 1)


def test_the_compare_command_takes_runs_of_answers(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, errs in (("a", 3), ("b", 0)):
        ask_all(settings(data, tmp_path / name, blind=False), Seer(errs=errs))
    arguments = compare_command.overrides([str(tmp_path / "a"), str(tmp_path / "b"), f"json={tmp_path / 'c.json'}"])
    cli.run("compare", compare_command.main, arguments)
    told = capsys.readouterr().out
    assert "choice" in told
    assert "B is better than A" in told
    assert json.loads((tmp_path / "c.json").read_text())["overall"]["n"] == 60
    arguments = compare_command.overrides([str(tmp_path / "a"), str(data)])
    with pytest.raises(SystemExit):
        cli.run("compare", compare_command.main, arguments)
    assert "both" in capsys.readouterr().err


def test_the_page_shows_wrong_answers_on_their_pictures(data: Path, tmp_path: Path) -> None:
    ask_all(settings(data, tmp_path / "a", blind=False, pictures=3, kinds="point"), Seer(errs=2))
    page = (tmp_path / "a" / "wrong.html").read_text()
    pictures = page.split('src="data:image/jpeg;base64,')[1:]
    assert len(pictures) == 3
    for picture in pictures:
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.split('"')[0]))))
        assert image.shape[1] == WIDTH
        assert (image[:HEIGHT].min(-1) > 230).any(), "what is right is outlined in white"


def test_blind_questions_have_no_picture(data: Path) -> None:
    question = read_questions(data, ["test"])[0]
    assert request_of(data, question, blind=True) == Request(question.text)
    seen = request_of(data, question, blind=False)
    assert seen.question == f"<image>\n{question.text}"
    assert seen.images[0].shape == (HEIGHT, WIDTH, 3)
    double = replace(question, images=question.images * 2)
    assert request_of(data, double, blind=False).question.startswith("Image-1: <image>\nImage-2: <image>\n")


def test_a_limit_takes_a_fixed_sample_of_each_split(data: Path, tmp_path: Path) -> None:
    found = ask_all(settings(data, tmp_path / "a", split="test,train", limit=10, blind=False), Seer())
    assert {name: row.n for name, row in found.rows["split"].items()} == {"test": 10, "train": 10}
    again = ask_all(settings(data, tmp_path / "b", split="test,train", limit=10, blind=False), Seer())
    assert read_answers(tmp_path / "a") == read_answers(tmp_path / "b")
    assert found.rows == again.rows


class TestWrongInput:
    def test_no_folder_of_questions(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="should be a folder of questions"):
            ask_all(settings(tmp_path, tmp_path / "run"), Seer())
        (tmp_path / "settings.json").write_text('{"format": "vlaser_gym.questions/9"}')
        with pytest.raises(StorageError, match="questions/9"):
            ask_all(settings(tmp_path, tmp_path / "run"), Seer())
        assert not (tmp_path / "run").exists()

    def test_no_such_split(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="split of"):
            ask_all(settings(data, tmp_path / "run", split="tset"), Seer())

    def test_pictures_missing(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "q", layouts=3)
        (folder / "images" / "test1.png").unlink()
        with pytest.raises(MissingAssetError, match=r"1 images.*test1\.png"):
            ask_all(settings(folder, tmp_path / "run"), Seer())

    def test_a_damaged_line(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "q", layouts=3)
        file = folder / "truth" / "test.jsonl"
        file.write_bytes(file.read_bytes().replace(b'"form"', b'"from"', 1))
        with pytest.raises(StorageError, match="Line 1 of"):
            ask_all(settings(folder, tmp_path / "run"), Seer())

    def test_a_policy_and_two_answerers(self, data: Path, tmp_path: Path) -> None:
        nano = Path(__file__).parents[2] / "vlaser_gym" / "agents" / "vlaser" / "weights" / "nano"
        with pytest.raises(InvalidConfigError, match="without a language head"):
            make_answerer(settings(data, tmp_path, checkpoint=str(nano)))
        with pytest.raises(InvalidConfigError, match="one of the two"):
            make_answerer(settings(data, tmp_path, url="http://127.0.0.1:1/v1"))

    def test_a_folder_of_something_else(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        with pytest.raises(StorageError, match="something else"):
            ask_all(settings(data, tmp_path), Seer())


class _Server(BaseHTTPRequestHandler):
    seen: ClassVar[list[dict[str, Any]]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, data: Any, status: int = 200) -> None:
        self.say(json.dumps(data).encode(), status)

    def say(self, body: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer({"object": "list", "data": [{"id": "seer", "object": "model"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(asked)
        if asked["model"] != "seer":
            self.answer({"error": {"message": "no such model"}}, 404)
            return
        parts = asked["messages"][-1]["content"]
        images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        pictures = [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))))
            for url in images
        ]
        reply = Seer().reply(Request(parts[-1]["text"], pictures))
        message = {"role": "assistant", "content": reply.text}
        self.answer({"choices": [{"index": 0, "message": message, "finish_reason": "length" if reply.cut else "stop"}]})


@pytest.fixture
def server() -> Iterator[str]:
    _Server.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_address[1]}/v1"
        served.shutdown()


class TestServer:
    def test_it_is_asked_as_the_openai_api_wants_it(self, data: Path, tmp_path: Path, server: str) -> None:
        run = settings(data, tmp_path / "run", checkpoint=None, url=server, batch=5)
        found = ask_all(run, make_answerer(run))
        local = ask_all(settings(data, tmp_path / "local"), Seer())
        assert found.rows == local.rows
        first = _Server.seen[0]
        assert (first["model"], first["temperature"], first["max_tokens"]) == ("seer", 0, 256)
        kinds = {tuple(part["type"] for part in asked["messages"][-1]["content"]) for asked in _Server.seen}
        assert kinds == {("image_url", "text"), ("text",)}
        assert all("<image>" not in json.dumps(asked) for asked in _Server.seen), "the pictures are parts of their own"

    @pytest.mark.long
    def test_openai_s_own_client_gets_the_answer_that_reason_gets(
        self, data: Path, tmp_path: Path, server: str, neighbour: Callable[..., Path]
    ) -> None:
        run = settings(data, tmp_path / "run", checkpoint=None, url=server)
        ask_all(run, make_answerer(run))
        question = next(one for one in read_questions(data, ["test"]) if one.form == "point")
        stored = read_answers(tmp_path / "run")[question.id, False]
        script = Path(__file__).parents[1] / "neighbours" / "ask_by_openai.py"
        words = [neighbour("openai"), script, server, question.text, data / question.images[0]]
        subprocess.run([*words, tmp_path / "answer.json"], check=True)
        assert json.loads((tmp_path / "answer.json").read_text()) == ["seer", stored["answer"]]

    def test_nobody_answers(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(RemoteError, match="OpenAI chat API"):
            make_answerer(settings(data, tmp_path, checkpoint=None, url="http://127.0.0.1:9/v1"))

    def test_it_refuses(self, data: Path, tmp_path: Path, server: str) -> None:
        run = settings(data, tmp_path / "run", checkpoint=None, url=server, model="other")
        with pytest.raises(RemoteError, match=r"404.*no such model"):
            ask_all(run, make_answerer(run))

    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (200, b"[1]", "a list where an object should be"),
            (200, b"[" * 200_000, "maximum recursion depth"),
            (200, b" " * 4_000_001, "more than 4 MB"),
            (200, b'{"data": 5}', "lists no model"),
            (200, b"\x1b[2J", "Expecting value"),
            (500, b"down\n\x1b[2J", r"refused with 500: down \\x1b\[2J$"),
        ],
    )
    def test_what_it_answers_otherwise_is_one_sentence(
        self,
        data: Path,
        tmp_path: Path,
        server: str,
        monkeypatch: pytest.MonkeyPatch,
        status: int,
        body: bytes,
        said: str,
    ) -> None:
        monkeypatch.setattr(_Server, "do_GET", lambda self: self.say(body, status))
        with pytest.raises(RemoteError, match=said) as caught:
            make_answerer(settings(data, tmp_path, checkpoint=None, url=server))
        assert str(caught.value).isprintable()

    def test_files_are_no_servers(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(InvalidConfigError, match="url should be a server's"):
            make_answerer(settings(data, tmp_path, checkpoint=None, url=f"file://{tmp_path}"))


def test_the_command_with_a_checkpoint(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real model of random weights: answers never end, and none can be read as a point."""
    vlm = write_vlm(tmp_path / "vlm")
    arguments = [f"data={data}", f"checkpoint={vlm}", f"run={tmp_path / 'run'}", "limit=6", "max_new_tokens=5"]
    cli.run("reason", reason_command.main, arguments)
    told = capsys.readouterr().out
    assert "6 questions of" in told
    assert "no image" in told
    answers = read_answers(tmp_path / "run")
    assert len(answers) == 12
    assert all(line["cut"] for line in answers.values())
    assert (tmp_path / "run" / "wrong.html").is_file()
