"""Measures of image similarity with the original simulator: outlines of the foreground, and its appearance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.assets.photographs import read_photograph
from vlaser_gym.envs.rendering import original_renderer
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import MissingAssetError
from vlaser_gym.evaluation.parity import Recordings

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]

#: How far around a recorded object its outline is looked for, pixels.
_AROUND = 10


@dataclass(frozen=True)
class Recorded:
    """A recorded image ``[H, W, 3]``, its foreground ``[H, W]``, and the state that it shows, by name.

    ``objects``: the part of the foreground that is each object's, where that was recorded.
    """

    key: str
    variant: str
    state: dict[str, NDArray[Any]]
    picture: Picture
    foreground: Mask
    objects: dict[str, Mask] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One recorded image against ours.

    Attributes:
        iou: intersection over union of the two foregrounds.
        object_iou: the same for each object alone, of the pixels near it that show nothing else.
        ssim: mean structural similarity over the recorded foreground's pixels.
        photograph_ssim: the same of the bare photograph, without any foreground; None where there is no asset pack.
        whole_ssim: ours over the whole image.
        ours: our image.
    """

    recorded: Recorded
    iou: float
    object_iou: dict[str, float]
    ssim: float
    photograph_ssim: float | None
    whole_ssim: float
    ours: Picture


def compare_pictures(
    recordings: Recordings,
    task_name: str,
    assets: str | None = None,
    most: int | None = None,
    engine: str = "mujoco",
    options: Mapping[str, Any] | None = None,
) -> Iterator[Comparison]:
    """Every recorded image of a task (at most ``most``) against the look ``original`` of an engine.

    Args:
        recordings: of the original.
        task_name: whose.
        assets: folder of the asset pack; None for the user's cache.
        most: how many at most; None for all.
        engine: one of :data:`~vlaser_gym.envs.rendering.PICTURE_ENGINES`.
        options: its other options.

    Raises:
        MissingAssetError: if the asset pack is missing or damaged; the engine ``simpler`` has its own.
    """
    task, pack = get_task(task_name), _pack(engine, assets)
    given = {} if engine == "simpler" else {"assets": assets}
    renderer = original_renderer(engine, {**(options or {}), **given})
    try:
        for recorded in list(_recorded(recordings, task_name))[:most]:
            shown = (task_name, recorded.variant, recorded.state)
            ours, foreground = renderer.frame(*shown), renderer.foreground(*shown)
            name = task.photograph(recorded.variant, recorded.state.get("base_pose"))
            photograph = None if pack is None else read_photograph(pack, name, recorded.foreground.shape)
            yield _compared(recorded, ours, foreground, photograph)
    finally:
        renderer.close()


def _pack(engine: str, assets: str | None) -> AssetPack | None:
    try:
        return AssetPack(assets)
    except MissingAssetError:
        if engine == "simpler":
            return None
        raise


def picture_figures(comparisons: list[Comparison]) -> dict[str, Any]:
    """Least and mean IoU, the least of an object alone (None: none was recorded), mean similarities; for JSON.

    ``pictures`` holds each image's own.
    """
    names = ("iou", "ssim", "photograph_ssim", "whole_ssim")
    rows = [
        {name: getattr(c, name) for name in (*names, "object_iou")} | {"picture": c.recorded.key} for c in comparisons
    ]
    told = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    means = {name: float(np.mean(values)) if values else None for name, values in told.items()}
    alone = min((iou for c in comparisons for iou in c.object_iou.values()), default=None)
    return {"pictures": rows, "least_iou": min(c.iou for c in comparisons), "least_object_iou": alone, **means}


def beside(comparison: Comparison, scale: int = 2) -> Image.Image:
    """The recorded image and ours side by side, scaled down."""
    image = Image.fromarray(np.hstack([comparison.recorded.picture, comparison.ours]))
    return image.reduce(scale)


