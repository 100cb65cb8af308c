"""Detail of the photograph's own pixels in mattes of a smaller network size: a fast guided filter where hair is.

The guided filter (He, Sun, Tang: Guided image filtering, TPAMI 2013) takes alpha in a window for a linear function of
the colour, alpha = a · I + b. The fast one (He, Sun: Fast guided filter, arXiv 1505.00996) fits the functions on small
images and applies them, enlarged, to the full one: a hair that the network could not see gets its alpha from its
colour. Three changes serve mattes. The fit is made twice, the second time to what the first one gives: the windows of
the first carry alpha farther along strands than one window reaches. It is made on a slightly blurred guide, as blurred
as the network's mattes are, because a fit of a soft matte to a sharp photograph has too small a slope. And it counts
only where the undecided band is wide, as in hair; smooth outlines such as those of clothes are better as they are.

All lengths are pixels of the network, so that a photograph gets the same mattes at any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from misc.images import put
from misc.morphology import ellipse
from networks.geometry import enlarged_rows

RADIUS = 5  # of the windows of the filter
EPSILON = 5e-5  # variance of colour that counts as noise, for colours in [0, 1]
BLUR = 1.0  # standard deviation of the blur of the guide, for the fit only
PASSES = 2
DECIDED = 0.02  # alphas nearer to 0 or 1 than this are decided
WINDOW = 7  # side of the window in which the share of undecided pixels is taken
FROM, FULLY = 0.3, 0.6  # of that share: where the filter begins to count, and where it counts fully
RIM = 5  # diameter by which that is dilated: where strands end
SOFT = 2.0  # standard deviation of the blur of the weight
HAZE = 0.05  # alphas that become 0, and 1 from the other end, in and next to the undecided band
TILE = 64  # side of the parts that are worked on at full size
PIXELS = 256  # of the photograph, most of such a side, unless that is below 8 of the network: bounds memory


class Guide:
    """What the filter needs to know of a photograph, for all people in it.

    Args:
        image: (h, w, 3) uint8, at the size of the network.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.sharp = image.astype(np.float32) / 255
        self._fit = cv2.GaussianBlur(self.sharp, (0, 0), BLUR)
        self._mean = _box(self._fit)
        # Covariance of the colours as L D Lᵀ: stable in single precision, where a closed inverse is not.
        r, g, b = cv2.split(self._fit)
        mean_r, mean_g, mean_b = cv2.split(self._mean)
        noise = np.float32(EPSILON)
        rg = _box(r * g) - mean_r * mean_g
        rb = _box(r * b) - mean_r * mean_b
        self._d1 = np.maximum(_box(r * r) - mean_r * mean_r, 0) + noise
        self._l21, self._l31 = rg / self._d1, rb / self._d1
        self._d2 = np.maximum(_box(g * g) - mean_g * mean_g - self._l21 * rg, 0) + noise
        gb = _box(g * b) - mean_g * mean_b - self._l31 * rg
        self._l32 = gb / self._d2
        self._d3 = np.maximum(_box(b * b) - mean_b * mean_b - self._l31 * rb - self._l32 * gb, 0) + noise

    def fit(self, matte: np.ndarray) -> np.ndarray:
        """The linear functions of colour that come nearest to a matte, the mean over all windows of each pixel.

        Args:
            matte: (h, w) float32.

        Returns:
            (h, w, 4) float32: the factors a of red, green and blue, and b.
        """
        mean = _box(matte)
        y1, y2, y3 = cv2.split(_box(self._fit * matte[..., None]) - self._mean * mean[..., None])
        y2 -= self._l21 * y1
        y3 -= self._l31 * y1 + self._l32 * y2
        a3 = y3 / self._d3
        a2 = y2 / self._d2 - self._l32 * a3
        a1 = y1 / self._d1 - self._l21 * a2 - self._l31 * a3
        mean_r, mean_g, mean_b = cv2.split(self._mean)
        return _box(cv2.merge([a1, a2, a3, mean - a1 * mean_r - a2 * mean_g - a3 * mean_b]))


