"""The chat page: its files, and the endpoints that render Markdown and read PDFs for it."""
