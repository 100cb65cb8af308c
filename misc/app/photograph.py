"""An open photograph and its people, whose masks can be changed and the changes undone."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from misc.app.edits import Point
from misc.errors import InputError

MOST_UNDONE = 50  # steps that can be taken back


@dataclass(frozen=True)
class Person:
    """A person of a photograph.

    Attributes:
        number: from 1, shown on the page; the files of the person are called by one less, as everywhere: 00.png.
        packed: the mask, compressed.
        kept: whether the person is matted.
    """

    number: int
    packed: bytes
    kept: bool = True


@dataclass
class Photograph:
    """A photograph that is open.

    Attributes:
        name: of its files, without ending.
        file: the photograph, as it was uploaded.
        size: height and width, pixels.
        preview: (h, w, 3) uint8, its longer side at most that of ``session.PREVIEW_SIDE``.
        people: who is in it.
        history: what ``people`` was before, for undoing.
        matted: the people whose mattes there are; ``None`` before.
    """

    name: str
    file: Path
    size: tuple[int, int]
    preview: np.ndarray
    people: tuple[Person, ...] = ()
    history: list[tuple[Person, ...]] = field(default_factory=list)
    matted: tuple[Person, ...] | None = None

    @property
    def kept(self) -> tuple[Person, ...]:
        """The people who are matted."""
        return tuple(person for person in self.people if person.kept)

    def mask(self, person: Person) -> np.ndarray:
        """(H, W) uint8, 0 or 255."""
        bits = np.frombuffer(zlib.decompress(person.packed), np.uint8)
        return np.unpackbits(bits, count=self.size[0] * self.size[1]).reshape(self.size) * np.uint8(255)

    def number_at(self, point: Point) -> int:
        """The person at a point; of several the smallest.

        Raises:
            InputError: nobody is there.
        """
        found = [
            (np.count_nonzero(mask), person.number)
            for person, mask in ((person, self.mask(person)) for person in self.people)
            if covers(mask, point)
        ]
        if not found:
            raise InputError("nobody is there; click on a coloured person, or draw a box round a new one")
        return min(found)[1]

    def change(self, masks: Mapping[int, np.ndarray | None], *, kept: bool = True) -> None:
        """New masks of people, old or new, in a step that can be undone; empty ones go, and those that are ``None``."""
        people = {person.number: person for person in self.people}
        for number, mask in masks.items():
            before = people.pop(number, None)
            if mask is not None and mask.any():
                people[number] = Person(number, packed(mask), kept if before is None else before.kept)
        self._step(tuple(people[number] for number in sorted(people)))

    def turn(self, number: int) -> None:
        """Leave a person out, or take the person back."""
        self._step(tuple(replace(p, kept=not p.kept) if p.number == number else p for p in self.people))

    def undo(self) -> None:
        """Take the last step back."""
        if self.history:
            self.people = self.history.pop()

    def _step(self, people: tuple[Person, ...]) -> None:
        self.history = [*self.history[1 - MOST_UNDONE :], self.people]
        self.people = people


def covers(mask: np.ndarray, point: Point) -> bool:
    """Whether a mask, (H, W) uint8, has a point."""
    x, y = point
    return 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0] and bool(mask[int(y), int(x)])


def packed(mask: np.ndarray) -> bytes:
    """A mask, (H, W) bool or uint8, as :class:`Person` keeps it."""
    return zlib.compress(np.packbits(mask > 0).tobytes(), 1)
