"""Face detection, tracking, quality checks and label smoothing."""
