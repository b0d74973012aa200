"""Pictures, pages and files that people and archives read."""

__all__: list[str] = []
