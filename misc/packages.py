"""Optional packages: whoever needs one says so in one line, whether it is missing or broken."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable

from misc.errors import InputError


def need(*packages: str, wanted_by: str) -> None:
    """Refuse what needs optional packages that are not there, or that are broken.

    Args:
        packages: by the names that Python imports.
        wanted_by: who needs them, the beginning of the line.

    Raises:
        InputError: a package is not installed, or cannot be imported.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(f"{wanted_by} needs {' and '.join(missing)}; install it with `pip install {_names(missing)}`")
    for package in packages:
        try:
            importlib.import_module(package)
        except (ImportError, OSError) as error:  # a library that it is linked to is missing, or another NumPy
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{wanted_by} needs {package}, which is installed but cannot be imported ({reason}); install it anew "
                f"with `pip install --force-reinstall {_names([package])}`"
            ) from error


def _names(packages: Iterable[str]) -> str:
    """As the package index calls them."""
    return " ".join(package.replace("_", "-") for package in packages)
