"""The HTTP server: OpenAI's, llama-server's and Anthropic's interfaces over one scheduler."""
