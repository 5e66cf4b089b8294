"""Vision: what a camera, its lens and its cable do to an image. No engine takes part."""

from __future__ import annotations

import cv2
import numpy as np

from vlaser_gym.envs.perturbations.base import Moment, Perturbation, Picture


class ImageNoise(Perturbation):
    """Gaussian noise, drawn anew for every image."""

    name, family = "image_noise", "vision"
    counts_pixels = True
    sentence = "Gaussian noise of {strength} on every value (0 to 255) of every image"
    strengths = (8.0, 20.0, 40.0)

    def picture(self, picture: Picture, moment: Moment) -> Picture:
        """Add the noise; values end at black and white."""
        noise = moment.of_step().standard_normal(picture.shape, np.float32) * np.float32(self.strength)
        return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


class Blur(Perturbation):
    """A lens out of focus."""

    name, family = "blur", "vision"
    counts_pixels = True
    sentence = "Gaussian blur with a standard deviation of {strength} pixels"
    strengths = (1.5, 3.0, 6.0)

    def picture(self, picture: Picture, moment: Moment) -> Picture:
        """The image, blurred."""
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), self.strength), np.uint8)


class Jpeg(Perturbation):
    """An image that was compressed on its way."""

    name, family = "jpeg", "vision"
    counts_pixels = True
    sentence = "JPEG compression at quality {strength} of 100"
    strengths = (40.0, 15.0, 5.0)

    def picture(self, picture: Picture, moment: Moment) -> Picture:
        """Compress it and read it again."""
        # OpenCV takes blue first.
        _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(self.strength)])
        return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])


class Exposure(Perturbation):
    """A camera that is set too dark or too bright for a whole episode."""

    name, family = "exposure", "vision"
    sentence = "values of all images of an episode times {strength}, or divided by it, by chance"
    strengths = (1.3, 1.7, 2.5)

    def picture(self, picture: Picture, moment: Moment) -> Picture:
        """Scale it; what is too bright ends at white."""
        brighter = moment.of_episode().random() < 0.5
        factor = self.strength if brighter else 1 / self.strength
        scaled: Picture = np.clip(np.rint(picture * factor), 0, 255).astype(np.uint8)
        return scaled


class BlankImage(Perturbation):
    """The control of vision: what is scored without seeing anything."""

    name, family = "blank_image", "control"
    sentence = "uniform grey in place of every image"
    strengths = (1.0,)

    def picture(self, picture: Picture, moment: Moment) -> Picture:
        """Grey, as ``agent=ablated image=blank`` shows it."""
        return np.full_like(picture, 127)
