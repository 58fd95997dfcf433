"""Which models a server has: one, or many that are loaded when they are asked for."""
