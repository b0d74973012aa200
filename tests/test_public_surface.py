"""What each room exports is deliberate: its list, what it imports and its docstrings agree."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import monai_medclip

ROOMS = [f"monai_medclip.{module.name}" for module in pkgutil.iter_modules(monai_medclip.__path__)]
PACKAGES = [name for name in ROOMS if hasattr(importlib.import_module(name), "__path__")]


def public_names(module: ModuleType) -> set[str]:
    """Public names that are no modules and were not imported from elsewhere than the package."""
    names = {name for name in vars(module) if not name.startswith("_") and name != "annotations"}
    return {name for name in names if not isinstance(getattr(module, name), ModuleType)}


def test_the_rooms_of_the_house_are_there() -> None:
    assert {"data", "transforms", "networks", "losses", "metrics", "engines", "audits"} <= {
        name.rpartition(".")[2] for name in PACKAGES
    }


@pytest.mark.parametrize("name", [room for room in ROOMS if not room.endswith("__main__")])
def test_every_exported_name_exists_and_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip().endswith((".", "?"))
    exported = module.__all__
    assert len(exported) == len(set(exported))
    missing = [one for one in exported if not hasattr(module, one)]
    objects = {one: getattr(module, one) for one in exported if hasattr(module, one)}
    described = {one: thing for one, thing in objects.items() if inspect.isclass(thing) or inspect.isroutine(thing)}
    silent = [one for one, thing in described.items() if not inspect.getdoc(thing) or _inherited(thing)]
    assert (missing, silent) == ([], [])


def _inherited(thing: object) -> bool:
    return inspect.isclass(thing) and not vars(thing).get("__doc__")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_room_lists_exactly_what_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) == public_names(module)


@pytest.mark.parametrize("name", PACKAGES)
def test_exported_names_come_from_the_room_itself(name: str) -> None:
    module = importlib.import_module(name)
    homes = {one: getattr(getattr(module, one), "__module__", name) for one in module.__all__}
    assert {one: home for one, home in homes.items() if not home.startswith((name, "builtins"))} == {}
