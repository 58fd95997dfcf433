"""What an answer's text has to be: grammars and JSON schemas, by the llguidance package.

The server, the terminal and Python share it; it knows tokens, not models or requests.
"""
