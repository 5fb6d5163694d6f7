"""What stands for keys for a while, in memory: so many of each key, of each project and of all together.

With one too many the one that was used longest ago goes: of the key, of the project, or of the project that
has most of them. So nobody who makes many pushes out another project's.
"""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class StandsForKey(Protocol):
    """Whose it is."""

    @property
    def project_id(self) -> int: ...

    @property
    def key_id(self) -> int: ...


Credential = TypeVar("Credential", bound=StandsForKey)


class HeldCredentials(Generic[Credential]):
    """Credentials by their digests."""

    def __init__(self, *, most: int, most_of_project: int, most_of_key: int) -> None:
        self._most = most
        self._most_of_project = most_of_project
        self._most_of_key = most_of_key
        self._by_project: dict[int, OrderedDict[bytes, Credential]] = {}
        self._project_of: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._project_of)

    def add(self, digest: bytes, credential: Credential) -> None:
        """Holds one more, as the one used last."""
        of_project = self._by_project.get(credential.project_id, OrderedDict[bytes, Credential]())
        of_key = [held for held, each in of_project.items() if each.key_id == credential.key_id]
        if len(of_key) >= self._most_of_key:
            self.pop(of_key[0])
        elif len(of_project) >= self._most_of_project:
            self.pop(next(iter(of_project)))
        elif len(self) >= self._most:
            largest = max(self._by_project, key=lambda project_id: len(self._by_project[project_id]))
            self.pop(next(iter(self._by_project[largest])))
        self._by_project.setdefault(credential.project_id, OrderedDict())[digest] = credential
        self._project_of[digest] = credential.project_id

    def get(self, digest: bytes) -> Credential | None:
        """The one with this digest, if it is held."""
        project_id = self._project_of.get(digest)
        return None if project_id is None else self._by_project[project_id][digest]

    def use(self, digest: bytes, credential: Credential) -> None:
        """Puts `credential` in the place of one that is held, as the one used last."""
        of_project = self._by_project[self._project_of[digest]]
        of_project[digest] = credential
        of_project.move_to_end(digest)

    def pop(self, digest: bytes) -> Credential | None:
        """The one with this digest, which is held no longer; None where it was not."""
        project_id = self._project_of.pop(digest, None)
        if project_id is None:
            return None
        of_project = self._by_project[project_id]
        found = of_project.pop(digest)
        if not of_project:
            del self._by_project[project_id]
        return found
