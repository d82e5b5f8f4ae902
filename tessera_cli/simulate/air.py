"""The atmosphere over a scene, as far as the products have not got rid of it: haze, light, clouds that were missed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.simulate.landscape import field

_MICROMETRES = np.array((0.490, 0.560, 0.665, 0.705, 0.740, 0.783, 0.842, 0.865, 1.610, 2.190))
_ANGSTROM = (_MICROMETRES / 0.55) ** -1.3
"""Optical depth of a usual aerosol per band, of that at 0.55 um: Angstrom's law (1929) with its usual exponent."""


@dataclass(frozen=True)
class Air:
    """How far the reflectance and the scene classification of a pass are off."""

    calibration: float = 0.015
    """Standard deviation of a gain per band and pass."""
    haze: float = 0.0
    """Standard deviation of the optical depth at 0.55 um that the correction leaves or takes too much."""
    glare: float = 0.0
    """Standard deviation of a gain per pass, the same in all bands: sun and view."""
    missed: float = 0.0
    """Share of the ground on which the scene classification sees neither thin clouds nor shadows."""

    def veil(self, scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return reflectance, float32 (10, H, W), as seen through what is left of haze.

        To first order of the optical depth t: R (1 - 0.35 t) + 0.09 t, near what a standard continental aerosol does
        (the numbers are rounded, not fitted); t varies over the scene.
        """
        if not (self.haze or self.glare):
            return scene
        gain = rng.normal(1, self.glare)
        depth = rng.normal(0, self.haze) + 0.5 * self.haze * _coarse(rng, scene.shape[1:], 60)
        for band, strength in zip(scene, _ANGSTROM.tolist(), strict=True):
            depth_here = np.float32(strength) * depth
            band *= np.float32(gain) * (1 - np.float32(0.35) * depth_here)
            band += np.float32(0.09) * depth_here
        return scene

    def noticed(self, above: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        """Return the opacities of cloud, cirrus and shadow that the scene classification takes note of."""
        if not self.missed:
            return above
        lapse = _coarse(rng, above[0].shape, 25)
        missed = lapse > np.quantile(lapse, 1 - self.missed)
        return [np.where(missed & (opacity < 0.7), 0, opacity) for opacity in above]


FAIR = Air()


def _coarse(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Return a smooth field, float32 (H, W), mean 0, variance 1, in steps of four pixels."""
    height, width = (-(-side // 4) for side in shape)
    return field(rng, (height, width), scale / 4).repeat(4, axis=0).repeat(4, axis=1)[: shape[0], : shape[1]]
