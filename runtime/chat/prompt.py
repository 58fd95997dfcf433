"""The line where messages are typed: prompt_toolkit with a chat's keys, history and completion.

Enter sends; Alt-Enter or a backslash at the end begins a line; what is pasted is one text, and
between triple quotes Enter begins a line, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import Completer as ToolkitCompleter
from prompt_toolkit.completion import Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import is_searching
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.keys import Keys
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.utils import is_dumb_terminal

from ggq.paths import user_cache_dir
from ggq.runtime.chat.completing import Completer
from ggq.runtime.chat.screen import Stopped

__all__ = ["Reader", "open_quotes"]

CONTINUED, QUOTES = "... ", '"""'
_KEPT = 1 << 20  # bytes of history; of a longer one the newer half stays


class Reader:
    """Asks for messages: ``input`` with everything that a terminal can do."""

    def __init__(self, completer: Completer) -> None:
        """Take what Tab offers; the history is the user's own, over all sessions."""
        usual = sys.stdout.isatty() or is_dumb_terminal()
        self._output = None if usual else create_output(stdout=sys.stderr)
        self._session: PromptSession[str] = PromptSession(
            history=_history(user_cache_dir() / "chat-history"),
            completer=_Toolkit(completer),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_keys(self._send),
            prompt_continuation=_continued,
            enable_open_in_editor=True,
            enable_suspend=True,
            output=self._output,
        )

    def __call__(self, prompt: str) -> str:
        """Return a message; EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C.

        Stopped at a Ctrl-C right behind Enter, however it comes: the terminal is given back
        meanwhile, and prompt_toolkit's own handler would forget the signal.
        """
        self._sent = False
        try:
            text = self._session.prompt(prompt, handle_sigint=False)
        except KeyboardInterrupt:
            if self._sent:
                raise Stopped from None
            raise
        if self._stopped():
            raise Stopped
        return text

    def ask(self, question: str) -> str:
        """Return the answer to a question, which is no message."""
        plain: PromptSession[str] = PromptSession(output=self._output)
        return plain.prompt(question)

    def _send(self, buffer: Buffer) -> None:
        self._sent = True
        buffer.validate_and_handle()

    def _stopped(self) -> bool:
        """Tell whether Ctrl-C waits among the keys behind Enter; those behind it stay typed."""
        if sys.platform == "win32":  # a console makes every one a signal
            return False
        source = self._session.app.input
        keys = [*get_typeahead(source), *source.read_keys()]
        places = [i for i, key in enumerate(keys) if key.key == Keys.ControlC]
        store_typeahead(source, keys[places[-1] + 1 if places else 0 :])
        return bool(places)


def open_quotes(text: str) -> bool:
    """Tell whether a message begins with triple quotes that nothing closes."""
    start = text.lstrip()
    return start.startswith(QUOTES) and QUOTES not in start[len(QUOTES) :]


class _Toolkit(ToolkitCompleter):
    def __init__(self, completer: Completer) -> None:
        self._completer = completer

    def get_completions(self, document: Document, complete_event: Any) -> Iterable[Completion]:
        for offer in self._completer.offers(document.text_before_cursor):
            shown = offer.about or None
            yield Completion(offer.text, -offer.length, display_meta=shown)


def _continued(width: int, line: int, wraps: int) -> str:
    """Return what stands before a further line; one that only goes on is no new line."""
    return " " * width if wraps else CONTINUED


def _keys(send: Callable[[Buffer], None]) -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter", filter=~is_searching)
    def _(event: Any) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # the first Enter takes what Tab has offered
        elif buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        elif open_quotes(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            send(buffer)

    @keys.add("escape", "enter", filter=~is_searching)
    def _(event: Any) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


def _history(path: Path) -> History:
    """Return the history of all sessions, in a file of the user's own; else of this one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        if path.stat().st_size > _KEPT:
            data = path.read_bytes()[-_KEPT // 2 :]
            path.write_bytes(data[data.find(b"\n# ") + 1 :])
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