def hairiness(matte: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a matte is undecided over a wide band.

    Args:
        matte: (h, w) float32 in [0, 1], at the size of the network.

    Returns:
        (h, w) float32 in [0, 1], 1 in hair and 0 along smooth outlines; (h, w) float32, 1 in the undecided band and a
        little round it, else 0.
    """
    rim = ellipse(RIM)
    undecided = ((matte > DECIDED) & (matte < 1 - DECIDED)).astype(np.float32)
    band = cv2.dilate(undecided, rim)
    share = cv2.blur(undecided, (WINDOW, WINDOW), borderType=cv2.BORDER_REFLECT)
    weight = cv2.dilate(np.clip((share - FROM) / (FULLY - FROM), 0, 1), rim)
    return np.minimum(cv2.GaussianBlur(weight, (0, 0), SOFT), 1) * band, band


def add_detail(image: np.ndarray, small: np.ndarray, mattes: np.ndarray, out: Sequence[np.ndarray]) -> None:
    """Mattes of the network at the size of the photograph, with its detail.

    Args:
        image: (H, W, 3) uint8, RGB: the photograph or a part of it.
        small: (h, w, 3) uint8, the same at the size of the network. Where that is larger than the photograph, mattes
            get their detail there and are reduced.
        mattes: (K, h, w) float32 in [0, 1].
        out: (H, W) each, where they are written, see ``misc.images.put``. Those of several people may add up to more
            than 1, see ``networks.scale.at_most_one``.
    """
    height, width = image.shape[:2]
    guide = Guide(small)
    for matte, place in zip(mattes, out):
        if small.shape[0] > height:
            whole = np.concatenate([strip for _, strip in _detailed(small, guide, matte)])
            put(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), place)
        else:
            for rows, strip in _detailed(image, guide, matte):
                put(strip, place[rows])


def _detailed(image: np.ndarray, guide: Guide, matte: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The matte enlarged to the size of the image (H, W, 3), with its detail: strips of rows, (n, W) float32 each."""
    weight, band = hairiness(matte)
    target = matte
    for _ in range(PASSES - 1):
        target = target + hairiness(target)[0] * (_apply(guide.fit(target), guide.sharp) - target)
    model = guide.fit(target)
    size = (image.shape[0], image.shape[1])
    ratio_y, ratio_x = size[0] / matte.shape[0], size[1] / matte.shape[1]
    strength = cv2.merge([weight, band])
    tile = min(TILE, max(8, int(PIXELS / max(ratio_y, ratio_x))))
    for top in range(0, matte.shape[0], tile):
        bottom = min(top + tile, matte.shape[0])
        strip_rows = slice(round(top * ratio_y), round(bottom * ratio_y))
        out = enlarged_rows(matte, size, strip_rows)
        for left in range(0, matte.shape[1], tile):
            right = min(left + tile, matte.shape[1])
            if not band[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1].any():
                continue
            strip_columns = slice(round(left * ratio_x), round(right * ratio_x))
            rows = np.arange(strip_rows.start, strip_rows.stop, dtype=np.float32)
            columns = np.arange(strip_columns.start, strip_columns.stop, dtype=np.float32)
            places = np.meshgrid((columns + 0.5) / ratio_x - 0.5, (rows + 0.5) / ratio_y - 0.5)
            filtered = _apply(_sample(model, *places), image[strip_rows, strip_columns].astype(np.float32) / 255)
            here, near = cv2.split(_sample(strength, *places))
            mixed = out[:, strip_columns] + here * (filtered - out[:, strip_columns])
            out[:, strip_columns] = np.where(near > 0.5, np.clip((mixed - HAZE) / (1 - 2 * HAZE), 0, 1), mixed)
        yield strip_rows, out


def _box(values: np.ndarray) -> np.ndarray:
    """The mean over the filter's window, (h, w) or (h, w, C)."""
    side = 2 * RADIUS + 1
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)


def _apply(model: np.ndarray, image: np.ndarray) -> np.ndarray:
    """a · I + b, cut to [0, 1]: (h, w, 4) and (h, w, 3) → (h, w)."""
    return np.clip(np.einsum("hwc,hwc->hw", model[..., :3], image) + model[..., 3], 0, 1)


def _sample(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values between pixels, linear, for coordinates of the same shape."""
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
