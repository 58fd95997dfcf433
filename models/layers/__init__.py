"""The parts of layers, one file per kind: its settings, keys, tensors, state and graph.

A new kind is one new file here; an architecture's file imports it. Nothing else knows the kinds.
"""
