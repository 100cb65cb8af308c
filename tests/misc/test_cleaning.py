"""What cleaning takes away and what it leaves."""

from __future__ import annotations

import numpy as np

from misc.cleaning import clean_matte, drop_far


def person() -> tuple[np.ndarray, np.ndarray]:
    matte = np.zeros((120, 160), np.float32)
    matte[20:100, 40:80] = 1
    matte[20:100, 80:84] = [0.8, 0.5, 0.3, 0.1]
    return matte, (matte > 0.5).astype(np.uint8)


def test_haze_and_far_specks_go_and_the_person_stays() -> None:
    matte, mask = person()
    hazy = np.maximum(matte, 0.01)
    hazy[30:50, 50:60] = 0.995  # a hole that no eye sees
    hazy[60:64, 140:144] = 0.7  # somebody else, far away
    hazy[60:62, 87:89] = 0.4  # a wisp of hair beside the person
    expected = matte.copy()
    expected[60:62, 87:89] = 0.4
    np.testing.assert_array_equal(clean_matte(hazy, mask, below=0.02), expected)
    assert hazy[0, 0] == np.float32(0.01)  # the input is left alone


def test_clean_mattes_stay_as_they_are() -> None:
    matte, mask = person()
    np.testing.assert_array_equal(clean_matte(matte, mask, below=0.02), matte)
    np.testing.assert_array_equal(clean_matte(np.zeros_like(matte), mask, below=0.02), 0)


def test_only_far_pieces_that_can_be_seen_are_dropped() -> None:
    matte, mask = person()
    kept = np.maximum(matte, 0.05)  # a haze stays, also beside the person
    kept[60:62, 87:89] = 0.4  # a wisp of hair beside the person
    kept[14:16, 70:150] = 0.6  # one that reaches far out from where the person is near
    grass = kept.copy()
    grass[60:64, 140:144] = 0.7
    grass[60:64, 144] = 0.08  # its soft edge
    dropped = drop_far(grass, mask)
    assert not dropped[59:65, 139:145].any()
    changed = dropped != kept
    assert changed[60:64, 140:145].all() and changed.sum() <= 12 * 12  # and a rim of 4 pixels
    assert grass[60, 140] == np.float32(0.7)  # the input is left alone
    np.testing.assert_array_equal(drop_far(kept, mask), kept)


def test_a_mask_in_the_wrong_place_costs_nothing() -> None:
    matte, mask = person()
    matte[60:64, 140:144] = 0.7
    elsewhere = np.zeros_like(mask)
    elsewhere[110:, :20] = 1
    np.testing.assert_array_equal(drop_far(matte, elsewhere), matte)
