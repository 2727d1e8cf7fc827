"""The model: pure functions over arrays. No clock, environment, web or database."""
