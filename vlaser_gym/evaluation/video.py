"""Videos of stored episodes: rendered from their states, with a caption below the image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vlaser_gym.envs.address import canonical_layout
from vlaser_gym.envs.engines import check_engine
from vlaser_gym.envs.perturbations import get_perturbation
from vlaser_gym.envs.rendering import SceneRenderer, drawn_states, find_view, shown_look, view_names
from vlaser_gym.envs.robots import POLICY_CAMERA, Camera, get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.evaluation.begun import placement_of
from vlaser_gym.evaluation.explanations import draw_explanation, explanation_note
from vlaser_gym.evaluation.store import Record, address_of, read_records, read_states
from vlaser_gym.evaluation.told import instructions_told, thoughts_had
from vlaser_gym.storage.files import appearing

_ENGINE = "mujoco"
_CAPTION_HEIGHT, _NOTE_HEIGHT = 96, 16  # px; with images of 480 and 512 multiples of 16, as video codecs like it
_BATCH = 16
_BACKGROUND, _TEXT, _FAINT, _GOOD, _WARNING = "#14171a", "#f2f4f5", "#7d868d", "#5fd38d", "#ffc24d"


def video_folder(run: str | Path) -> Path:
    """``videos/NAME`` of the run ``runs/NAME``; of a run elsewhere ``videos/NAME-XXXXXX``, X from its whole path.

    So no two runs share a folder, and the same run has the same one every time.
    """
    path = Path(run).resolve()
    if path.parent == Path("runs").resolve():
        return Path("videos") / path.name
    return Path("videos") / f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def find_video(run: str | Path, record: Record) -> Path | None:
    """The video of an episode in :func:`video_folder`, if there is one that was made from the states of this run."""
    file = video_folder(run) / video_name(record)
    states = Path(run) / record["states"]
    if not file.is_file() or not states.is_file():
        return None
    # An older one shows an episode of an earlier run in this place.
    return file if file.stat().st_mtime_ns >= states.stat().st_mtime_ns else None


def choose_examples(records: Sequence[Record], per_task: int) -> list[Record]:
    """``per_task`` episodes of each task, in order; from two on, a success and a failure come first if there are."""
    chosen = []
    for task in dict.fromkeys(record["task"] for record in records):
        mine = [r for r in records if r["task"] == task and r["states"] is not None]
        firsts = [next((r for r in mine if r["success"] is wanted), None) for wanted in (True, False)]
        first = [r for r in firsts if r is not None] if per_task > 1 else []
        chosen += [*first, *(r for r in mine if r not in first)][:per_task]
    return chosen


def select_episodes(run: str | Path, wanted: Sequence[str]) -> list[Record]:
    """Records of a run by ``"failures"``, ``"successes"``, ``"all"``, or by address.

    An address is ``task``, ``task/layout``, ``task/layout/trial`` or ``task/variant/layout/trial``; what it leaves out
    may be anything. Episodes without stored states are passed over unless an address names them.

    Raises:
        UnknownNameError: for an address without an episode.
        StorageError: if ``run`` is no run directory.
    """
    records = read_records(run)
    kinds = {"failures": [r for r in records if not r["success"]], "successes": [r for r in records if r["success"]]}
    kinds["all"] = records
    chosen: dict[Any, Record] = {}
    for word in wanted:
        if word in kinds:
            found = [r for r in kinds[word] if r["states"] is not None]
        else:
            found = [r for r in records if _matches(word, r)]
            if not found:
                addresses = [str(address_of(r)) for r in records]
                raise UnknownNameError("episode", word, [*kinds, *addresses])
        chosen |= {address_of(r): r for r in found}
    return list(chosen.values())


def render_videos(
    run: str | Path,
    records: Iterable[Record],
    folder: str | Path,
    *,
    fps: float | None = None,
    look: str | None = None,
    processes: int | None = None,
    assets: str | None = None,
    camera: str | Sequence[str] = POLICY_CAMERA,
) -> Iterator[Path]:
    """Render episodes of a run to MP4 files (H.264, as browsers play it); yields each as it is ready.

    Args:
        run: the run directory.
        records: which episodes.
        folder: where to put the files; created if need be.
        fps: frames per second, a frame per control step; ``None`` for the robot's control rate, which is real time.
        look: of the images; ``None`` for the simulated look, or the built-in one where this renderer lacks it.
        processes: that render; ``None`` for one per core.
        assets: directory of the asset pack, for the look ``original``; ``None`` for the user's cache.
        camera: of the robot, by its name among ``RobotSetup.cameras``, or a view of the scene (``front``, ``side``,
            ``top``, ``free_view(...)``); several are shown side by side. Files of others than the policy's are named
            after them too. Of a perturbed episode the policy's shows what the policy saw.

    Raises:
        MissingAssetError: if ``look`` needs the asset pack and it is not there.
        RenderingUnavailableError: if no OpenGL driver can make images here.
        StorageError: if the folder cannot be written or states are missing.
        UnknownNameError: for a look or a camera that does not exist.
    """
    if look is not None:
        check_engine(_ENGINE, look)
    records, cameras = list(records), [camera] if isinstance(camera, str) else list(camera)
    for record in records:
        _check_cameras(cameras, get_setup(get_task(record["task"]).robot_setup).cameras)
    suffix = ".mp4" if cameras == [POLICY_CAMERA] else f".{'-'.join(cameras).replace(':', '_')}.mp4"
    renderers: dict[str, SceneRenderer] = {}
    try:
        for record in records:
            used = look or shown_look(str(record["look"]), assets)
            if used not in renderers:
                renderers[used] = SceneRenderer(used, _BATCH, processes, assets)
            simulated = record["engine"], record["look"]
            note = f"shown: {_ENGINE}, {used}; simulated: {simulated[0]}, {simulated[1]}"
            note = "" if simulated == (_ENGINE, used) else note
            frames = _frames(renderers[used], record, read_states(run, record), note, cameras)
            rate = fps or get_setup(get_task(record["task"]).robot_setup).control_hz
            yield write_video((Path(folder) / video_name(record)).with_suffix(suffix), frames, rate)
    finally:
        for renderer in renderers.values():
            renderer.close()


def draw_caption(picture: NDArray[np.uint8], caption: Mapping[str, Any]) -> NDArray[np.uint8]:
    """An image ``[H, W, 3]`` with text below it, ``[H + 96, W, 3]``, and 16 rows more where there is a note.

    ``caption`` holds ``instruction``, ``where``, ``step``, ``flags`` (name -> bool) and ``note`` (may be empty).
    """
    height, width = picture.shape[:2]
    extra = _NOTE_HEIGHT if caption["note"] else 0
    image = Image.new("RGB", (width, height + _CAPTION_HEIGHT + extra), _BACKGROUND)
    image.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(image)
    large, small = ImageFont.load_default(18), ImageFont.load_default(13)
    draw.text((12, height + 8), caption["instruction"], _TEXT, large)
    draw.text((width - 12, height + 10), caption["step"], _TEXT, large, anchor="ra")
    draw.text((12, height + 34), caption["where"], _FAINT, small)
    draw.text((12, height + 51), caption["note"], _WARNING, small)
    left, top = 12.0, height + 55.0 + extra
    for name, value in caption["flags"].items():
        length = draw.textlength(name, small)
        if left + length > width - 12 and left > 12:  # a second line takes what the first has no room for
            left, top = 12.0, top + 18
        draw.text((left, top), name, _GOOD if value else _FAINT, small)
        left += length + 14
    return np.asarray(image)


def _matches(word: str, record: Record) -> bool:
    parts = word.split("/")
    names = {1: ("task",), 2: ("task", "layout"), 3: ("task", "layout", "trial")}.get(
        len(parts), ("task", "variant", "layout", "trial")
    )
    if len(parts) != len(names):
        return False
    wanted = dict(zip(names, parts, strict=True))
    if wanted.get("layout", "").isdigit():
        wanted["layout"] = canonical_layout(int(wanted["layout"]))
    return all(str(record[name]) == value for name, value in wanted.items())


def _check_cameras(wanted: Sequence[str], cameras: Mapping[str, Camera]) -> None:
    """Raise :class:`UnknownNameError` for a name that is neither a camera of the robot nor a view."""
    for name in wanted:
        if name not in cameras and name.split(":")[0] not in view_names():
            raise UnknownNameError("camera", name, (*cameras, *view_names(cameras)))
        if name not in cameras:
            find_view(name)
    sizes = {(cameras.get(name, cameras[POLICY_CAMERA]).height) for name in wanted}
    if len(sizes) > 1:
        raise InvalidConfigError(f"Images side by side have one height; got {', '.join(wanted)}: render them apart.")


def _frames(
    renderer: SceneRenderer,
    record: Record,
    states: Mapping[str, NDArray[Any]],
    note: str,
    cameras: Sequence[str],
) -> Iterator[NDArray[np.uint8]]:
    """Captioned images of the initial state and of each control step."""
    named = drawn_states(states)
    count, told = len(named["qpos"]), instructions_told(record, states)
    thoughts = thoughts_had(states, count - 1)
    most_steps = step_limit(record)
    where = [str(record["task"]), str(record["layout"]), f"trial {record['trial']}", str(record["agent"])]
    for begin in range(0, count, _BATCH):
        rows = range(begin, min(begin + _BATCH, count))
        batch = [{name: values[t] for name, values in named.items()} for t in rows]
        seen = [_pictures(renderer, record, states, batch, camera, rows) for camera in cameras]
        for t, pictures in zip(rows, zip(*seen, strict=True), strict=True):
            told_at = record.get("perturb"), explanation_note(states, t)
            caption = {
                "instruction": told[t],
                "where": "   ".join([*where, *filter(None, told_at)]),
                "step": f"step {t}/{most_steps}",
                "flags": {name: bool(states[f"flag/{name}"][t - 1]) if t else False for name in record["flags"]},
                "note": _with_thought(note, thoughts[t : t + 1]),
            }
            yield draw_caption(np.hstack(pictures), caption)


def _pictures(
    renderer: SceneRenderer,
    record: Record,
    states: Mapping[str, NDArray[Any]],
    batch: Sequence[Mapping[str, Any]],
    camera: str,
    steps: Sequence[int],
) -> NDArray[np.uint8]:
    """Images of states after some control steps; the policy's with what the agent told of its decisions."""
    pictures = _seen(renderer, record, batch, camera, steps)
    if camera != POLICY_CAMERA:
        return pictures
    drawn = [draw_explanation(one, record["task"], states, t) for one, t in zip(pictures, steps, strict=True)]
    return np.stack(drawn)


