"""Encoders to put patterns into: pre-trained ones, and a tiny one for the demo."""

from aaa.models.encoder import Encoder

__all__ = ["Encoder"]