def ssim(a: Picture, b: Picture, sigma: float = 1.5) -> NDArray[np.float64]:
    """Structural similarity per pixel, ``[H, W]``, mean over the colours.

    Wang et al. 2004: Gaussian window of 11 pixels (sigma 1.5), K1 0.01, K2 0.03, range 255.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over the Gaussian window of each pixel, ``[H, W, 3]``."""
        return np.asarray(gaussian_filter(values, (sigma, sigma, 0), truncate=3.5))

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return np.asarray((luminance * (2 * covariance + c2) / (var_x + var_y + c2)).mean(-1))


def _compared(recorded: Recorded, ours: Picture, foreground: Mask, photograph: Picture | None) -> Comparison:
    own, theirs = foreground, recorded.foreground
    similarity = ssim(ours, recorded.picture)
    object_iou = {}
    for name, mask in recorded.objects.items():
        # Compared are an object's pixels and those near it, but for those nearer to the rest of the foreground.
        to_object = distance_transform_edt(~mask)
        others = theirs & ~mask
        to_others = distance_transform_edt(~others) if others.any() else np.full(mask.shape, np.inf)
        around = mask | ((to_object <= _AROUND) & (to_object < to_others))
        object_iou[name] = _iou(own & around, mask)
    return Comparison(
        recorded,
        iou=_iou(own, theirs),
        object_iou=object_iou,
        ssim=float(similarity[theirs].mean()),
        photograph_ssim=None if photograph is None else float(ssim(photograph, recorded.picture)[theirs].mean()),
        whole_ssim=float(similarity.mean()),
        ours=ours,
    )


def _iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


def _recorded(recordings: Recordings, task_name: str) -> Iterator[Recorded]:
    for kind in ("reset", "replay_task"):
        for key, meta, arrays in recordings.episodes(kind, task_name):
            folder = recordings.folder / kind / meta["task"]
            for row, stem in _pictures(key, meta, folder):
                picture, mask = (Image.open(folder / f"{stem}{end}.png") for end in ("", "_mask"))
                foreground = np.asarray(mask.convert("L")) > 127
                yield Recorded(
                    f"{kind}/{stem}",
                    meta.get("urdf_version") or "default",
                    _state(meta, arrays, row),
                    np.asarray(picture.convert("RGB")),
                    foreground,
                    _objects(meta, folder / f"{stem}_seg.png", foreground),
                )


def _objects(meta: Mapping[str, Any], file: Path, foreground: Mask) -> dict[str, Mask]:
    """The mask of each object that stands before the photograph; empty without a file."""
    if not file.is_file():
        return {}
    seen = np.asarray(Image.open(file))
    masks = {
        name: (seen == int(number)) & foreground
        for number, name in meta["seg_legend"].items()
        if name in meta["object_names"]
    }
    return {name: mask for name, mask in masks.items() if mask.any()}


def _pictures(key: str, meta: Mapping[str, Any], folder: Path) -> Iterator[tuple[int | None, str]]:
    """State index (None: the only one) and file stem of an episode's images."""
    if meta.get("image"):
        yield None, key
    for shown in meta.get("images", {}).values():
        yield int(shown["state_index"]), Path(shown["file"]).stem


def _state(meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], row: int | None) -> dict[str, NDArray[Any]]:
    """The recorded state by the names that :class:`StateRenderer` takes."""

    def at(name: str) -> NDArray[np.float64]:
        """An array of the state: the recorded row, or the only one."""
        return np.asarray(arrays[name] if row is None else arrays[name][row], np.float64)

    state = {"qpos": at("qpos")}
    if len(meta["object_names"]):
        state |= {f"object/{name}": pose for name, pose in zip(meta["object_names"], at("obj_pose"), strict=True)}
    if "drawer_qpos" in arrays:
        state |= dict(zip((f"joint/{n}" for n in meta["drawer_joint_names"]), at("drawer_qpos"), strict=True))
        state["base_pose"] = np.asarray(meta["base_pose_world"], np.float64)
    return state