def _seen(
    renderer: SceneRenderer, record: Record, batch: Sequence[Mapping[str, Any]], camera: str, steps: Sequence[int]
) -> NDArray[np.uint8]:
    """Images of states after some control steps; of a perturbed episode the policy's are what the policy saw."""
    shown = (record["task"], record["variant"], batch, camera)
    if "perturb" not in record:
        return renderer.frames(*shown)
    placement = placement_of(record)
    if camera != POLICY_CAMERA:
        return renderer.frames(*shown, bodies=placement.bodies)
    pictures = renderer.frames(*shown, placement.sight, placement.bodies)
    perturbation, address = get_perturbation(record["perturb"]), address_of(record)
    return np.stack(
        [perturbation.picture(one, perturbation.moment(address, t)) for one, t in zip(pictures, steps, strict=True)]
    )


def step_limit(record: Record) -> int:
    """Control steps that an episode could take: its task's, where it did not end at a limit of the run's own."""
    steps = int(record["steps"])
    return steps if record["ending"] == "truncated" else max(steps, get_task(record["task"]).max_steps)


def video_name(record: Record) -> str:
    """Name of an episode's video, from its address and its outcome."""
    outcome = "success" if record["success"] else "failure"
    return f"{Path(record['states']).stem}.{outcome}.mp4"


