"""What the Tab key offers: commands, and what each takes. It knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Completer", "Offer", "paths"]


@dataclass(frozen=True)
class Offer:
    """Text to put in the place of the last ``length`` characters, and a word about it."""

    text: str
    length: int
    about: str = ""


class Completer:
    """Completes slash commands, and by kind what follows them."""

    def __init__(
        self,
        commands: Mapping[str, tuple[str, str]],
        kinds: Mapping[str, Callable[[], Iterable[str]]],
    ) -> None:
        """Take each command's usage and help, and the words that a usage's name stands for.

        FILE in a usage is completed by the names of files.
        """
        self._commands, self._kinds = commands, kinds

    def offers(self, text: str) -> Iterator[Offer]:
        """Yield what can stand at the end of ``text``, which is all before the cursor."""
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text[1:].partition(" ")
        if not space:
            for known, (usage, about) in sorted(self._commands.items()):
                if known.startswith(name):
                    end = " " if usage else ""
                    yield Offer(f"/{known}{end}", len(text), about)
            return
        usage = self._commands.get(name, ("", ""))[0]
        word = argument.lstrip()
        if "FILE" in usage:
            yield from paths(word)
            return
        words = next((self._kinds[k] for k in self._kinds if k in usage.split()), None)
        if words and " " not in word:
            yield from (Offer(w, len(word)) for w in words() if w.startswith(word))


def paths(word: str) -> Iterator[Offer]:
    """Yield the files and folders that a path can go on to, hidden ones when asked for."""
    folder, slash, start = word.rpartition("/")
    place = Path(folder + slash if slash else ".").expanduser()
    try:
        found = sorted(place.iterdir())
    except OSError:
        return
    for path in found:
        if path.name.startswith(start) and (start or not path.name.startswith(".")):
            yield Offer(path.name + ("/" if path.is_dir() else ""), len(start))
