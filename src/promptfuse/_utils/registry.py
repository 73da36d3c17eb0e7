"""Named classes that users and other packages may add to: one decorator, or one entry point."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError, PromptfuseWarning

Item = TypeVar("Item")
Registered = TypeVar("Registered")


class Registry(Mapping[str, Item], Generic[Item]):
    """Classes by name: those of the package, those that a program registers, and those of other packages.

    A class is registered by ``@registry.register("name")``. A package that is installed makes its own known
    by an entry point of the group; the entry point names the class, or the module that registers it. Nothing
    is imported before the first look-up, and a package that cannot be imported costs a warning, not the run.

    Args:
        what: what an item is called in messages, such as ``method``.
        group: the entry points' group, such as ``promptfuse.methods``.
        modules: modules of the package that register items, in the order in which lists show them.
    """

    def __init__(self, what: str, group: str, modules: tuple[str, ...] = ()) -> None:
        self.what = what
        self.group = group
        self._modules = modules
        self._items: dict[str, Item] = {}
        self._loaded = False

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
        """The item of a name.

        Raises:
            ConfigError: if there is none; the message has the nearest name.
        """
        self._load()
        if name not in self._items:
            raise ConfigError(f"no {self.what} is called {name!r}; {nearest(name, self._items)}")
        return self._items[name]

    def __getitem__(self, name: str) -> Item:
        self._load()
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._items)

    def __len__(self) -> int:
        self._load()
        return len(self._items)

    def _add(self, name: str, item: Item) -> None:
        there = self._items.get(name)
        if there is not None and not _is_same(there, item):
            raise ConfigError(
                f"two classes want to be the {self.what} {name!r}: {_place(there)} and {_place(item)}; "
                "give one of them another name"
            )
        self._items[name] = item

    def _load(self) -> None:
        """Import the package's own modules, then what other packages bring."""
        if self._loaded:
            return
        self._loaded = True  # First: a module that looks something up while it is imported must not loop.
        try:
            for module in self._modules:
                import_module(module)
        except BaseException:
            self._loaded = False
            raise
        for point in sorted(entry_points(group=self.group), key=lambda point: (point.name, point.value)):
            self._load_point(point)

    def _load_point(self, point: EntryPoint) -> None:
        try:
            found = point.load()
            if isinstance(found, type):
                self._add(point.name, found)  # type: ignore[arg-type]
        except Exception as error:
            owner = point.dist.name if point.dist is not None else point.value
            warnings.warn(
                f"the {self.what} {point.name!r} of the package {owner} cannot be used "
                f"({type(error).__name__}: {error}); update or remove that package",
                PromptfuseWarning,
                stacklevel=4,
            )


def _is_same(one: object, other: object) -> bool:
    """Whether both are the same class: a module that is imported anew defines its classes anew."""
    return one is other or _place(one) == _place(other)


def _place(item: object) -> str:
    return f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', repr(item))}"