def write_video(file: Path, frames: Iterator[NDArray[np.uint8]], fps: float) -> Path:
    """Encode captioned images ``[H, W, 3]``; the file appears when it is complete.

    Raises:
        StorageError: if it cannot be written.
    """
    first = next(frames)  # before anything is created: rendering may be refused
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with appearing(file, sync=False) as partial:
            encode(partial, first, frames, fps, quality=5)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise StorageError(f"Cannot write the video {file}: {reason}; choose another output=.") from error
    return file


def encode(file: Path, first: NDArray[np.uint8], others: Iterable[NDArray[np.uint8]], fps: float, quality: int) -> None:
    """Write images ``[H, W, 3]`` as H.264 in an MP4 file, whatever the file's name.

    Args:
        file: the video.
        first: the first image; its size, in even numbers, is the video's.
        others: those after it.
        fps: images per second.
        quality: 0 (small) to 10 (good).
    """
    writer = imageio_ffmpeg.write_frames(
        str(file),
        (first.shape[1], first.shape[0]),
        fps=fps,
        codec="libx264",
        quality=quality,
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-f", "mp4", "-movflags", "+faststart"],
    )
    try:
        writer.send(None)
        writer.send(first)
        for frame in others:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()


def _with_thought(note: str, thought: Sequence[str]) -> str:
    return "   ".join([*([note] if note else []), *(f"says: {text}" for text in thought)])
