"""Named classes that users and other packages may add to: one decorator, or one entry point."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Generic, TypeVar

from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError, PromptfuseWarning

Item = TypeVar("Item")
Registered = TypeVar("Registered")


class Registry(Mapping[str, Item], Generic[Item]):
    """Classes by name: those of the package, those that a program registers, and those of other packages.

    A class is registered by ``@registry.register("name")``. An installed package makes its own known by an
    entry point of the group, which has the class's name and names the class or the module that registers it.
    Nothing is imported before it is looked up. A package that cannot be imported costs a warning only.

    Args:
        what: what an item is called in messages, such as ``method``.
        group: the entry points' group, such as ``promptfuse.methods``.
        own: the package's own items and the modules that register them, in the order of lists.
    """

    def __init__(self, what: str, group: str, own: Mapping[str, str] | None = None) -> None:
        self.what = what
        self.group = group
        self._own = dict(own or {})
        self._items: dict[str, Item] = {}
        self._modules: list[ModuleType] = []
        self._loaded = False
        self._points_loaded = False

    def names(self) -> list[str]:
        """All names in the order of lists, without importing anything."""
        points = [point.name for point in self._points()]
        return list(dict.fromkeys([*self._own, *self._items, *points]))

    @property
    def modules(self) -> list[ModuleType]:
        """The modules of other packages that entry points name."""
        self._load_points()
        return self._modules

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """A decorator that registers a class, which it returns unchanged.

        Args:
            name: what configurations, the command line and messages call it.

        Raises:
            ConfigError: if something else has the name.
        """

        def add(item: Registered) -> Registered:
            self._add(name, item)  # type: ignore[arg-type]
            return item

        return add

    def get_item(self, name: str) -> Item:
        """The item of a name; of the package's own only its module is imported.

        Raises:
            ConfigError: if there is none; the message has the nearest name.
        """
        if name not in self._items and name in self._own:
            import_module(self._own[name])
        if name not in self._items:
            self._load()
        if name not in self._items:
            raise ConfigError(f"no {self.what} is called {name!r}; {nearest(name, self._items)}")
        return self._items[name]

    def __getitem__(self, name: str) -> Item:
        self._load()
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter([*self._own, *(name for name in self._items if name not in self._own)])

    def __len__(self) -> int:
        self._load()
        return len(self._items)

    def _add(self, name: str, item: Item) -> None:
        there, place = self._items.get(name), _place(item)
        # A module that is imported anew defines its classes anew.
        if there is not None and _place(there) != place:
            taken = _place(there)
        elif name in self._own and self._own[name] != getattr(item, "__module__", None):
            taken = self._own[name]
        else:
            taken = ""
        if taken:
            raise ConfigError(
                f"two classes are registered as the {self.what} {name!r}: {taken} and {place}; "
                "give one of them another name"
            )
        self._items[name] = item

    def _points(self) -> list[EntryPoint]:
        return sorted(entry_points(group=self.group), key=lambda point: (point.name, point.value))

    def _load(self) -> None:
        """Import the package's own modules, then what other packages bring."""
        if self._loaded:
            return
        self._loaded = True  # First: a module that looks something up while it is imported must not loop.
        try:
            for module in dict.fromkeys(self._own.values()):
                import_module(module)
        except BaseException:
            self._loaded = False
            raise
        self._load_points()

    def _load_points(self) -> None:
        """Import what other packages bring, once."""
        if self._points_loaded:
            return
        self._points_loaded = True
        for point in self._points():
            self._load_point(point)

    def _load_point(self, point: EntryPoint) -> None:
        try:
            found = point.load()
            if isinstance(found, ModuleType):
                self._modules.append(found)
            elif self._items.get(point.name) is not found:
                self._add(point.name, found)
        except Exception as error:
            owner = point.dist.name if point.dist is not None else point.value
            warnings.warn(
                f"the {self.what} {point.name!r} of the package {owner} cannot be used "
                f"({type(error).__name__}: {error}); update or remove that package",
                PromptfuseWarning,
                stacklevel=4,
            )


def _place(item: object) -> str:
    return f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', repr(item))}"
