"""What the compiled executor is made of; the kernels themselves stand with their operations."""
