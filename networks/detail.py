"""Detail of the photograph's own pixels in mattes of a smaller network size: a fast guided filter where hair is.

The guided filter (He, Sun, Tang: Guided image filtering, TPAMI 2013) takes alpha in a window for a linear function of
the colour, alpha = a · I + b. The fast one (He, Sun: Fast guided filter, arXiv 1505.00996) fits the functions on small
images and applies them, enlarged, to the full one: a hair that the network could not see gets its alpha from its
colour. Three changes serve mattes. The fit is made several times, each to what the one before gives, which carries
alpha farther along strands than one window reaches. It is made on a slightly blurred guide, because a fit of a soft
matte to a sharp photograph has too small a slope. And it counts the more the wider the undecided band is: fully in
loose hair, not at all along smooth outlines such as those of clothes. The matte that comes out is for the most part
this one and for the rest that of the network: their errors are others.

All lengths are pixels of the network, so that a photograph gets the same mattes at any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from misc.box import Box
from misc.images import put
from misc.morphology import ellipse
from networks.geometry import enlarged_rows

RADIUS = 5  # of the windows of the filter
REACH = 2 * RADIUS  # from a pixel to those that its function depends on
EPSILON = 3e-5  # variance of colour that counts as noise, for colours in [0, 1]
BLUR = 0.8  # standard deviation of the blur of the guide, for the fit only
PASSES = 5  # each fits the functions to the matte that those of the one before make
DECIDED = 0.02  # alphas nearer to 0 or 1 than this are decided
WINDOW = 7  # side of the window in which the share of undecided pixels is taken
FROM, FULLY = 0.3, 0.6  # of that share: where the filter begins to count, and where it counts fully
AROUND = 21  # side of a larger window
AROUND_FROM, AROUND_FULLY = 0.06, 0.68  # of the share in that one, which has to be large as well
RIM = 5  # diameter by which that is dilated: where strands end
SOFT = 2.0  # standard deviation of the blur of the weight
HAZE = 0.08  # alphas that become 0, and 1 from the other end, in and next to the undecided band, before the share
SHARE = 0.8  # of all this in a matte, the rest is as the network made it
TILE = 64  # side of the parts that are worked on at full size
PIXELS = 256  # of the photograph, most of such a side, unless that is below 8 of the network: bounds memory


class Guide:
    """What the filter needs to know of a photograph, for all people in it.

    Args:
        image: (h, w, 3) uint8, at the size of the network.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.sharp = image.astype(np.float32) / 255
        r, g, b = fit = cv2.split(cv2.GaussianBlur(self.sharp, (0, 0), BLUR))
        mean_r, mean_g, mean_b = mean = [_box(channel) for channel in fit]
        # Covariance of the colours as L D Lᵀ: stable in single precision, where a closed inverse is not.
        noise = np.float32(EPSILON)
        rg = _box(r * g) - mean_r * mean_g
        rb = _box(r * b) - mean_r * mean_b
        d1 = np.maximum(_box(r * r) - mean_r * mean_r, 0) + noise
        l21, l31 = rg / d1, rb / d1
        d2 = np.maximum(_box(g * g) - mean_g * mean_g - l21 * rg, 0) + noise
        gb = _box(g * b) - mean_g * mean_b - l31 * rg
        l32 = gb / d2
        d3 = np.maximum(_box(b * b) - mean_b * mean_b - l31 * rb - l32 * gb, 0) + noise
        self._statistics = np.stack([*fit, *mean, d1, d2, d3, l21, l31, l32])

    def fit(self, matte: np.ndarray, part: Box) -> np.ndarray:
        """The linear functions of colour that come nearest to a matte, the mean over all windows of each pixel.

        Args:
            matte: (h, w) float32, of a part of the photograph.
            part: where that is. At its edges that are not the photograph's, ``REACH`` pixels are of no use.

        Returns:
            (h, w, 4) float32: the factors a of red, green and blue, and b.
        """
        r, g, b, mean_r, mean_g, mean_b, d1, d2, d3, l21, l31, l32 = self._statistics[part.here]
        mean = _box(matte)
        y1 = _box(r * matte) - mean_r * mean
        y2 = _box(g * matte) - mean_g * mean - l21 * y1
        y3 = _box(b * matte) - mean_b * mean - l31 * y1 - l32 * y2
        a3 = y3 / d3
        a2 = y2 / d2 - l32 * a3
        a1 = y1 / d1 - l21 * a2 - l31 * a3
        return cv2.merge([_box(each) for each in (a1, a2, a3, mean - a1 * mean_r - a2 * mean_g - a3 * mean_b)])


def hairiness(matte: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a matte is undecided over a wide band.

    Args:
        matte: (h, w) float32 in [0, 1], at the size of the network.

    Returns:
        (h, w) float32 in [0, 1], 1 in loose hair and 0 along smooth outlines; (h, w) float32, 1 in the undecided band
        and a little round it, else 0.
    """
    rim = ellipse(RIM)
    undecided = ((matte > DECIDED) & (matte < 1 - DECIDED)).astype(np.float32)
    band = cv2.dilate(undecided, rim)
    weight = cv2.dilate(_rising(undecided, WINDOW, FROM, FULLY), rim)
    weight = np.minimum(cv2.GaussianBlur(weight, (0, 0), SOFT), 1)
    return weight * _rising(undecided, AROUND, AROUND_FROM, AROUND_FULLY) * band, band


def _rising(undecided: np.ndarray, side: int, none: float, fully: float) -> np.ndarray:
    """From 0 to 1 as the share of undecided pixels in the window round each rises from ``none`` to ``fully``."""
    share = cv2.blur(undecided, (side, side), borderType=cv2.BORDER_REFLECT)
    return np.clip((share - none) / (fully - none), 0, 1)


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
    model = _model(guide, matte, weight)
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
            plain = out[:, strip_columns]
            mixed = plain + here * (filtered - plain)
            cleaned = np.where(near > 0.5, np.clip((mixed - HAZE) / (1 - 2 * HAZE), 0, 1), mixed)
            out[:, strip_columns] = plain + SHARE * (cleaned - plain)
        yield strip_rows, out


def _model(guide: Guide, matte: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The functions of colour after all passes, (h, w, 4), right in and next to where the weight is not 0."""
    model = np.zeros((*matte.shape, 4), np.float32)
    hair = Box.of(weight > 0)
    if hair.is_empty:
        return model
    part = hair.grown(REACH + 1, shape=(matte.shape[0], matte.shape[1]))
    here = part.rows_and_columns
    target = matte[here]
    for number in range(PASSES):
        if number:
            target = target + weight[here] * (_apply(model[here], guide.sharp[here]) - target)
        model[here] = guide.fit(target, part)
    return model


def _box(values: np.ndarray) -> np.ndarray:
    """The mean over the filter's window, (h, w)."""
    side = 2 * RADIUS + 1
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)


def _apply(model: np.ndarray, image: np.ndarray) -> np.ndarray:
    """a · I + b, cut to [0, 1]: (h, w, 4) and (h, w, 3) → (h, w)."""
    return np.clip(np.einsum("hwc,hwc->hw", model[..., :3], image) + model[..., 3], 0, 1)


def _sample(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values between pixels, linear, for coordinates of the same shape."""
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
