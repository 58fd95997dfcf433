"""Text of a PDF: a program of its own, so that a hostile file can be stopped.

Reads the file from stdin; prints {"pages": n, "text": ...} or {"error": ...}. It imports nothing
of this package: the server runs it by its path, in Python's isolated mode.
"""

import io
import json
import sys

MAX_PAGES = 3000
MAX_CHARACTERS = 4_000_000
MAX_MEMORY = 2 << 30  # bytes


def limit_memory() -> None:
    """Let a file that unpacks to more fail, where the system can do that."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # Windows has no such limit; macOS refuses this one


def text_of(data: bytes) -> dict[str, object]:
    """Return the pages' text, or what is wrong."""
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        return {"error": "the PDF is encrypted"}
    n_pages = len(reader.pages)
    if n_pages > MAX_PAGES:
        return {"error": f"the PDF has {n_pages} pages, more than {MAX_PAGES}"}
    parts, size = [], 0
    for page in reader.pages:
        part = page.extract_text().strip()
        parts.append(part)
        size += len(part)
        if size > MAX_CHARACTERS:
            return {"error": f"the PDF has more than {MAX_CHARACTERS} characters"}
    text = "\n\n".join(part for part in parts if part)
    if not text:
        return {"error": "the PDF holds no text: its pages are pictures"}
    return {"pages": n_pages, "text": text.encode("utf-8", "replace").decode()}


def main() -> None:
    """Answer for the file at stdin."""
    limit_memory()
    try:
        answer = text_of(sys.stdin.buffer.read())
    except ModuleNotFoundError as error:
        answer = {"error": f"reading a PDF needs {error.name}, which comes with the extra serve"}
    except Exception as error:  # pypdf raises whatever it stumbles over
        answer = {"error": f"the PDF cannot be read: {type(error).__name__}"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
