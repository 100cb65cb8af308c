"""What the browser may ask to be done to the people of a photograph: a row of TOOLS each.

An action is what the browser sent: ``tool``, and what that needs of ``person`` (a number), ``points`` (x, y in pixels
of the photograph) and ``radius`` (pixels). Nothing in it is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from misc.app.edits import MOST_POINTS, Point, merge, paint, person_in_box, split
from misc.app.photograph import Person, Photograph, covers
from misc.errors import InputError
from misc.images import read_image

MOST_PEOPLE = 20  # of one photograph

Action = Mapping[str, Any]


def act(photograph: Photograph, action: Action) -> str:
    """Change the people of a photograph as the browser asks.

    Returns:
        What was done, one line.

    Raises:
        InputError: it cannot be done.
    """
    tool = TOOLS.get(str(action.get("tool")))
    if tool is None:
        raise InputError(f"tool: found {str(action.get('tool'))[:40]!r}, expected one of {', '.join(TOOLS)}")
    return tool(photograph, action)


def _toggle(photograph: Photograph, action: Action) -> str:
    points = _points(action)
    number = photograph.number_at(points[0]) if points else _person(photograph, action).number
    photograph.turn(number)
    kept = any(person.number == number for person in photograph.kept)
    return f"Person {number} is {'taken back' if kept else 'left out'}."


def _brush(value: int) -> Callable[[Photograph, Action], str]:
    def stroke(photograph: Photograph, action: Action) -> str:
        person, points, radius = _person(photograph, action), _points(action), _number(action.get("radius"))
        own = paint(photograph.mask(person), points, radius=radius, value=value)
        changed: dict[int, np.ndarray | None] = {person.number: own}
        if value:  # a pixel that is given to one person is taken from the others
            added = paint(np.zeros_like(own), points, radius=radius, value=255) > 0
            for other in photograph.people:
                mask = photograph.mask(other)
                if other.number != person.number and mask[added].any():
                    changed[other.number] = np.where(added, np.uint8(0), mask)
        photograph.change(changed)
        gone = "" if own.any() else " Nothing is left of it."
        return f"{'Added to' if value else 'Erased from'} person {person.number}.{gone}"

    return stroke


def _merge(photograph: Photograph, action: Action) -> str:
    numbers = sorted({photograph.number_at(point) for point in _points(action)})
    if len(numbers) < 2:
        raise InputError("merge: click two different people")
    masks = [photograph.mask(person) for person in photograph.people if person.number in numbers]
    photograph.change({**dict.fromkeys(numbers[1:]), numbers[0]: merge(masks)})
    return f"{' and '.join(map(str, numbers))} are one person now: {numbers[0]}."


def _split(photograph: Photograph, action: Action) -> str:
    points = _points(action)
    covering = [
        (np.count_nonzero(mask), person.number, mask)
        for person, mask in ((person, photograph.mask(person)) for person in photograph.people)
        if all(covers(mask, point) for point in points)
    ]
    if not covering:
        raise InputError("split: both clicks have to lie on the one mask that covers two people")
    _, number, mask = min(covering, key=lambda item: item[:2])
    parts = split(read_image(photograph.file), mask, points)
    numbers = [number, *_free(photograph, len(parts) - 1)]
    photograph.change(dict(zip(numbers, parts)))
    return f"Person {number} is split into {' and '.join(map(str, numbers))}."


def _box(photograph: Photograph, action: Action) -> str:
    others = [photograph.mask(person) for person in photograph.kept]
    mask = person_in_box(read_image(photograph.file), _points(action), others=others)
    (number,) = _free(photograph, 1)
    photograph.change({number: mask})
    return f"Person {number} is new. Brush and eraser mend the outline."


def _undo(photograph: Photograph, action: Action) -> str:
    photograph.undo()
    return "Taken back."


TOOLS: dict[str, Callable[[Photograph, Action], str]] = {
    "toggle": _toggle,
    "paint": _brush(255),
    "erase": _brush(0),
    "merge": _merge,
    "split": _split,
    "box": _box,
    "undo": _undo,
}


def _free(photograph: Photograph, count: int) -> list[int]:
    """Numbers that nobody has, also nobody who was there before a step that can be undone."""
    if len(photograph.people) + count > MOST_PEOPLE:
        raise InputError(f"more than {MOST_PEOPLE} people in one photograph; merge some, or use infer.py")
    top = max((person.number for people in (*photograph.history, photograph.people) for person in people), default=0)
    return list(range(top + 1, top + 1 + count))


def _person(photograph: Photograph, action: Action) -> Person:
    found = [person for person in photograph.people if person.number == action.get("person")]
    if not photograph.people:
        raise InputError("nobody is there yet; choose “Add person” and draw a box round each")
    if not found:
        raise InputError("choose the person to work on first: click a number below the photograph")
    return found[0]


def _points(action: Action) -> list[Point]:
    points = action.get("points", [])
    if not isinstance(points, list) or len(points) > MOST_POINTS:
        raise InputError(f"points: expected a list of at most {MOST_POINTS}")
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise InputError("points: expected pairs of x and y")
    return [(_number(x), _number(y)) for x, y in points]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e6:
        raise InputError(f"points and radius: found {str(value)[:40]!r}, expected a number of pixels")
    return float(value)
