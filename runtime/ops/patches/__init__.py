"""patches() -> the picture under evaluation: its patches as rows, (n, 3 patch**2)."""
