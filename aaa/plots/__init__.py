"""Pictures of patterns, of the masks of a text, and of the course of a run: ``aaa plot``."""
