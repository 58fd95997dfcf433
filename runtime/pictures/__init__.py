"""Pictures before a model looks at them: opened with care, cut and scaled as its family wants."""
